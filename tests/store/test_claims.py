"""Idempotency claims: one execution a slot, whether the database knows it yet or not."""

import asyncio
import errno
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.core.errors import Code, UserError
from freehold.core.usage import IdempotencyClaim, Outcome, StoredReply
from freehold.store import ledger, postgres, sqlite
from freehold.store.backend import Backend
from freehold.store.base import ClaimState
from freehold.store.ledger import Ledger, recover
from freehold.store.sql import SqlStore
from tests.store.disk import Disk, put_under_journal
from tests.store.making import locked, only_postgres, only_sqlite, reservation, settlement, until

_LATER_US = 5_000_000


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_RETRY_S", 0.02)
    monkeypatch.setattr(ledger, "_APPLY_S", 0.01)
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr(postgres, "_LOCK_MS", 1000)


class _Store(SqlStore):
    """The real store; a test may act between its reading of a claim and its answer."""

    after_read: Callable[[], object] | None = None

    def claim(self, *asked: Any) -> ClaimState | None:
        found = super().claim(*asked)
        act, self.after_read = self.after_read, None
        if act is not None:
            act()
        return found


@pytest.fixture
def store(where: Backend) -> Iterator[_Store]:
    opened = _Store(where)
    yield opened
    opened.close()


def _claim(slot: str = "slot", body: str = "body", until_us: int = _LATER_US) -> IdempotencyClaim:
    return IdempotencyClaim(slot, body, until_us)


def _reply(request_id: str) -> StoredReply:
    return StoredReply(request_id, 200, "application/json", b"\x00sealed\xff")


async def _ask(
    book: Ledger, request_id: str, claim: IdempotencyClaim | None = None, at_us: int = 1_000_000
) -> ClaimState:
    asked = reservation(request_id, idempotency=claim or _claim(), created_at_us=at_us)
    state = await book.reserve(asked)
    assert state is not None
    return state


async def _end(
    book: Ledger, request_id: str, reply: StoredReply | None, slot: str = "slot"
) -> None:
    outcome = Outcome.OK if reply else Outcome.ENGINE_FAILED
    await book.settle(settlement(request_id, outcome=outcome, claim_slot=slot, replay=reply))


def _ids(store: SqlStore) -> set[str]:
    return {row["id"] for row in store.records("ten_a", 100)}


async def _flush(book: Ledger) -> None:
    await asyncio.to_thread(book.flush)
    await asyncio.sleep(0)  # what the threads called on the loop runs


@pytest.mark.parametrize("flushes", [False, True], ids=["in memory", "in the database"])
async def test_a_slot_runs_once_and_then_has_its_reply(
    book: Ledger, store: _Store, flushes: bool
) -> None:
    assert await _ask(book, "req_1") == ClaimState(claimed=True)
    if flushes:
        await _flush(book)
    assert await _ask(book, "req_2") == ClaimState(running=True)
    assert await _ask(book, "req_3", _claim(body="other")) == ClaimState(mismatch=True)
    await _end(book, "req_1", _reply("req_1"))
    if flushes:
        await _flush(book)
    assert await _ask(book, "req_4") == ClaimState(reply=_reply("req_1"))
    assert await _ask(book, "req_5", _claim(body="other")) == ClaimState(mismatch=True)
    assert await _ask(book, "req_6", _claim("another slot")) == ClaimState(claimed=True)
    await _flush(book)
    assert _ids(store) == {"req_1", "req_6"}, "only what was claimed was reserved"


@pytest.mark.parametrize("flushes", [False, True], ids=["in memory", "in the database"])
async def test_a_request_without_a_reply_worth_repeating_frees_its_slot(
    book: Ledger, flushes: bool
) -> None:
    for number in range(3):
        asked = await _ask(book, f"req_{number}", _claim(body=f"body {number}"))
        assert asked == ClaimState(claimed=True)
        await _end(book, f"req_{number}", None)
        if flushes:
            await _flush(book)


async def test_a_hundred_at_once_are_one_claim(book: Ledger) -> None:
    states = await asyncio.gather(*(_ask(book, f"req_{number}") for number in range(100)))
    assert sum(state.claimed for state in states) == 1
    assert sum(state.running for state in states) == 99


async def test_a_hundred_on_a_kept_reply_all_get_it(book: Ledger) -> None:
    await _ask(book, "req_1")
    await _end(book, "req_1", _reply("req_1"))
    asking = [_ask(book, f"again_{number}") for number in range(100)]
    flushing = _flush(book)
    *states, _ = await asyncio.gather(*asking, flushing)
    assert states == [ClaimState(reply=_reply("req_1"))] * 100


@only_sqlite  # PostgreSQL has each claim before its request is let in
async def test_a_claim_that_ends_while_the_database_is_asked_is_not_missed(
    book: Ledger, store: _Store
) -> None:
    """The database said "free" just before it learned of the reply."""
    loop = asyncio.get_running_loop()

    async def whole_life() -> None:
        await _ask(book, "req_1")
        await _end(book, "req_1", _reply("req_1"))
        await _flush(book)

    store.after_read = lambda: asyncio.run_coroutine_threadsafe(whole_life(), loop).result(20)
    assert await _ask(book, "req_2") == ClaimState(reply=_reply("req_1"))


