"""The ledger: what was reserved and settled, on the disk before anybody is told.

A reservation is appended to the journal before dispatch and outlives the process. A
settlement waits for the disk and outlives the power, and takes every earlier
reservation with it; one sync serves all that came in during the one before it. The
database gets the same entries a moment later, many in one transaction.
"""

import asyncio
import base64
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from freehold.core.errors import Code, FreeholdError, UserError
from freehold.core.usage import KeptContent, Reservation, Settlement, StoredReply
from freehold.store import journal
from freehold.store.base import ClaimState, Entries, LedgerStore
from freehold.store.claims import Claims
from freehold.store.database import Unwritable

_log = logging.getLogger(__name__)
_RETRY_S, _APPLY_S, _FLUSH_S = 1.0, 1.0, 30.0
_SYNC_S = 2.0
_MAX_BEHIND = 200_000  # entries that the database may lack before new work is refused


class _Nudge(Enum):
    """What the sync thread is told beside those who wait for it."""

    SYNC = auto()
    LAST = auto()


_Wait = asyncio.Future[None] | _Nudge


@dataclass(slots=True, eq=False)
class _Question:
    """What is asked of the database once it has that many entries."""

    least: int
    read: Callable[[], int]
    answer: "asyncio.Future[tuple[int, int]]"


