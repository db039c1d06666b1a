"""The ledger's one writer: reservations and settlements committed in groups.

Requests wait for their own commit, and one transaction carries all that came in
while the one before it was on its way to the disk. A reservation outlives the
process (the write reached the operating system); a settlement outlives the power
(the write reached the disk) and takes every earlier reservation with it.
"""

import asyncio
import logging
import threading
from dataclasses import dataclass, field

from freehold.core.errors import Code, FreeholdError, UserError
from freehold.core.usage import Reservation, Settlement
from freehold.store.base import ClaimState, LedgerStore

_log = logging.getLogger(__name__)
_RETRY_S = 1.0


@dataclass(slots=True)
class _Batch:
    reservations: list[tuple[Reservation, asyncio.Future[ClaimState | None]]] = field(
        default_factory=list
    )
    settlements: list[tuple[Settlement, asyncio.Future[None]]] = field(default_factory=list)
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.reservations or self.settlements or self.marks)


class Ledger:
    """Made on the event loop's thread; the writer is a thread of its own."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Condition()
        self._pending = _Batch()
        self._unwritten: list[Settlement] = []  # settlements the disk refused so far
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def is_writable(self) -> bool:
        """False while the disk refuses settlements; new work is then refused too."""
        return not self._unwritten

    async def reserve(self, reservation: Reservation) -> ClaimState | None:
        """Returns once the reservation is committed. Raises
        `UserError(STORAGE_UNAVAILABLE)`, and then nothing was reserved."""
        if self._unwritten or self._closing:
            raise _unwritable()
        done: asyncio.Future[ClaimState | None] = self._loop.create_future()
        with self._wake:
            self._pending.reservations.append((reservation, done))
            self._wake.notify()
        return await done

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """Queued at once, so that a caller which is cancelled while it waits loses
        nothing. The result is there when the settlement is on the disk; the future
        fails with `STORAGE_UNAVAILABLE` when the disk refuses, and the writer goes
        on trying."""
        done: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            self._pending.settlements.append((settlement, done))
            self._wake.notify()
        return done

    def mark(self, request_id: str, tokens_in: int, tokens_out: int) -> None:
        """Notes how far a running request came; written with the next group."""
        with self._wake:
            self._pending.marks[request_id] = (tokens_in, tokens_out)
            self._wake.notify()

    async def close(self) -> None:
        """Writes what is queued, then ends the writer."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._pending and not self._closing:
                    waited = self._wake.wait(_RETRY_S if self._unwritten else None)
                    if not waited and self._unwritten:
                        break
                batch, self._pending = self._pending, _Batch()
                closing = self._closing
            self._commit(batch)
            if closing and not self._pending:
                return

    def _commit(self, batch: _Batch) -> None:
        retried = self._unwritten
        settlements = [*retried, *(entry for entry, _ in batch.settlements)]
        if not batch and not retried:
            return
        failure: FreeholdError | None = None
        claims: list[ClaimState | None] = []
        try:
            claims = self._store.write(
                [entry for entry, _ in batch.reservations],
                [(name, tin, out) for name, (tin, out) in batch.marks.items()],
                settlements,
                survive_power_loss=bool(settlements),
            )
            self._unwritten = []
        except FreeholdError as error:
            failure = error
            self._unwritten = settlements
            _log.error("ledger_write_failed", extra={"reason": error.message})
        self._loop.call_soon_threadsafe(_resolve, batch, claims, failure)


def _resolve(batch: _Batch, claims: list[ClaimState | None], failure: FreeholdError | None) -> None:
    if failure is None:
        for (_, reserved), claim in zip(batch.reservations, claims, strict=True):
            if not reserved.done():
                reserved.set_result(claim)
        for _, settled in batch.settlements:
            if not settled.done():
                settled.set_result(None)
        return
    futures: list[asyncio.Future[ClaimState | None] | asyncio.Future[None]] = [
        *(future for _, future in batch.reservations),
        *(future for _, future in batch.settlements),
    ]
    for future in futures:
        if not future.done():
            future.set_exception(failure)
            future.exception()  # nobody may be waiting any more; that is no mistake


def _unwritable() -> UserError:
    return UserError(
        Code.STORAGE_UNAVAILABLE,
        "Usage cannot be recorded right now, so no request is served: "
        "free disk space or wait, then try again.",
        retry_after_s=2,
    )
