"""Several gateways on one PostgreSQL: each settles its own, hears of the others, and an
idempotency key is taken once between all."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.core.audit import Head, Sought, chained
from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.core.signature import SigningKey
from freehold.core.usage import IdempotencyClaim, StoredReply
from freehold.store import ledger
from freehold.store.audit import place_of
from freehold.store.base import ClaimState
from freehold.store.ledger import Ledger
from freehold.store.postgres import Postgres
from freehold.store.sql import SqlStore
from tests.postgres import connected
from tests.store.making import (
    a_route,
    a_signature,
    adapter,
    entries_of,
    reservation,
    rows,
    settlement,
    used,
)

_LONG_US = 60_000_000


@pytest.fixture
def where(postgres_database: Callable[[], Postgres]) -> Postgres:
    return postgres_database()


@pytest.fixture
def both(where: Postgres) -> Iterator[tuple[SqlStore, SqlStore]]:
    made = [SqlStore(replace(where, gateway=name)) for name in ("gw_a", "gw_b")]
    yield made[0], made[1]
    for each in made:
        each.close()


def _reserve(store: SqlStore, *ids: str) -> None:
    store.apply(entries_of(*(ledger._reserved(reservation(id)) for id in ids)))


def _silence(where: Postgres, gateway: str) -> None:
    """As if it had not been heard of for two minutes."""
    with connected(where) as connection:
        connection.execute(
            "UPDATE gateways SET seen_at_us = seen_at_us - 120000000 WHERE id = %s", [gateway]
        )


def test_a_request_says_which_gateway_reserved_it(both: tuple[SqlStore, SqlStore]) -> None:
    for store, id in zip(both, ("req_a", "req_b"), strict=True):
        _reserve(store, id)
    found = {row["id"]: row["gateway"] for row in both[0].records("ten_a", 10)}
    assert found == {"req_a": "gw_a", "req_b": "gw_b"}


def test_a_start_settles_what_its_own_gateway_left_open_only(
    both: tuple[SqlStore, SqlStore],
) -> None:
    a, b = both
    _reserve(a, "req_a")
    _reserve(b, "req_b")
    assert a.settle_orphans(7) == 1
    assert rows(a) == [("req_a", "orphaned", 0, 0), ("req_b", None, 0, 0)]
    assert b.settle_orphans(8) == 1


def test_what_a_silent_gateway_left_open_is_settled_by_another_and_nothing_else(
    both: tuple[SqlStore, SqlStore], where: Postgres
) -> None:
    a, b = both
    for store, id in zip(both, ("req_a", "req_b"), strict=True):
        store.beat()
        _reserve(store, id)
    assert b.sweep(_LONG_US) == 0, "both were heard of just now"
    _silence(where, "gw_a")
    a.apply(entries_of(["m", "req_a", 2, 5]))
    assert a.sweep(_LONG_US) == 0, "none sweeps itself"
    assert b.sweep(_LONG_US) == 1
    assert b.sweep(_LONG_US) == 0
    assert rows(b) == [("req_a", "orphaned", 2, 5), ("req_b", None, 0, 0)]


def test_a_gateway_that_comes_back_is_told_that_its_settlement_came_too_late(
    both: tuple[SqlStore, SqlStore], where: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = both
    a.beat()
    _reserve(a, "req_1", "req_2")
    a.apply(entries_of(ledger._settled(settlement("req_2"))))
    _silence(where, "gw_a")
    b.sweep(_LONG_US)
    assert "settled_too_late" not in caplog.text
    late = entries_of(*(ledger._settled(settlement(id, 9)) for id in ("req_1", "req_2")))
    a.apply(late)
    a.apply(late)
    assert rows(a) == [("req_1", "orphaned", 0, 0), ("req_2", "ok", 3, 7)]
    (first, _) = [record for record in caplog.records if record.msg == "settled_too_late"]
    assert "1 requests" in first.reason
    a.beat()
    _reserve(a, "req_3")
    assert b.sweep(_LONG_US) == 0
    used(a, "req_3")
    assert rows(a)[-1] == ("req_3", "ok", 3, 7)


def test_sweeping_at_once_settles_each_once(
    both: tuple[SqlStore, SqlStore], where: Postgres
) -> None:
    gone = SqlStore(replace(where, gateway="gw_gone"))
    gone.beat()
    _reserve(gone, *(f"req_{number}" for number in range(40)))
    gone.close()
    _silence(where, "gw_gone")
    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda store: store.sweep(_LONG_US), both * 2))
    assert sum(counts) == 40
    assert {row[1] for row in rows(both[0])} == {"orphaned"}


# audit records


def test_each_gateway_writes_audit_chains_of_its_own_and_all_are_listed(
    both: tuple[SqlStore, SqlStore],
) -> None:
    for number, store in enumerate(both * 3):
        used(store, f"req_{number}")
    streams = ["ten_a/dev@gw_a", "ten_a/dev@gw_b"]
    for store in both:
        found = store.audit_records("ten_a", "dev", 10)
        assert [(each.number, each.stream) for each in found] == [
            (number, stream) for number in (1, 2, 3) for stream in streams
        ]
        assert list(store.audit_heads()) == [store.own("ten_a/dev")]
    for stream in streams:
        chain = list(both[0].audit_trail(stream))
        assert chain == chained(stream, Head(), [each.body for each in chain])
        assert len(chain) == 3


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_records_of_all_gateways_come_by_time_each_once_in_pages_of_any_size(
    both: tuple[SqlStore, SqlStore], size: int
) -> None:
    """Also those of the same moment and number, of which there are several."""
    times = [(5, 3, 5, 9), (5, 3, 4, 9, 9)]
    for store, mine in zip(both, times, strict=True):
        for number, at_us in enumerate(mine):
            used(store, f"req_{store.gateway}_{number}", settled_at_us=at_us)
        used(store, f"req_{store.gateway}_x", settled_at_us=1, tenant="ten_ab")
    seen: list[tuple[int, str, int]] = []
    while page := both[0].audit_found("ten_a/dev", Sought(), size, seen[-1] if seen else None):
        seen += map(place_of, page)
    assert seen == sorted(
        (at_us, f"ten_a/dev@{store.gateway}", number)
        for store, mine in zip(both, times, strict=True)
        for number, at_us in enumerate(mine, 1)
    )
    behind = [place for place in seen if place[2] > 3]
    assert list(map(place_of, both[1].audit_found("ten_a/dev", Sought(), 9, None, 3))) == behind
    assert both[0].audit_found("ten_a", Sought(), 9) == []


# one place each


def test_a_gateway_is_one_process_at_a_time(where: Postgres) -> None:
    first = SqlStore(where)
    first.take_place()
    first.take_place()
    second = SqlStore(where)
    for refused in (second.take_place, second.beat):
        with pytest.raises(UserError, match="remove `gateway`, `audit`") as told:
            refused()
        assert told.value.code is Code.HOME_IN_USE
    other = SqlStore(replace(where, gateway="gw_other"))
    other.take_place()
    first.close()
    second.take_place()
    for each in (second, other):
        each.close()


def test_a_place_is_taken_again_when_its_connection_was_lost(where: Postgres) -> None:
    store = SqlStore(where)
    store.beat()
    with connected(where) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    store.beat()
    second = SqlStore(where)
    with pytest.raises(UserError):
        second.take_place()
    for each in (store, second):
        each.close()


# what others changed


def test_changes_to_routes_are_heard_of_by_the_others(both: tuple[SqlStore, SqlStore]) -> None:
    a, b = both
    assert b.heard(0) == (0, set(), False)
    a.set_route("ten_a", a_route("ten_a", "x"))
    a.put_routes("ten_b", Environment.PROD, [])
    last, homes, _ = b.heard(0)
    assert homes == {("ten_a", Environment.DEV), ("ten_b", Environment.PROD)}
    assert b.heard(last) == (last, set(), False)
    assert a.heard(0) == (last, set(), False), "its own changes it knows"
    a.remove_route("ten_a", Environment.DEV, "none")
    assert b.heard(last) == (last, set(), False)
    a.remove_route("ten_a", Environment.DEV, "x")
    assert b.heard(last) == (last + 1, {("ten_a", Environment.DEV)}, False)


def test_other_gateways_hear_which_signatures_count(both: tuple[SqlStore, SqlStore]) -> None:
    a, b = both
    a.add_signing_key(SigningKey("k" * 64, "pem", 1), is_rotation=False)
    a.revoke_signing_key("k" * 64, 7)
    assert b.heard(0) == (1, set(), True)
    assert b.heard(1) == (1, set(), False)
    assert a.heard(0) == (1, set(), False), "its own changes it knows"
    assert [each.revoked_since_us for each in b.signing_keys()] == [7]
    b.revoke_signing_key("k" * 64, 7)
    assert a.heard(1) == (1, set(), False), "nothing was changed"
    mine = adapter("ten_a")
    a.add_adapters("ten_a", [mine])
    a.add_signature("ten_a", mine, a_signature("ten_a", mine.digest))
    assert b.heard(1) == (2, set(), True)
    assert [each.name for each, _ in b.adapters_signed_by("ab" * 32)] == [mine.name]
    assert b.adapters_signed_by("k" * 64) == []


def test_a_change_is_not_hidden_by_a_later_one_of_another_gateway(
    both: tuple[SqlStore, SqlStore],
) -> None:
    a, b = both
    a.set_route("ten_a", a_route("ten_a", "x"))
    b.set_route("ten_a", a_route("ten_a", "y"))
    for store in both:
        assert store.heard(0) == (2, {("ten_a", Environment.DEV)}, False)


# idempotency keys


def _claim(body: str = "body") -> IdempotencyClaim:
    return IdempotencyClaim("slot", body, 5_000_000)


async def test_a_key_is_taken_once_between_all_gateways_at_once(
    both: tuple[SqlStore, SqlStore], tmp_path: Path
) -> None:
    books = [Ledger(store, tmp_path / f"{number}") for number, store in enumerate(both)]
    asked = [
        books[number % 2].reserve(reservation(f"req_{number:02d}", idempotency=_claim()))
        for number in range(40)
    ]
    states = await asyncio.gather(*asked)
    assert [state and state.claimed for state in states].count(True) == 1
    assert [state and state.running for state in states].count(True) == 39
    for book in books:
        await book.close()
    assert len(rows(both[0])) == 1


async def test_a_reply_is_repeated_by_the_other_gateway(
    both: tuple[SqlStore, SqlStore], tmp_path: Path
) -> None:
    first, second = (Ledger(store, tmp_path / f"{n}") for n, store in enumerate(both))
    reply = StoredReply("req_1", 200, "application/json", b"sealed")
    await first.reserve(reservation("req_1", idempotency=_claim()))
    await first.settle(settlement("req_1", claim_slot="slot", replay=reply))
    await asyncio.to_thread(first.flush)
    asked = reservation("req_2", idempotency=_claim())
    assert await second.reserve(asked) == ClaimState(reply=reply)
    other = reservation("req_3", idempotency=_claim("other body"))
    assert await second.reserve(other) == ClaimState(mismatch=True)
    for book in (first, second):
        await book.close()


async def test_a_key_whose_gateway_fell_silent_is_free_again(
    both: tuple[SqlStore, SqlStore], where: Postgres
) -> None:
    a, b = both
    a.beat()
    assert a.claim(_claim(), "req_1", 1) == ClaimState(claimed=True)
    assert b.claim(_claim(), "req_2", 1) == ClaimState(running=True)
    _silence(where, "gw_a")
    b.sweep(_LONG_US)
    assert b.claim(_claim(), "req_2", 1) == ClaimState(claimed=True)
    a.apply(entries_of(["c", "slot", "req_1", "body", 5], ["d", "slot", "req_1", 200, "x", ""]))
    assert b.claim(_claim(), "req_3", 1) == ClaimState(running=True), "the later claim stands"


def test_a_key_that_expired_is_free_again(both: tuple[SqlStore, SqlStore]) -> None:
    a, b = both
    a.claim(_claim(), "req_1", 1)
    assert b.claim(_claim("other"), "req_2", 5_000_000) == ClaimState(mismatch=True)
    assert b.claim(_claim("other"), "req_2", 5_000_001) == ClaimState(claimed=True)
