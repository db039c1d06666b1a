"""Any sequence of requests, crashes, full disks and locked databases against a plain
model: every request that was admitted ends settled exactly once, and the sums agree."""

import asyncio
import contextlib
import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from freehold.core.errors import UserError
from freehold.store import journal, ledger, sqlite
from freehold.store.ledger import Ledger, recover
from freehold.store.sql import SqlStore
from tests.store.disk import Disk
from tests.store.making import reservation, rows, settlement

Ended = tuple[str | None, int, int]  # outcome, tokens in, tokens out
_WHICH = st.integers(0, 9)


@dataclass
class _Request:
    """What the model knows of one that was admitted."""

    given: int | None = None  # tokens with which it was settled
    is_reserved: bool = False  # on the disk, because a later settlement was told to be
    is_settled: bool = False  # on the disk, because somebody was told so
    marks: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])  # last ones possible
    all_marks: set[tuple[int, int]] = field(default_factory=lambda: {(0, 0)})
    ended: Ended | None = None  # from a crash on, what the database must say for ever

    def may_end_as(self, *, after_power_loss: bool) -> set[Ended]:
        if self.ended is not None:
            return {self.ended}
        marks = self.all_marks if after_power_loss else set(self.marks)
        orphaned: set[Ended] = {("orphaned", *mark) for mark in marks}
        if self.given is None:
            return orphaned
        ok: set[Ended] = {("ok", 3, self.given)}
        return ok if self.is_settled else ok | orphaned


