"""What the ledger hands to the store: taken once, whole, in any number of threads."""

import threading

import pytest
from sqlalchemy.exc import IntegrityError

from freehold.core.usage import IdempotencyClaim
from freehold.store import ledger
from freehold.store.base import ClaimState
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_key,
    entries_of,
    reservation,
    settlement,
    used,
)


def test_entries_that_are_there_change_nothing(store: SqlStore) -> None:
    entries = entries_of(
        ledger._reserved(reservation("req_1")), ["m", "req_1", 1, 1],
        ledger._settled(settlement("req_1")),
    )  # fmt: skip
    store.apply(entries)
    before = store.records("ten_a", 10)
    store.apply(entries)
    store.apply(entries_of(ledger._reserved(reservation("req_1", alias="other"))))
    store.apply(entries_of(["m", "req_1", 99, 99]))
    store.apply(entries_of(ledger._settled(settlement("req_1", 99))))
    store.apply(entries_of(ledger._settled(settlement("req_unknown"))))
    assert store.records("ten_a", 10) == before


def test_what_is_not_known_stays_unknown(store: SqlStore) -> None:
    used(store, "req_1", ttft_us=None)
    (row,) = store.records("ten_a", 10)
    names = ("ttft_us", "cost", "price", "account", "adapter_digest", "error_code")
    assert [row[name] for name in names] == [None] * 6


def test_a_count_that_nothing_can_hold_keeps_no_other_waiting(store: SqlStore) -> None:
    used(store, "req_1", tokens_out=2**62, duration_us=2**63 - 1)
    used(store, "req_2")
    first, second = sorted(store.records("ten_a", 10), key=lambda row: str(row["id"]))
    assert first["tokens_out"] >= 2**31 - 1
    assert second["tokens_out"] == 7


def test_a_batch_is_applied_whole_or_not_at_all(store: SqlStore) -> None:
    broken = ["s", "req_1"]  # without the counts that a settlement must have
    with pytest.raises(IntegrityError):
        store.apply(entries_of(ledger._reserved(reservation("req_1")), broken))
    assert store.records("ten_a", 10) == []


def test_orphans_are_settled_once_with_their_last_mark(store: SqlStore) -> None:
    used(store, "req_done")
    both = [ledger._reserved(reservation(name)) for name in ("req_a", "req_b")]
    store.apply(entries_of(*both, ["m", "req_b", 2, 1], ["m", "req_b", 2, 5]))
    assert store.settle_orphans(77) == 2
    assert store.settle_orphans(78) == 0
    found = {row["id"]: row for row in store.records("ten_a", 10)}
    assert (found["req_b"]["tokens_in"], found["req_b"]["tokens_out"]) == (2, 5)
    for name in ("req_a", "req_b"):
        row = found[name]
        assert (row["outcome"], row["settled_at_us"], row["estimated"]) == ("orphaned", 77, True)
    assert found["req_done"]["outcome"] == "ok"


def test_the_end_of_an_older_claim_leaves_a_newer_one_alone(store: SqlStore) -> None:
    asked = IdempotencyClaim("slot", "body", 10)

    def take(request_id: str) -> None:
        assert store.claim(asked, request_id, 1) in (None, ClaimState(claimed=True))
        store.apply(entries_of(["c", "slot", request_id, "body", 10]))

    take("req_1")
    store.apply(entries_of(["d", "slot", "req_1", None, None, None]))
    take("req_2")
    for older in (["d", "slot", "req_1", None, None, None], ["d", "slot", "req_1", 200, "x", ""]):
        store.apply(entries_of(older))
        assert store.claim(asked, "req_x", 1) == ClaimState(running=True)


def test_many_threads_use_one_store(store: SqlStore) -> None:
    failed: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for turn in range(15):
                store.add_key(a_key(f"key_{number}_{turn}", f"ten_{number}"))
                assert len(store.keys(f"ten_{number}")) == turn + 1
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