class Ledger:
    """Made on the event loop's thread, and used there, except for `flush`."""

    def __init__(self, store: LedgerStore, folder: Path) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._journal = _journal_in(folder)
        self._claims = Claims(store)
        self._waiting: queue.SimpleQueue[_Wait] = queue.SimpleQueue()
        self._questions: list[_Question] = []
        self._refused: list[bytes] = []  # settlements that the disk refused so far
        self._is_failing = self._is_full = self._is_closing = False
        self._unapplied: tuple[Code, str] | None = None  # why to wait for nothing
        # Entries that the database does not have yet. The lock also spans the append of
        # each, so that no segment is removed whose lines are not among them.
        self._lock = threading.Condition()
        self._entries = Entries()
        self._appended = self._synced = self._applied = self._hurried = self._failures = 0
        self._threads = [
            threading.Thread(target=self._keep_synced, name="ledger-sync", daemon=True),
            threading.Thread(target=self._keep_applied, name="ledger-apply", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_writable(self) -> bool:
        return self.trouble is None

    @property
    def trouble(self) -> UserError | None:
        """Why new work is refused: the disk refuses settlements, or what proves the audit
        records cannot be written, or the database's own disk refuses, or it has not taken
        any for long."""
        if self._is_failing:
            return _unwritable("the journal")
        if self._unapplied is not None:
            return UserError(*self._unapplied, retry_after_s=2)
        if self._appended - self._applied >= _MAX_BEHIND:
            return _unwritable("the database, which is away for too long")
        return None

    def lacks_room(self) -> UserError | None:
        """As long as a request that was refused for it would be refused again."""
        if self._is_full and not self._append([["m", "", 0, 0]]):
            return _unwritable("the journal")
        self._is_full = False
        return None

    async def reserve(self, reservation: Reservation) -> ClaimState | None:
        """What the idempotency claim met, None without one; where that is not
        `claimed`, nothing was reserved. Raises `UserError(STORAGE_UNAVAILABLE)`, and
        then nothing was reserved either."""
        trouble = self.trouble
        if self._is_closing or trouble is not None:
            raise trouble or _unwritable("the journal")
        claim, state = reservation.idempotency, None
        if claim is not None:
            state = await self._claims.take(
                claim, reservation.request_id, reservation.created_at_us
            )
            if not state.claimed:
                return state
        entries = [_reserved(reservation)]
        if claim is not None:
            entries.append(
                ["c", claim.slot, reservation.request_id, claim.body_hash, claim.expires_at_us]
            )
        if not self._append(entries):
            self._is_full = True
            if claim is not None:
                await self._claims.free(claim.slot)
            raise _unwritable("the journal")
        return state

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """Written at once, so that a caller which is cancelled while it waits loses
        nothing. The result is there when the settlement is on the disk; the future
        fails with `STORAGE_UNAVAILABLE` when the disk refuses, and the ledger goes
        on trying."""
        done: asyncio.Future[None] = self._loop.create_future()
        entries = [_settled(settlement)]
        if settlement.claim_slot is not None:
            self._claims.finish(settlement.claim_slot, settlement.replay)
            entries.insert(0, _finished(settlement.claim_slot, settlement))
        if settlement.content is not None:
            entries.insert(0, _kept(settlement.request_id, settlement.content))
        if not self._append(entries, is_owed=True):
            self._is_failing = True
        self._waiting.put(done)
        return done

    def mark(self, request_id: str, tokens_in: int, tokens_out: int) -> None:
        """Notes how far a running request came, for the case that this process dies.
        On a full disk nothing is noted: the next mark may fit."""
        self._append([["m", request_id, tokens_in, tokens_out]])

    def flush(self) -> None:
        """Returns when the database holds all that was settled before, or refuses to.
        For any thread but the event loop's."""
        with self._lock:
            wanted, failures = self._appended, self._failures
            self._hurried = wanted
            self._lock.notify_all()
            self._lock.wait_for(
                lambda: self._applied >= wanted or self._failures > failures, _FLUSH_S
            )

    @property
    def place(self) -> int:
        """How many entries were written: that of the last one."""
        return self._appended

    async def counted(self, read: Callable[[], int]) -> tuple[int, int]:
        """A sum from the database, and the place of the last entry that it holds: at least
        all that were there when this was called. Raises `UserError(STORAGE_UNAVAILABLE)`."""
        answer: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        with self._lock:
            self._questions.append(_Question(self._appended, read, answer))
            self._hurried = self._appended
            self._lock.notify_all()
        return await answer

    async def close(self) -> None:
        """Syncs and applies what there is, then ends both threads."""
        self._is_closing = True
        self._waiting.put(_Nudge.LAST)
        await asyncio.to_thread(self._threads[0].join)
        with self._lock:
            self._lock.notify_all()
        await asyncio.to_thread(self._threads[1].join)

    def _append(self, entries: list[list[Any]], *, is_owed: bool = False) -> bool:
        """Whether the journal took them; what is owed stays to be tried again."""
        each = list(map(journal.line, entries))
        lines = b"".join(each)
        with self._lock:
            try:
                self._journal.append(lines)
                is_written = True
            except OSError:
                if not is_owed:
                    return False
                self._refused.append(lines)
                is_written = False
            if self._appended == self._applied:
                self._lock.notify_all()
            for entry, line in zip(entries, each, strict=True):
                self._entries.add(entry, journal.content(line))
            self._appended += len(entries)
        return is_written

    # the sync thread

    def _keep_synced(self) -> None:
        is_last = False
        while not is_last:
            batch = self._take_waiting()
            is_last = _Nudge.LAST in batch
            with self._lock:
                appended = self._appended
            failure = self._sync()
            with self._lock:
                self._is_failing = failure is not None
                self._synced = self._synced if self._is_failing else appended
                self._lock.notify_all()
            futures = [future for future in batch if not isinstance(future, _Nudge)]
            if futures:
                self._loop.call_soon_threadsafe(_resolve, futures, failure)
        self._journal.close()

    def _take_waiting(self) -> "list[_Wait]":
        """All who wait now; after a while nobody, when there is something to retry."""
        batch: list[_Wait] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._waiting.get(timeout=_RETRY_S if self._is_failing else None))
            while True:
                batch.append(self._waiting.get_nowait())
        return batch

    def _sync(self) -> FreeholdError | None:
        try:
            while self._refused:
                self._journal.append(self._refused[0])
                del self._refused[0]
            self._journal.sync()
        except OSError as error:
            _log.error("ledger_write_failed", extra={"reason": error.strerror})
            return _unwritable("the journal")
        return None

    # the apply thread

    def _keep_applied(self) -> None:
        is_last = False
        while not is_last:
            with self._lock:
                self._lock.wait_for(self._has_work)
                self._lock.wait_for(self._is_hurried, _APPLY_S)
                is_last = self._is_ended
                closed = self._journal.take_closed()
                entries, self._entries = self._entries, Entries()
                self._wait_for_disk(self._appended)
            is_applied = self._apply(entries, closed)
            self._answer_questions(is_applied)
            if is_applied or is_last:
                continue
            with self._lock:
                self._lock.wait_for(lambda: self._is_ended, _RETRY_S)

    def _has_work(self) -> bool:
        return self._applied < self._appended or bool(self._questions) or self._is_ended

    def _answer_questions(self, is_applied: bool) -> None:
        """Between two transactions, so that it is known what the database has."""
        with self._lock:
            ready = [each for each in self._questions if each.least <= self._applied]
            if not is_applied:  # nobody waits for a database that is away
                ready = self._questions
            self._questions = [each for each in self._questions if each not in ready]
        for each in ready:
            result: tuple[int, int] | FreeholdError = _unwritable("the database")
            if is_applied:
                try:
                    result = each.read(), self._applied
                except FreeholdError as error:
                    result = error
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_answer, each.answer, result)

    def _wait_for_disk(self, count: int) -> None:
        """What the database and the audit's witness are told must not be lost from the
        journal with the power. A disk that refuses is not waited for."""
        if self._synced < count and not self._is_ended:
            self._waiting.put(_Nudge.SYNC)
            self._lock.wait_for(
                lambda: self._synced >= count or self._is_failing or self._is_ended, _SYNC_S
            )

    def _is_hurried(self) -> bool:
        return self._hurried > self._applied or bool(self._questions) or self._is_ended

    @property
    def _is_ended(self) -> bool:
        return not self._threads[0].is_alive()

    def _apply(self, entries: Entries, closed: list[Path]) -> bool:
        try:
            self._store.apply(entries)
        except FreeholdError as error:
            _log.error("ledger_apply_failed", extra={"reason": error.message})
            is_fatal = error.code is Code.AUDIT_UNAVAILABLE or isinstance(error, Unwritable)
            self._unapplied = (error.code, error.message) if is_fatal else None
            self._journal.give_back(closed)
            with self._lock:
                self._entries = entries.then(self._entries)
                self._failures += 1
                self._lock.notify_all()
            return False
        self._unapplied = None
        for path in closed:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk: the segment in use grows on
            self._journal.prepare()
        with self._lock:
            self._applied += entries.added
            self._lock.notify_all()
        if entries.claims and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._claims.forget, entries.claims)
        return True


