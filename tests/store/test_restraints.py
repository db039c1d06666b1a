"""What is chosen for keys that depart from their pattern, and what is done to them."""

import json

from freehold.core.binding import Environment, Scope
from freehold.core.departure import OnDeparture, Restraint
from freehold.store.sql import SqlStore
from tests.store.making import a_key

_DEV = Environment.DEV
_SUSPENDED, _STEPPED_DOWN = Restraint.SUSPENDED, Restraint.STEPPED_DOWN


def _state(store: SqlStore) -> tuple[Restraint | None, int | None]:
    key = store.key("ten_a", _DEV, "key_1")
    assert key is not None
    return key.restraint, key.restrained_at_us


def _acts(store: SqlStore) -> list[str]:
    return [json.loads(each.body)["act"] for each in store.audit_records("ten_a", "dev", 100)]


def test_what_is_chosen_stays_and_the_same_again_changes_nothing(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    store.add_key(a_key())
    for chosen in (OnDeparture.SUSPEND, OnDeparture.SUSPEND, OnDeparture.DEFAULT):
        key = store.choose_for_key("ten_a", _DEV, "key_1", chosen)
        tenant = store.choose_for_tenant("ten_a", chosen)
        assert key == store.key("ten_a", _DEV, "key_1")
        assert tenant == store.tenant("ten_a")
        assert key is not None
        assert tenant is not None
        assert (key.on_departure, tenant.on_departure) == (chosen, chosen)
    assert _acts(store) == ["key.create", "key.change", "key.change"]
    assert store.choose_for_key("ten_a", Environment.PROD, "key_1", OnDeparture.SUSPEND) is None
    assert store.choose_for_tenant("ten_z", OnDeparture.SUSPEND) is None


def test_a_key_is_suspended_once_and_comes_back_when_it_is_confirmed(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    store.add_key(a_key())
    before = store.access_number()
    assert store.restrain("ten_a", _DEV, "key_1", _STEPPED_DOWN, 5)
    assert store.standing("ten_a", ["key_1"]) == {"key_1"}
    assert store.restrain("ten_a", _DEV, "key_1", _SUSPENDED, 7)
    for again in Restraint:
        assert not store.restrain("ten_a", _DEV, "key_1", again, 9)
    assert _state(store) == (_SUSPENDED, 7)
    assert store.access_number() == before + 2, "others hear of it"
    assert store.standing("ten_a", ["key_1"]) == frozenset()
    assert store.suspended("ten_a", ["key_1", "key_2"]) == {"key_1"}

    for _ in range(2):
        found = store.confirmed("ten_a", _DEV, "key_1")
        assert found == store.key("ten_a", _DEV, "key_1") == a_key()
    assert store.access_number() == before + 3
    assert store.standing("ten_a", ["key_1"]) == {"key_1"}
    assert store.suspended("ten_a", ["key_1"]) == frozenset()
    assert _acts(store) == [
        "key.create", "key.step_down", "key.suspend", "key.confirm", "key.confirm",
    ]  # fmt: skip


def test_nothing_is_done_to_a_key_that_is_gone_revoked_or_elsewhere(store: SqlStore) -> None:
    store.add_key(a_key())
    assert not store.restrain("ten_a", Environment.PROD, "key_1", _SUSPENDED, 5)
    assert not store.restrain("ten_a", _DEV, "key_2", _SUSPENDED, 5)
    assert store.confirmed("ten_a", Environment.PROD, "key_1") is None
    assert store.confirmed("ten_a", _DEV, "key_2") is None
    store.revoke_key("ten_a", "key_1", 3)
    assert not store.restrain("ten_a", _DEV, "key_1", _SUSPENDED, 5)
    assert _state(store) == (None, None)
    assert _acts(store) == ["key.create", "key.revoke"]


def test_a_key_comes_back_with_what_was_chosen_and_done(store: SqlStore) -> None:
    made = a_key(
        scopes=frozenset(Scope), on_departure=OnDeparture.STEP_DOWN, restraint=_STEPPED_DOWN,
        restrained_at_us=2**40,
    )  # fmt: skip
    store.add_key(made)
    assert store.keys("ten_a") == [made]
