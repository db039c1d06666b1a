"""Each settled request leaves one audit record, in the transaction that settles it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from freehold.core.audit import Head, Record, Sought, chained
from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError
from freehold.store import ledger
from freehold.store.audit import place_of
from freehold.store.backend import Backend
from freehold.store.base import Entries, KeyRecord
from freehold.store.sql import SqlStore
from tests.store.making import failing, reservation, settlement


def _entries(*made: list[Any]) -> Entries:
    entries = Entries()
    for entry in made:
        entries.add(entry)
    return entries


def _use(store: SqlStore, id: str, tenant: str = "ten_a", environment: str = "dev") -> None:
    asked = reservation(
        id, tenant_id=tenant, environment=environment, policies="freehold/users-use-models",
        base_digest="sha256:b", adapter_digest="sha256:a",
    )  # fmt: skip
    store.apply(_entries(ledger._reserved(asked), ledger._settled(settlement(id))))


def _bodies(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [json.loads(record.body) for record in records]


def test_a_record_says_who_used_what_and_by_which_policies(store: SqlStore) -> None:
    _use(store, "req_1")
    (body,) = _bodies(store.audit_records("ten_a", "dev", 10))
    assert body == {
        "v": 3, "kind": "request", "id": "req_1", "at_us": 2_000_000, "began_at_us": 1_000_000,
        "principal": "key_1", "endpoint": "chat/completions", "model": "m", "engine": "fake",
        "base": "sha256:b", "adapter": "sha256:a", "policies": ["freehold/users-use-models"],
        "outcome": "ok", "error": None, "tokens_in": 3, "tokens_out": 7, "tokens_cached": 1,
        "estimated": False, "personal": None, "cost": None, "content": None,
    }  # fmt: skip


def test_each_tenants_environment_has_a_chain_of_its_own(store: SqlStore) -> None:
    for number in range(3):
        _use(store, f"req_a{number}")
        _use(store, f"req_p{number}", environment="prod")
        _use(store, f"req_b{number}", tenant="ten_b")
    for tenant, environment, first in (
        ("ten_a", "dev", "a"),
        ("ten_a", "prod", "p"),
        ("ten_b", "dev", "b"),
    ):
        found = store.audit_records(tenant, environment, 10)
        assert [body["id"] for body in _bodies(found)] == [f"req_{first}{n}" for n in range(3)]
        assert found == chained(found[0].stream, Head(), [each.body for each in found])
    written = {store.own(stream) for stream in ("ten_a/dev", "ten_a/prod", "ten_b/dev")}
    assert set(store.audit_heads()) == written
    assert store.audit_records("ten_a", "dev", 1, after=1)[0].number == 2
    assert store.audit_records("ten_c", "dev", 10) == []


def test_what_is_applied_twice_is_recorded_once(store: SqlStore) -> None:
    for _ in range(3):
        _use(store, "req_1")
    assert len(store.audit_records("ten_a", "dev", 10)) == 1


def test_records_come_in_the_order_of_the_settlements(store: SqlStore) -> None:
    names = ["req_c", "req_a", "req_d", "req_b"]
    asked = [ledger._reserved(reservation(name)) for name in sorted(names)]
    store.apply(_entries(*asked, *(ledger._settled(settlement(name)) for name in names)))
    found = _bodies(store.audit_records("ten_a", "dev", 10))
    assert [body["id"] for body in found] == names


def test_what_a_dead_process_left_open_is_recorded_too(store: SqlStore) -> None:
    both = [ledger._reserved(reservation(name)) for name in ("req_b", "req_a")]
    store.apply(_entries(*both))
    assert store.settle_orphans(77) == 2
    found = _bodies(store.audit_records("ten_a", "dev", 10))
    assert [(body["id"], body["outcome"]) for body in found] == [
        ("req_a", "orphaned"), ("req_b", "orphaned"),
    ]  # fmt: skip


def test_the_witness_hears_first_and_without_it_nothing_happens(store: SqlStore) -> None:
    heard: list[Record] = []
    is_full = True

    def witness(records: Sequence[Record]) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        assert store.audit_records("ten_a", "dev", 10) == []
        heard.extend(records)

    store.witness = witness
    with pytest.raises(UserError) as refused:
        _use(store, "req_1")
    assert refused.value.code is Code.AUDIT_UNAVAILABLE
    assert refused.value.retry_after_s
    assert store.records("ten_a", 10) == []
    assert store.audit_records("ten_a", "dev", 10) == []
    is_full = False
    _use(store, "req_1")
    assert store.audit_records("ten_a", "dev", 10) == heard


def test_a_record_that_is_made_again_after_a_crash_is_the_same(
    another: Callable[[], Backend],
) -> None:
    """The checkpoints had it, the database did not, and the journal is applied again."""
    heard: list[list[Record]] = []
    for at_us in (5, 9):
        store = SqlStore(another())
        store.witness = lambda records: heard.append(list(records))
        asked = [ledger._reserved(reservation(id)) for id in ("req_1", "req_2")]
        store.apply(_entries(*asked, ledger._settled(settlement("req_1"))))
        store.settle_orphans(at_us)
        store.close()
    assert heard[:2] == heard[2:]


def _key(id: str) -> KeyRecord:
    return KeyRecord(
        id,
        "ten_a",
        Environment.DEV,
        "x",
        id.encode(),
        frozenset({Scope.INFER}),
        None,
        1,
        None,
        None,
    )


def _whole(store: SqlStore) -> list[dict[str, Any]]:
    """The records of a chain that holds together."""
    found = store.audit_records("ten_a", "dev", 100)
    assert found == chained(store.own("ten_a/dev"), Head(), [each.body for each in found])
    return _bodies(found)


def test_an_act_that_was_signed_and_not_stored_is_stored_as_undone(store: SqlStore) -> None:
    signed: dict[int, Record] = {}

    def witness(records: Sequence[Record]) -> None:
        for record in records:
            assert signed.setdefault(record.number, record) == record, "signed twice, differently"

    store.witness = witness
    for _ in range(2):
        with failing(store), pytest.raises(UserError) as refused:
            store.add_key(_key("key_1"))
        assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert store.keys("ten_a") == []
    _use(store, "req_1")
    store.add_key(_key("key_2"))
    kinds = [(body["kind"], body.get("object") or body.get("records")) for body in _whole(store)]
    assert kinds == [
        ("act", "key_1"), ("undone", [1]), ("act", "key_1"), ("undone", [3]),
        ("request", None), ("act", "key_2"),
    ]  # fmt: skip
    assert [record.number for record in signed.values()] == list(range(1, 7))


def test_settlements_that_were_signed_and_not_stored_come_again_before_anything_else(
    store: SqlStore,
) -> None:
    signed: dict[int, Record] = {}

    def witness(records: Sequence[Record]) -> None:
        for record in records:
            assert signed.setdefault(record.number, record) == record

    store.witness = witness
    first = _entries(
        *(ledger._reserved(reservation(id)) for id in ("req_b", "req_a")),
        *(ledger._settled(settlement(id)) for id in ("req_b", "req_a")),
    )
    with failing(store), pytest.raises(UserError):
        store.apply(first)
    with pytest.raises(UserError, match="still to be stored"):
        store.add_key(_key("key_1"))
    later = _entries(ledger._reserved(reservation("req_0")), ledger._settled(settlement("req_0")))
    store.apply(first.then(later))
    store.add_key(_key("key_1"))
    names = [body.get("object") or body["id"] for body in _whole(store)]
    assert names == ["req_b", "req_a", "req_0", "key_1"]
    assert len(signed) == 4


def _found(store: SqlStore, limit: int = 100, **sought: Any) -> list[str]:
    found = store.audit_found("ten_a/dev", Sought(**sought), limit)
    return [body.get("object") or body["id"] for body in _bodies(found)]


def test_records_are_found_by_time_principal_model_and_kind(store: SqlStore) -> None:
    store.add_key(_key("key_x"))
    for number, key, model in ((3, "key_1", "m"), (1, "key_2", "m"), (2, "key_1", "n")):
        asked = reservation(f"req_{number}", key_id=key, alias=model)
        ended = settlement(f"req_{number}", settled_at_us=number * 10)
        store.apply(_entries(ledger._reserved(asked), ledger._settled(ended)))
    assert _found(store, until_us=100) == ["req_1", "req_2", "req_3"], "by time"
    assert _found(store, since_us=20, until_us=30) == ["req_2"]
    assert _found(store, principal="key_1") == ["req_2", "req_3"]
    assert _found(store, principal="key_1", model="m") == ["req_3"]
    assert _found(store, model="m", since_us=11) == ["req_3"]
    assert _found(store, kind="request", limit=2) == ["req_1", "req_2"]
    assert _found(store, kind="act") == ["key_x"]
    assert _found(store, principal="' OR 1=1 --") == []
    seen: list[str] = []
    place = None
    while page := store.audit_found("ten_a/dev", Sought(until_us=2**62), 1, place):
        (record,) = page
        seen.append(record.body.decode())
        place = place_of(record)
    assert len(seen) == len(set(seen)) == 4
    assert store.audit_found("ten_b/dev", Sought(kind="request"), 10) == []
