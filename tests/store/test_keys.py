"""Keys in the store: as they went in, once, replaced once, and standing until revoked."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError
from freehold.store.base import KeyRecord, Replacement
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_key,
)

_names = st.frozensets(st.text("abcXYZ019._/:-", min_size=1, max_size=9), max_size=5)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    environment=st.sampled_from(Environment),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    hashed=st.binary(min_size=1), scopes=st.frozensets(st.sampled_from(Scope)),
    models=st.none() | _names, times=st.tuples(*[st.none() | st.integers(0, 2**62)] * 2),
    networks=st.none() | _names, replaced_by=st.none() | st.just("key_2"),
)  # fmt: skip
def test_a_key_comes_back_as_it_went_in(
    store: SqlStore, environment: Environment, name: str, hashed: bytes,
    scopes: frozenset[Scope], models: frozenset[str] | None, times: tuple[int | None, int | None],
    networks: frozenset[str] | None, replaced_by: str | None,
) -> None:  # fmt: skip
    store.remove_tenant("ten_a")
    record = KeyRecord(
        "key_1", "ten_a", environment, name, hashed, scopes, models, 5, *times, networks,
        replaced_by,
    )  # fmt: skip
    store.add_key(record)
    assert store.keys("ten_a") == [record]
    assert store.keys("ten_a", environment=environment) == [record]
    assert store.key("ten_a", environment, "key_1") == record
    for other in set(Environment) - {environment}:
        assert store.keys("ten_a", environment=other) == []
        assert store.key("ten_a", other, "key_1") is None
        assert store.revoke_key("ten_a", "key_1", 7, environment=other) is None
    assert store.key_by_hash(hashed) == record
    assert store.key_by_hash(hashed + b"x") is None


def test_a_key_that_is_there_already_is_a_conflict_that_changes_nothing(store: SqlStore) -> None:
    store.add_key(a_key())
    for twice in (a_key(hash=b"other"), a_key("key_2", hash=a_key().hash, tenant_id="ten_b")):
        with pytest.raises(UserError) as refused:
            store.add_key(twice)
        assert refused.value.code is Code.CONFLICT
    assert store.keys("ten_a") == [a_key()]
    assert store.keys("ten_b") == []


def test_keys_are_listed_in_the_order_they_were_made(store: SqlStore) -> None:
    for at_us in (5, 1, 9):
        store.add_key(a_key(f"key_{at_us}", created_at_us=at_us))
    assert [key.created_at_us for key in store.keys("ten_a")] == [1, 5, 9]


def test_a_key_is_replaced_once_and_ends_when_it_was_told_to_or_sooner(store: SqlStore) -> None:
    for key_id, ends in (("key_1", None), ("key_2", 50), ("key_3", 500)):
        store.add_key(a_key(key_id, expires_at_us=ends))
        new = a_key(f"{key_id}_new", hash=f"new {key_id}".encode())
        first = store.replace_key("ten_a", key_id, new, 100, "t")
        assert first == Replacement(True, "t", new)
        late = a_key(f"{key_id}_late", hash=f"late {key_id}".encode())
        assert store.replace_key("ten_a", key_id, late, 70, "u") == Replacement(False, "t", new)
        old = store.key("ten_a", Environment.DEV, key_id)
        assert old is not None
        assert (old.expires_at_us, old.replaced_by) == (min(ends or 100, 100), new.id)
    assert len(store.keys("ten_a")) == 6


def test_two_rotations_at_once_make_one_key(store: SqlStore) -> None:
    store.add_key(a_key())
    made = [a_key(f"key_new_{number}", hash=b"%d" % number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda new: store.replace_key("ten_a", "key_1", new, 9, ""), made))
    assert [each.is_new for each in done if each].count(True) == 1
    assert len({each.by.id for each in done if each and each.by}) == 1
    assert len(store.keys("ten_a")) == 2


def test_a_revoked_key_is_not_replaced(store: SqlStore) -> None:
    store.add_key(a_key())
    store.revoke_key("ten_a", "key_1", 5)
    assert store.replace_key("ten_a", "key_1", a_key("key_2", hash=b"2"), 9, "") == Replacement(
        False, "", None
    )
    assert [key.id for key in store.keys("ten_a")] == ["key_1"]


def test_keys_stand_until_they_are_revoked_or_their_tenant_is_disabled(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    for key_id in ("key_1", "key_2"):
        store.add_key(a_key(key_id))
    both = frozenset({"key_1", "key_2"})
    assert store.standing("ten_a", [*both, "key_3"]) == both
    store.revoke_key("ten_a", "key_1", 5)
    assert store.standing("ten_a", both) == {"key_2"}
    store.disable_tenant("ten_a", 5)
    assert store.standing("ten_a", both) == frozenset()
    store.disable_tenant("ten_a", None)
    assert store.standing("ten_a", both) == {"key_2"}
    store.remove_tenant("ten_a")
    assert store.standing("ten_a", both) == frozenset()