class Accounts(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="accounts-"))
        self.lives = self.made = 0
        self.model: dict[str, _Request] = {}
        self.lock: sqlite3.Connection | None = None
        self.home = self.root / "0"
        self.home.mkdir()
        self.start()

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(what, 30))

    def start(self) -> None:
        self.disk = Disk()
        self.is_faulty = False
        journal.os = self.disk  # type: ignore[attr-defined]
        self.store = SqlStore(self.home / "freehold.db")

        async def open_book() -> Ledger:
            return Ledger(self.store, self.home / "journal")

        self.book: Ledger = self.run(open_book())

    def stop(self) -> None:
        """As a process that may finish."""
        self.unlock_database()
        self.disk.mend()
        self.run(self.book.close())

    # requests

    @rule()
    def reserve(self) -> None:
        self.made += 1
        request_id = f"req_{self.made:04d}"
        with contextlib.suppress(UserError):
            self.run(self.book.reserve(reservation(request_id)))
            self.model[request_id] = _Request()

    def open_requests(self) -> list[str]:
        return [
            request_id for request_id, known in self.model.items()
            if known.given is None and known.ended is None
        ]  # fmt: skip

    def one_of_the_open(self, which: int) -> str | None:
        """How many there are hangs on when a disk was heard to be full, which is not the same
        each time that the same steps are gone: what is drawn must not hang on it."""
        some = self.open_requests()
        return some[which % len(some)] if some else None

    @rule(which=_WHICH, tokens=st.integers(0, 1000))
    def settle(self, which: int, tokens: int) -> None:
        request_id = self.one_of_the_open(which)
        if request_id is None:
            return

        async def settle() -> None:
            await self.book.settle(settlement(request_id, tokens))

        self.model[request_id].given = tokens
        with contextlib.suppress(UserError):
            self.run(settle())
            for known in self.model.values():
                known.is_reserved = True  # it took with it all that was written before
                known.is_settled = known.given is not None

    @rule(which=_WHICH, tokens=st.tuples(st.integers(0, 9), st.integers(0, 99)))
    def mark(self, which: int, tokens: tuple[int, int]) -> None:
        request_id = self.one_of_the_open(which)
        if request_id is None:
            return
        self.book.mark(request_id, *tokens)
        known = self.model[request_id]
        known.marks = [*known.marks, tokens] if self.is_faulty else [tokens]
        known.all_marks.add(tokens)

    @rule()
    def flush(self) -> None:
        self.run(asyncio.to_thread(self.book.flush))

    # trouble

    @precondition(lambda self: self.lock is None)
    @rule()
    def lock_database(self) -> None:
        self.lock = sqlite3.connect(self.home / "freehold.db", isolation_level=None)
        self.lock.execute("BEGIN EXCLUSIVE")

    @rule()
    def unlock_database(self) -> None:
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    @rule(room=st.integers(0, 3000))
    def fill_disk(self, room: int) -> None:
        self.disk.room, self.is_faulty = room, True

    @rule(call=st.sampled_from(["pwrite", "open", "fsync", "fdatasync"]))
    def break_disk(self, call: str) -> None:
        self.disk.break_calls([call], errno.EIO)
        self.is_faulty = True

    @rule(number=st.integers(1, 6))
    def break_disk_once(self, number: int) -> None:
        self.disk.fail_call(self.disk.calls + number)
        self.is_faulty = True

    @rule()
    def mend_disk(self) -> None:
        self.disk.mend()

    # the end of a life

    @rule()
    def kill(self) -> None:
        self.crash(after_power_loss=False)

    @rule()
    def lose_power(self) -> None:
        self.crash(after_power_loss=True)

    def crash(self, *, after_power_loss: bool) -> None:
        self.lives += 1
        home = self.root / str(self.lives)
        home.mkdir()
        with contextlib.closing(sqlite3.connect(self.home / "freehold.db")) as reader:
            if self.lock is None:
                reader.execute("BEGIN IMMEDIATE")  # nobody writes while we copy
            for name in ("freehold.db", "freehold.db-wal"):
                shutil.copy(self.home / name, home)
            if after_power_loss:
                self.disk.lose_power(home / "journal")
            else:
                shutil.copytree(
                    self.home / "journal", home / "journal", ignore_dangling_symlinks=True
                )
        self.stop()
        self.store.close()
        shutil.rmtree(self.home)
        self.home = home
        self.recover(after_power_loss=after_power_loss)
        self.start()

    def recover(self, *, after_power_loss: bool) -> None:
        store = SqlStore(self.home / "freehold.db")
        recover(store, self.home / "journal")
        store.settle_orphans(9_000_000)
        self.check(store, after_power_loss=after_power_loss)
        store.close()

    def check(self, store: SqlStore, *, after_power_loss: bool) -> None:
        found: dict[str, Ended] = {row[0]: row[1:] for row in rows(store)}
        assert set(found) <= set(self.model), "what was refused is nowhere"
        for request_id, known in list(self.model.items()):
            if request_id not in found:
                assert after_power_loss
                assert not known.is_reserved
                del self.model[request_id]
                continue
            assert found[request_id] in known.may_end_as(after_power_loss=after_power_loss)
            known.ended = found[request_id]
        usage = store.usage("ten_a", 0, 10_000_000)
        assert sum(row.requests for row in usage) == len(self.model)
        assert sum(row.tokens_in for row in usage) == sum(row[1] for row in found.values())
        assert sum(row.tokens_out for row in usage) == sum(row[2] for row in found.values())

    def teardown(self) -> None:
        """A stop in good order: everything that was settled is there as it was given."""
        if not hasattr(self, "book"):
            return
        self.stop()
        found: dict[str, Ended] = {row[0]: row[1:] for row in rows(self.store)}
        for request_id, known in self.model.items():
            if known.ended is not None:
                assert found[request_id] == known.ended
            elif known.given is not None:
                assert found[request_id] == ("ok", 3, known.given)
            else:
                assert found[request_id][0] is None
        assert set(found) == set(self.model)
        assert list((self.home / "journal").iterdir()) == []
        self.store.close()
        self.loop.close()
        shutil.rmtree(self.root)


def test_every_admitted_request_is_settled_once_whatever_happens() -> None:
    with (
        mock.patch.object(journal, "os", journal.os),  # type: ignore[attr-defined]
        mock.patch.object(journal, "_SEGMENT_BYTES", 1024),
        mock.patch.object(journal, "_ROOM_BYTES", 256),
        mock.patch.object(ledger, "_RETRY_S", 0.005),
        mock.patch.object(ledger, "_APPLY_S", 0.002),
        mock.patch.object(sqlite, "_BUSY_TIMEOUT_MS", 5),
    ):
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Accounts,
            settings=settings(
                max_examples=25,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