@only_sqlite  # PostgreSQL has each claim before its request is let in
async def test_a_claim_that_begins_while_the_database_is_asked_is_not_missed(
    book: Ledger, store: _Store
) -> None:
    loop = asyncio.get_running_loop()
    store.after_read = lambda: asyncio.run_coroutine_threadsafe(_ask(book, "req_1"), loop).result(
        20
    )
    assert await _ask(book, "req_2") == ClaimState(running=True)


@only_sqlite  # PostgreSQL has each claim before its request is let in
async def test_while_the_database_is_locked_claims_go_on(
    book: Ledger, store: _Store, where: Backend
) -> None:
    with locked(where):
        await _ask(book, "req_1")
        assert await _ask(book, "req_2") == ClaimState(running=True)
        await _end(book, "req_1", _reply("req_1"))
        assert await _ask(book, "req_3") == ClaimState(reply=_reply("req_1"))
    await until(lambda: store.claim(_claim(), "req_x", 1) is not None)
    assert await _ask(book, "req_4") == ClaimState(reply=_reply("req_1"))


async def test_a_kept_reply_ends_with_its_time(book: Ledger) -> None:
    await _ask(book, "req_1")
    await _end(book, "req_1", _reply("req_1"))
    await _flush(book)
    kept = await _ask(book, "req_2", at_us=_LATER_US)
    assert kept.reply is not None
    late = _claim(body="other", until_us=2 * _LATER_US)
    assert await _ask(book, "req_3", late, at_us=_LATER_US + 1) == ClaimState(claimed=True)


async def test_a_claim_that_the_disk_refused_is_free_again(
    store: _Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk: Disk = put_under_journal(monkeypatch)
    book = Ledger(store, tmp_path / "journal")
    disk.break_calls(["pwrite"], errno.ENOSPC)
    with pytest.raises(UserError):
        await _ask(book, "req_1")
    disk.mend()
    assert await _ask(book, "req_2") == ClaimState(claimed=True)
    await book.close()


@only_sqlite  # PostgreSQL has each claim before its request is let in
async def test_after_a_crash_replies_are_kept_and_what_was_running_may_run_again(
    book: Ledger, tmp_path: Path, where: Backend, another: Callable[[], Backend]
) -> None:
    with locked(where):
        await _ask(book, "req_1", _claim("done"))
        await _end(book, "req_1", _reply("req_1"), "done")
        await _ask(book, "req_2", _claim("running"))
        await _ask(book, "req_3", _claim("failed"))
        await _end(book, "req_3", None, "failed")
        kept = Path(shutil.copytree(tmp_path / "journal", tmp_path / "kept"))
    fresh = SqlStore(another())
    recover(fresh, kept)
    recover(fresh, kept)
    assert fresh.claim(_claim("running"), "req_x", 1) == ClaimState(running=True)
    fresh.settle_orphans(2_000_000)
    assert fresh.claim(_claim("done"), "req_x", 1) == ClaimState(reply=_reply("req_1"))
    assert fresh.claim(_claim("running"), "req_x", 1) is None
    assert fresh.claim(_claim("failed"), "req_x", 1) is None
    fresh.settle_orphans(_LATER_US + 1)
    assert fresh.claim(_claim("done"), "req_x", 1) is None, "what expired is swept"
    fresh.close()


@only_postgres
async def test_while_the_database_is_locked_a_request_with_a_key_is_refused(
    book: Ledger, where: Backend
) -> None:
    with locked(where):
        with pytest.raises(UserError) as refused:
            await _ask(book, "req_1")
        assert refused.value.code is Code.STORAGE_UNAVAILABLE
        assert refused.value.retry_after_s
    assert await _ask(book, "req_2") == ClaimState(claimed=True)


@only_postgres
async def test_who_stops_waiting_for_a_claim_leaves_none_behind(
    book: Ledger, store: _Store
) -> None:
    began, may_end = threading.Event(), threading.Event()
    store.after_read = lambda: (began.set(), may_end.wait(20))
    asking = asyncio.create_task(_ask(book, "req_1"))
    await asyncio.to_thread(began.wait, 20)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    may_end.set()
    async with asyncio.timeout(20):
        while await _ask(book, "req_2") != ClaimState(claimed=True):
            await asyncio.sleep(0.01)


async def test_a_claim_that_follows_one_without_a_reply_is_not_forgotten_with_it(
    book: Ledger,
) -> None:
    """The database had the end of the first only, when the second had ended too."""
    await _ask(book, "req_1")
    await _end(book, "req_1", None)
    first = [["d", "slot", "req_1", None, None, None]]
    await _ask(book, "req_2")
    await _end(book, "req_2", _reply("req_2"))
    book._claims.forget(first)
    assert book._claims._held["slot"].reply == _reply("req_2")
    assert await _ask(book, "req_3") == ClaimState(reply=_reply("req_2"))
