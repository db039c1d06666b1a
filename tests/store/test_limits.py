"""Limits in the store, and what was spent that they are held against."""

import asyncio
from dataclasses import replace

from freehold.core.binding import Environment
from freehold.core.limit import DAY_US, Limit, Measure, Period, Window
from freehold.core.usage import Outcome
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore
from tests.store.making import reservation, settlement

_ALWAYS = Window(0, None)


def _limit(name: str = "lim_1", **fields: object) -> Limit:
    made = Limit(
        name, "ten_a", Environment.DEV, None, Measure.TOKENS, Period.DAY, 100, False, 1, "key_1"
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def test_setting_the_same_limit_again_keeps_its_id(store: SqlStore) -> None:
    first = store.set_limit("ten_a", _limit())
    before = store.access_number()
    again = store.set_limit("ten_a", _limit("lim_2", amount=200, set_by="key_2", set_at_us=9))
    assert again == replace(first, amount=200, set_by="key_2", set_at_us=9)
    assert store.limits("ten_a") == [again]
    assert store.access_number() > before, "every process hears of it"


def test_limits_differ_by_all_that_narrows_them(store: SqlStore) -> None:
    wanted = [
        _limit("lim_1"), _limit("lim_2", environment=None), _limit("lim_3", subject="key_9"),
        _limit("lim_4", period=Period.MONTH), _limit("lim_5", measure=Measure.MONEY),
        _limit("lim_6", is_own=True), _limit("lim_7", environment=Environment.PROD),
    ]  # fmt: skip
    for limit in wanted:
        store.set_limit("ten_a", limit)
    assert store.limits("ten_a") == wanted
    assert list(store.every_limit()) == wanted
    assert store.limits("ten_b") == []
    assert store.remove_limit("ten_b", Environment.DEV, "lim_1") is None
    assert store.remove_limit("ten_a", Environment.STAGING, "lim_7") is None
    assert store.remove_limit("ten_a", Environment.STAGING, "lim_2") == wanted[1]
    assert store.remove_limit("ten_a", Environment.PROD, "lim_7") == wanted[6]
    assert store.limits("ten_a") == [*wanted[:1], *wanted[2:6]]


async def test_what_was_spent_is_the_sum_of_what_was_settled(book: Ledger, store: SqlStore) -> None:
    days = (0, 0, 1, 2)
    for number, day in enumerate(days):
        await book.reserve(
            reservation(
                f"req_{number}",
                created_at_us=day * DAY_US + 5,
                key_id=f"key_{number}",
                account="key_0" if number < 2 else None,
                environment="prod" if number == 3 else "dev",
                price="0:1000000/2000000/0",
            )
        )
        await book.settle(settlement(f"req_{number}", 10**number, cost=number))
        await book.settle(settlement(f"req_{number}", 77, cost=77))  # the first counts
    await book.reserve(reservation("req_open"))
    await asyncio.to_thread(book.flush)

    def spent(within: Window = _ALWAYS, **fields: object) -> int:
        return store.spent("ten_a", _limit(environment=None, **fields), within)

    assert spent() == 4 * 3 + 1111
    assert spent(measure=Measure.REQUESTS) == 4
    assert spent(measure=Measure.MONEY) == 6
    assert spent(Window(0, 1)) == 2 * 3 + 11
    assert spent(Window(1, 2)) == 103
    assert spent(subject="key_0") == 17, "with the key that replaced it"
    assert spent(subject="key_1") == 0
    assert store.spent("ten_a", _limit(environment=Environment.PROD), _ALWAYS) == 1003
    assert store.spent("ten_b", _limit(), _ALWAYS) == 0

    total, place = await book.counted(lambda: spent())
    assert (total, place) == (4 * 3 + 1111, book.place)


async def test_what_a_dead_gateway_had_sent_is_spent_by_the_price_it_was_let_in_with(
    book: Ledger, store: SqlStore
) -> None:
    await book.reserve(reservation("req_1", price="0:1000000/3000000/0"))
    await book.reserve(reservation("req_2"))
    book.mark("req_1", 10, 5)
    await asyncio.to_thread(book.flush)
    assert store.settle_orphans(9) == 2
    rows = {row["id"]: row for row in store.records("ten_a", 10)}
    assert rows["req_1"]["outcome"] == Outcome.ORPHANED
    assert (rows["req_1"]["cost"], rows["req_2"]["cost"]) == (25, None)
    assert store.spent("ten_a", _limit(measure=Measure.MONEY), _ALWAYS) == 25
    assert store.spent("ten_a", _limit(), _ALWAYS) == 15


def test_a_tenant_that_is_removed_takes_its_limits_along(store: SqlStore) -> None:
    store.add_tenant("ten_a", "acme", 1)
    store.set_limit("ten_a", _limit())
    store.remove_tenant("ten_a")
    assert list(store.every_limit()) == []
