"""Gates: the newest of a revision decides, wherever it was made."""

import json

from freehold.core.binding import Environment
from freehold.core.gate import Elsewhere, Verdict
from freehold.core.signature import Signer
from freehold.store.sql import SqlStore
from tests.store.making import a_gate

_REVISION = ("ten_a", "sha256:b", "sha256:a of ten_a")


def test_a_gate_comes_back_as_it_was_made(store: SqlStore) -> None:
    verdicts = (Verdict("exact", "≥ 0,9", "0.95", True), Verdict("canaries", "none", "1", False))
    made = a_gate("gat_1", passed=False, verdicts=verdicts, incumbent_digest="sha256:i")
    store.add_gate("ten_a", made)
    assert store.gate("ten_a", "gat_1") == made
    assert store.gate("ten_a", "gat_2") is None


def test_the_newest_gate_of_a_revision_decides_wherever_it_was_made(store: SqlStore) -> None:
    first = a_gate("gat_1", environment=Environment.STAGING)
    second = a_gate("gat_2", environment=Environment.DEV, passed=False)
    for each in (first, second, a_gate("gat_3", adapter_digest="sha256:other")):
        store.add_gate("ten_a", each)
    assert store.gates_of(*_REVISION) == [second, first]
    assert store.gates_of("ten_a", "sha256:another base", _REVISION[2]) == []


def test_the_gate_of_a_bare_base_is_none_of_its_adapters(store: SqlStore) -> None:
    bare = a_gate("gat_1", adapter_digest=None)
    store.add_gate("ten_a", bare)
    assert store.gates_of("ten_a", "sha256:b", None) == [bare]
    assert store.gates_of(*_REVISION) == []


def test_a_gate_from_elsewhere_has_the_place_of_when_it_was_decided(store: SqlStore) -> None:
    signer = Signer("ab" * 32, "dev.pem")
    there = Elsewhere(signer, signer, "gat_theirs", Environment.DEV, 9, {"requests": 3})
    late = a_gate("gat_2", elsewhere=there, made_at_us=3)
    ours = a_gate("gat_1", made_at_us=4, passed=False)
    for each in (ours, late):
        store.add_gate("ten_a", each)
    assert store.gates_of(*_REVISION) == [ours, late]
    assert store.gate("ten_a", "gat_2") == late
    (_, record) = store.audit_records("ten_a", "dev", 9)
    assert json.loads(record.body)["act"] == "gate.import"


def test_gates_are_listed_the_newest_first_and_by_adapter(store: SqlStore) -> None:
    made = [a_gate(f"gat_{number}") for number in range(3)]
    made.append(a_gate("gat_3", adapter_digest="sha256:other"))
    for each in made:
        store.add_gate("ten_a", each)
    assert store.gates("ten_a", 9) == made[::-1]
    assert store.gates("ten_a", 1, "gat_2") == [made[1]]
    assert store.gates("ten_a", 9, adapter_digest="sha256:other") == [made[3]]


def test_a_gate_leaves_its_record_and_goes_with_its_tenant(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    store.add_gate("ten_a", a_gate("gat_1"))
    (record,) = store.audit_records("ten_a", "dev", 9)
    told = json.loads(record.body)
    assert (told["act"], told["object"]) == ("gate.make", "gat_1")
    assert told["fields"] == ["base", "adapter", "suite", "passed"]
    assert store.remove_tenant("ten_a")
    assert store.gate("ten_a", "gat_1") is None