def _journal_in(folder: Path) -> journal.Journal:
    try:
        return journal.Journal(folder)
    except OSError as error:
        raise UserError(
            Code.STORAGE_UNAVAILABLE,
            f"Usage cannot be recorded in {folder} ({error.strerror}): "
            "free disk space, then start again.",
        ) from None


def recover(store: LedgerStore, folder: Path) -> None:
    """Brings into the database what a process that died left in its journal. Raises
    `UserError`, and then the journal is as it was."""
    for path in journal.segments(folder):
        entries = Entries()
        try:
            for entry in journal.read(path):
                entries.add(entry)
        except ValueError:
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                f"{path} holds entries of a newer Freehold: start that version once more.",
            ) from None
        except OSError as error:
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                f"{path} cannot be read, or a damaged one kept aside ({error.strerror}): "
                "check the disk and free some space.",
            ) from None
        store.apply(entries)
        path.unlink()


def entries_of(reservation: Reservation, settlement: Settlement) -> list[list[Any]]:
    """What is over already when it is written."""
    return [_reserved(reservation), _settled(settlement)]


def _reserved(entry: Reservation) -> list[Any]:
    return [
        "r", entry.request_id, entry.tenant_id, entry.environment, entry.key_id, entry.alias,
        entry.endpoint, entry.engine, entry.base_digest, entry.adapter_digest,
        entry.conversation_id, entry.priority, entry.stream, entry.created_at_us, entry.policies,
        entry.account, entry.price, entry.personal,
    ]  # fmt: skip


def _settled(entry: Settlement) -> list[Any]:
    return [
        "s", entry.request_id, entry.outcome.value, entry.tokens_in, entry.tokens_out,
        entry.tokens_cached, entry.estimated, entry.ttft_us, entry.duration_us,
        entry.settled_at_us, entry.error_code, entry.cost,
        entry.content and entry.content.digest,
    ]  # fmt: skip


def _kept(request_id: str, content: KeptContent) -> list[Any]:
    sealed = base64.b64encode(content.sealed).decode()
    keys = " ".join(content.keys)
    return ["a", request_id, content.tenant_id, content.environment, keys, sealed]


def _finished(slot: str, settlement: Settlement) -> list[Any]:
    reply: StoredReply | None = settlement.replay
    if reply is None:
        return ["d", slot, settlement.request_id, None, None, None]
    sealed = base64.b64encode(reply.sealed_body).decode()
    return ["d", slot, settlement.request_id, reply.status, reply.content_type, sealed]


def _resolve(futures: "list[asyncio.Future[None]]", failure: FreeholdError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
            future.exception()  # nobody may be waiting any more; that is no mistake


def _answer(
    future: "asyncio.Future[tuple[int, int]]", result: tuple[int, int] | FreeholdError
) -> None:
    if future.done():  # who asked has gone
        return
    if isinstance(result, FreeholdError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _unwritable(what: str) -> UserError:
    return UserError(
        Code.STORAGE_UNAVAILABLE,
        f"Usage cannot be recorded right now ({what}), so no request is served: "
        "free disk space or wait, then try again.",
        retry_after_s=2,
    )
