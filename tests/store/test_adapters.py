"""Adapters in the store: named once, and kept while anything needs them."""

from dataclasses import replace

import pytest

from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_route,
    adapter,
)


def test_an_adapter_comes_back_as_it_went_in(store: SqlStore) -> None:
    made = [adapter("ten_a", name) for name in ("c", "a", "b")]
    store.add_adapters("ten_a", made)
    assert store.adapters("ten_a", Environment.DEV, 10) == sorted(made, key=lambda each: each.name)
    assert [each.name for each in store.adapters("ten_a", Environment.DEV, 1, "a")] == ["b"]
    assert store.adapters("ten_a", Environment.DEV, 10, "c") == []
    assert store.adapters("ten_a", Environment.PROD, 10) == []
    for reference in ("b", made[2].digest):
        assert store.adapters_called("ten_a", Environment.DEV, reference) == [made[2]]


def test_a_name_is_given_once_in_an_environment_and_all_are_added_or_none(
    store: SqlStore,
) -> None:
    store.add_adapters("ten_a", [adapter("ten_a", "x")])
    for twice in (adapter("ten_a", "x", digest="sha256:o"), adapter("ten_a", "x", name="y")):
        with pytest.raises(UserError) as refused:
            store.add_adapters("ten_a", [adapter("ten_a", "z"), replace(twice, id="adp_2")])
        assert refused.value.code is Code.CONFLICT
    assert [each.name for each in store.adapters("ten_a", Environment.DEV, 10)] == ["x"]
    elsewhere = replace(adapter("ten_a", "x"), id="adp_3", environment=Environment.PROD)
    another_base = replace(adapter("ten_a", "x"), id="adp_4", name="y", base_digest="sha256:b2")
    store.add_adapters("ten_a", [elsewhere, another_base])
    store.add_adapters("ten_b", [replace(adapter("ten_b", "x"), digest="sha256:x")])


def test_what_a_route_names_is_not_removed_and_the_refusal_names_it(store: SqlStore) -> None:
    kept = adapter("ten_a", "x")
    store.add_adapters("ten_a", [kept])
    for alias in "gfedcba":
        route = replace(a_route("ten_a", alias), adapter_digest=kept.digest, managed=False)
        store.set_route("ten_a", route)
    with pytest.raises(UserError, match="these routes name: a, b, c, d, e …") as refused:
        store.remove_adapter("ten_a", kept.id)
    assert refused.value.code is Code.CONFLICT
    for alias in "abcdefg":
        store.remove_route("ten_a", Environment.DEV, alias)
    assert store.remove_adapter("ten_a", kept.id) == {kept.config_digest, kept.weights_digest}
    assert store.remove_adapter("ten_a", kept.id) is None


def test_files_that_another_adapter_needs_are_not_given_up(store: SqlStore) -> None:
    first, second = adapter("ten_a", "x"), adapter("ten_b", "x")
    second = replace(second, config_digest=first.config_digest)
    third = replace(first, id="adp_3", name="y", base_digest="sha256:b2")
    store.add_adapters("ten_a", [first, third])
    store.add_adapters("ten_b", [second])
    assert store.remove_adapter("ten_a", first.id) == frozenset()
    assert store.remove_adapter("ten_a", third.id) == {first.weights_digest}
    assert store.remove_adapter("ten_b", second.id) == {
        second.config_digest, second.weights_digest
    }  # fmt: skip
