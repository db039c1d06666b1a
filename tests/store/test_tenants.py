"""Tenants in the store, what others must hear of, and facts of the installation."""

from collections.abc import Callable

import pytest

from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.core.tenant import IsolationClass, Tenant
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_key,
    used,
)


def test_a_tenant_is_found_by_its_name_which_is_given_once(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    assert store.tenant_named("a") == "ten_a"
    assert store.tenant_named("A") is None
    with pytest.raises(UserError) as refused:
        store.add_tenant("ten_b", "a", 1)
    assert refused.value.code is Code.CONFLICT
    assert store.tenants() == [Tenant("ten_a", "a", IsolationClass.SHARED, 1)]


def test_a_tenant_keeps_its_class_and_the_first_time_that_it_was_disabled(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1, IsolationClass.DEDICATED)
    changed = store.set_isolation("ten_a", IsolationClass.WEIGHTS)
    assert changed == store.tenant("ten_a") == Tenant("ten_a", "a", IsolationClass.WEIGHTS, 1)
    for at_us in (5, 9):
        disabled = store.disable_tenant("ten_a", at_us)
        assert disabled is not None
        assert (disabled.disabled_at_us, disabled.is_active) == (5, False)
    assert store.disable_tenant("ten_a", None) == changed
    assert store.set_isolation("ten_b", IsolationClass.SHARED) is None
    assert store.disable_tenant("ten_b", 1) is None


def test_whatever_others_must_hear_of_is_counted(store: SqlStore) -> None:
    """And what concerns nobody's access is not: a new key, a route, a request."""

    def counted(change: Callable[[], object]) -> int:
        before = store.access_number()
        change()
        return store.access_number() - before

    assert counted(lambda: store.add_tenant("ten_a", "a", 1)) == 1
    assert counted(lambda: store.set_isolation("ten_a", IsolationClass.DEDICATED)) == 1
    assert counted(lambda: store.disable_tenant("ten_a", 1)) == 1
    assert counted(lambda: store.add_key(a_key())) == 0
    assert counted(lambda: store.replace_key("ten_a", "key_1", a_key("k", hash=b"2"), 9, "")) == 1
    assert counted(lambda: store.revoke_key("ten_a", "key_1", 1)) == 1
    assert counted(lambda: store.put_routes("ten_a", Environment.DEV, [])) == 0
    assert counted(lambda: used(store, "req_1")) == 0
    assert counted(lambda: store.remove_tenant("ten_a")) == 1


def test_a_fact_is_replaced(store: SqlStore) -> None:
    assert store.fact("x") is None
    store.put_fact("x", "1")
    store.put_fact("x", "2")
    assert store.fact("x") == "2"
