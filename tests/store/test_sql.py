"""The store: each tenant sees its own, sums agree, and a database that cannot be used is
told in a sentence."""

import inspect
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from freehold.core.binding import Environment, Route, Scope
from freehold.core.errors import Code, UserError
from freehold.core.limit import Limit, Measure, Period, Window
from freehold.core.policy import Policy
from freehold.core.tenant import IsolationClass, Tenant
from freehold.core.usage import IdempotencyClaim, Outcome, UsageRow
from freehold.store import fleet, ledger, sqlite
from freehold.store.base import ClaimState, Entries, KeyRecord, Replacement
from freehold.store.sql import SqlStore
from tests.store.making import adapter, locked, reservation, settlement

_DAY_US = 86_400_000_000


def _key(key_id: str = "key_1", tenant: str = "ten_a", **fields: Any) -> KeyRecord:
    made = KeyRecord(
        key_id, tenant, Environment.DEV, f"name of {tenant}", f"hash {key_id}".encode(),
        frozenset({Scope.INFER}), None, 5, None, None,
    )  # fmt: skip
    return replace(made, **fields)


def _route(tenant: str, alias: str, environment: Environment = Environment.DEV) -> Route:
    return Route(
        f"rte_{tenant}_{alias}_{environment}", tenant, environment, alias, "fake", f"pool {tenant}",
        "sha256:b", None, "m", 1, managed=True,
    )  # fmt: skip


def _entries(*made: list[Any]) -> Entries:
    entries = Entries()
    for entry in made:
        entries.add(entry)
    return entries


def _used(store: SqlStore, request_id: str, tenant: str = "ten_a", **fields: Any) -> None:
    at_us = fields.pop("created_at_us", 1_000_000)
    asked = reservation(
        request_id, tenant_id=tenant, created_at_us=at_us,
        key_id=fields.pop("key_id", "key_1"), alias=fields.pop("alias", "m"),
        adapter_digest=fields.pop("adapter_digest", None),
    )  # fmt: skip
    ended = settlement(request_id, **fields)
    store.apply(_entries(ledger._reserved(asked), ledger._settled(ended)))


def _limit(tenant: str, **fields: Any) -> Limit:
    made = Limit(
        f"lim_{tenant}", tenant, None, None, Measure.TOKENS, Period.TOTAL, 9, False, 1, tenant
    )
    return replace(made, **fields)


# one tenant and another

_SCOPED: dict[str, Callable[[SqlStore, str], Any]] = {
    "keys": lambda store, tenant: store.keys(tenant),
    "revoke_key": lambda store, tenant: store.revoke_key(tenant, "key_ten_a", 7),
    "routes": lambda store, tenant: store.routes(tenant, Environment.DEV),
    "usage": lambda store, tenant: [
        store.usage(tenant, 0, 10**16), store.usage(tenant, 0, 10**16, "key_ten_a")
    ],
    "records": lambda store, tenant: [
        store.records(tenant, 1000), store.records(tenant, 1000, "req_z")
    ],
    "put_routes": lambda store, tenant: store.put_routes(tenant, Environment.DEV, []),
    "set_route": lambda store, tenant: store.set_route(
        tenant, replace(_route(tenant, "a person's"), id=f"rte_set by {tenant}")
    ),
    "remove_route": lambda store, tenant: store.remove_route(
        tenant, Environment.DEV, "a person's"
    ),
    "adapters": lambda store, tenant: store.adapters(tenant, Environment.DEV, 10),
    "adapters_called": lambda store, tenant: [
        store.adapters_called(tenant, Environment.DEV, name)
        for name in ("a ten_a", adapter("ten_a").digest)
    ],
    "add_adapters": lambda store, tenant: store.add_adapters(
        tenant, [adapter(tenant, f"added by {tenant}", id=f"adp_{uuid4()}")]
    ),
    "remove_adapter": lambda store, tenant: store.remove_adapter(tenant, "adp_ten_a"),
    "key": lambda store, tenant: store.key(tenant, Environment.DEV, "key_ten_a"),
    "replace_key": lambda store, tenant: store.replace_key(
        tenant, "key_ten_a", _key(f"key_{uuid4()}", tenant), 9, "token"
    ),
    "standing": lambda store, tenant: store.standing(tenant, ["key_ten_a"]),
    "audit_records": lambda store, tenant: store.audit_records(tenant, "dev", 10),
    "policies": lambda store, tenant: store.policies(tenant),
    "limits": lambda store, tenant: store.limits(tenant),
    "set_limit": lambda store, tenant: store.set_limit(tenant, _limit(tenant, amount=5)),
    "remove_limit": lambda store, tenant: store.remove_limit(tenant, Environment.DEV, "lim_ten_a"),
    "spent": lambda store, tenant: store.spent(tenant, _limit("ten_a"), Window(0, None)),
    "remove_policy": lambda store, tenant: store.remove_policy(tenant, "nights"),
    "tenant": lambda store, tenant: store.tenant(tenant),
    "holdings": lambda store, tenant: store.holdings(tenant, 1),
    "set_isolation": lambda store, tenant: store.set_isolation(tenant, IsolationClass.WEIGHTS),
    "disable_tenant": lambda store, tenant: store.disable_tenant(tenant, 7),
    "remove_tenant": lambda store, tenant: store.remove_tenant(tenant),
}  # fmt: skip
# These take no tenant: a hash proves who asks, a slot is a keyed hash of the tenant,
# entries and records carry their tenant, and the rest belongs to the installation, which
# `tenants` and `access_number` tell who operates it and its own processes.
_UNSCOPED = {
    "access_number", "add_key", "add_tenant", "apply", "audit_heads", "audit_trail",
    "billed_here", "claim", "close", "every_limit", "every_policy", "fact", "key_by_hash",
    "put_fact", "put_policy", "settle_orphans",
    "tenant_named", "tenants",
}  # fmt: skip


def _public() -> set[str]:
    found = inspect.getmembers(SqlStore, inspect.isfunction)
    return {name for name, _ in found if not name.startswith("_")}


def test_every_method_is_listed_with_or_without_a_tenant() -> None:
    assert set(_SCOPED) | _UNSCOPED == _public()
    for name in _SCOPED:
        first = list(inspect.signature(getattr(SqlStore, name)).parameters)[1]
        assert first == "tenant_id", name


def _furnish(store: SqlStore, tenant: str) -> None:
    store.add_tenant(tenant, f"house of {tenant}", 1)
    store.add_key(_key(f"key_{tenant}", tenant))
    store.put_routes(tenant, Environment.DEV, [_route(tenant, "m"), _route(tenant, "n")])
    store.set_route(tenant, _route(tenant, "a person's"))
    store.add_adapters(tenant, [adapter(tenant, f"a {tenant}", id=f"adp_{tenant}")])
    store.put_policy(Policy("nights", f"of {tenant}", tenant))
    store.set_limit(tenant, _limit(tenant))
    _used(store, f"req_{tenant}", tenant, key_id=f"key_{tenant}", alias=f"alias of {tenant}")


def _seen(store: SqlStore, tenant: str) -> str:
    reads = ("keys", "key", "routes", "adapters", "usage", "records", "tenant", "holdings",
             "standing", "policies", "audit_records", "limits", "spent")  # fmt: skip
    return repr([_SCOPED[name](store, tenant) for name in reads])


def test_nothing_of_another_tenant_is_seen_or_changed_by_any_method(store: SqlStore) -> None:
    for tenant in ("ten_a", "ten_b"):
        _furnish(store, tenant)
    mine = _seen(store, "ten_a")
    assert mine.count("ten_a") > 8
    for stranger in ("ten_b", "ten_c", "", "%", "ten_a' OR '1'='1", "TEN_A", "ten_a "):
        for name, call in _SCOPED.items():
            assert "ten_a" not in repr(call(store, stranger)).replace(stranger, ""), name
        assert _seen(store, "ten_a") == mine
    assert "ten_b" not in mine


# keys

_names = st.frozensets(st.text("abcXYZ019._/:-", min_size=1, max_size=9), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    environment=st.sampled_from(Environment), name=st.text(st.characters(codec="utf-8")),
    hashed=st.binary(min_size=1), scopes=st.frozensets(st.sampled_from(Scope)),
    models=st.none() | _names, times=st.tuples(*[st.none() | st.integers(0, 2**62)] * 2),
    networks=st.none() | _names, replaced_by=st.none() | st.just("key_2"),
)  # fmt: skip
def test_a_key_comes_back_as_it_went_in(
    store: SqlStore, environment: Environment, name: str, hashed: bytes,
    scopes: frozenset[Scope], models: frozenset[str] | None, times: tuple[int | None, int | None],
    networks: frozenset[str] | None, replaced_by: str | None,
) -> None:  # fmt: skip
    with store._writing() as connection:
        connection.exec_driver_sql("DELETE FROM api_keys")
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
    store.add_key(_key())
    for twice in (_key(hash=b"other"), _key("key_2", hash=_key().hash, tenant_id="ten_b")):
        with pytest.raises(UserError) as refused:
            store.add_key(twice)
        assert refused.value.code is Code.CONFLICT
    assert store.keys("ten_a") == [_key()]
    assert store.keys("ten_b") == []


def test_keys_are_listed_in_the_order_they_were_made(store: SqlStore) -> None:
    for at_us in (5, 1, 9):
        store.add_key(_key(f"key_{at_us}", created_at_us=at_us))
    assert [key.created_at_us for key in store.keys("ten_a")] == [1, 5, 9]


# tenants and facts


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


def test_a_key_is_replaced_once_and_ends_when_it_was_told_to_or_sooner(store: SqlStore) -> None:
    for key_id, ends in (("key_1", None), ("key_2", 50), ("key_3", 500)):
        store.add_key(_key(key_id, expires_at_us=ends))
        new = _key(f"{key_id}_new", hash=f"new {key_id}".encode())
        first = store.replace_key("ten_a", key_id, new, 100, "t")
        assert first == Replacement(True, "t", new)
        late = _key(f"{key_id}_late", hash=f"late {key_id}".encode())
        assert store.replace_key("ten_a", key_id, late, 70, "u") == Replacement(False, "t", new)
        old = store.key("ten_a", Environment.DEV, key_id)
        assert old is not None
        assert (old.expires_at_us, old.replaced_by) == (min(ends or 100, 100), new.id)
    assert len(store.keys("ten_a")) == 6


def test_two_rotations_at_once_make_one_key(store: SqlStore) -> None:
    store.add_key(_key())
    made = [_key(f"key_new_{number}", hash=b"%d" % number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda new: store.replace_key("ten_a", "key_1", new, 9, ""), made))
    assert [each.is_new for each in done if each].count(True) == 1
    assert len({each.by.id for each in done if each and each.by}) == 1
    assert len(store.keys("ten_a")) == 2


def test_a_revoked_key_is_not_replaced(store: SqlStore) -> None:
    store.add_key(_key())
    store.revoke_key("ten_a", "key_1", 5)
    assert store.replace_key("ten_a", "key_1", _key("key_2", hash=b"2"), 9, "") == Replacement(
        False, "", None
    )
    assert [key.id for key in store.keys("ten_a")] == ["key_1"]


def test_whatever_others_must_hear_of_is_counted(store: SqlStore) -> None:
    """And what concerns nobody's access is not: a new key, a route, a request."""

    def counted(change: Callable[[], object]) -> int:
        before = store.access_number()
        change()
        return store.access_number() - before

    assert counted(lambda: store.add_tenant("ten_a", "a", 1)) == 1
    assert counted(lambda: store.set_isolation("ten_a", IsolationClass.DEDICATED)) == 1
    assert counted(lambda: store.disable_tenant("ten_a", 1)) == 1
    assert counted(lambda: store.add_key(_key())) == 0
    assert counted(lambda: store.replace_key("ten_a", "key_1", _key("k", hash=b"2"), 9, "")) == 1
    assert counted(lambda: store.revoke_key("ten_a", "key_1", 1)) == 1
    assert counted(lambda: store.put_routes("ten_a", Environment.DEV, [])) == 0
    assert counted(lambda: _used(store, "req_1")) == 0
    assert counted(lambda: store.remove_tenant("ten_a")) == 1


def test_keys_stand_until_they_are_revoked_or_their_tenant_is_disabled(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    for key_id in ("key_1", "key_2"):
        store.add_key(_key(key_id))
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


def test_what_a_tenant_has_is_told_and_gone_with_it(store: SqlStore) -> None:
    for tenant in ("ten_a", "ten_b"):
        _furnish(store, tenant)
    store.add_key(_key("key_old", expires_at_us=9, hash=b"old"))
    store.add_key(_key("key_revoked", revoked_at_us=9, hash=b"revoked"))
    held = [(each.kind, each.name, each.environment) for each in store.holdings("ten_a", 10)]
    assert held == [
        ("route", "a person's", "dev"), ("adapter", "a ten_a", "dev"),
        ("key", "name of ten_a", "dev"), ("policy", "nights", "all"),
    ]  # fmt: skip
    other = _seen(store, "ten_b")
    assert store.remove_tenant("ten_a")
    assert not store.remove_tenant("ten_a")
    assert [*store.holdings("ten_a", 1), *store.keys("ten_a")] == []
    assert store.routes("ten_a", Environment.DEV) == []
    assert len(store.records("ten_a", 10)) == 1, "what it used stays"
    assert _seen(store, "ten_b") == other


def test_those_with_engines_of_their_own_are_apart_from_those_that_share(store: SqlStore) -> None:
    for tenant, isolation in (("ten_a", "shared"), ("ten_b", "dedicated"), ("ten_c", "weights")):
        store.add_tenant(tenant, tenant, 1, IsolationClass(isolation))
        store.add_adapters(tenant, [adapter(tenant)])
        named = adapter(tenant).digest
        store.set_route(tenant, replace(_route(tenant, "x"), adapter_digest=named))
    shared = {adapter("ten_a").digest}
    assert fleet.wanted_adapters(store, "sha256:b") == shared
    assert fleet.wanted_adapters(store, "sha256:b", "ten_b") == {adapter("ten_b").digest}
    assert not fleet.is_wanted(store, "sha256:b", adapter("ten_b").digest)
    assert fleet.is_wanted(store, "sha256:b", adapter("ten_b").digest, "ten_b")

    def apart(*environments: Environment) -> set[tuple[str, str]]:
        found = fleet.bases_apart(store, environments)
        return {(tenant.id, base) for tenant, base in found}

    both = {("ten_b", "sha256:b"), ("ten_c", "sha256:b")}
    assert apart(*Environment) == apart(Environment.DEV) == both
    assert apart(Environment.PROD) == set()
    store.disable_tenant("ten_b", 5)
    assert apart(*Environment) == both - {("ten_b", "sha256:b")}


def test_a_fact_is_replaced(store: SqlStore) -> None:
    assert store.fact("x") is None
    store.put_fact("x", "1")
    store.put_fact("x", "2")
    assert store.fact("x") == "2"


# routes


def test_routes_are_replaced_as_a_whole_in_their_environment_only(store: SqlStore) -> None:
    prod = [_route("ten_a", "m", Environment.PROD)]
    store.put_routes("ten_a", Environment.PROD, prod)
    store.put_routes("ten_a", Environment.DEV, [_route("ten_a", "m"), _route("ten_a", "b")])
    assert [route.alias for route in store.routes("ten_a", Environment.DEV)] == ["b", "m"]
    store.put_routes("ten_a", Environment.DEV, [_route("ten_a", "c")])
    assert store.routes("ten_a", Environment.DEV) == [_route("ten_a", "c")]
    with pytest.raises(IntegrityError):
        store.put_routes(
            "ten_a", Environment.DEV,
            [_route("ten_a", "d"), replace(_route("ten_a", "d"), id="rte_other")],
        )  # fmt: skip
    assert store.routes("ten_a", Environment.DEV) == [_route("ten_a", "c")]
    assert store.routes("ten_a", Environment.PROD) == prod
    assert store.routes("ten_a", Environment.STAGING) == []


def test_a_persons_route_hides_a_managed_one_until_it_is_removed(store: SqlStore) -> None:
    managed = [_route("ten_a", "m"), _route("ten_a", "n")]
    store.put_routes("ten_a", Environment.DEV, managed)
    mine = replace(_route("ten_a", "m"), id="rte_1", engine_model="mine", managed=False)
    assert store.set_route("ten_a", mine) is None
    store.put_routes("ten_a", Environment.DEV, managed)
    assert store.routes("ten_a", Environment.DEV) == [mine, managed[1]]

    moved = replace(mine, id="rte_2", engine_model="moved")
    assert store.set_route("ten_a", moved) == mine
    assert store.routes("ten_a", Environment.DEV) == [moved, managed[1]]
    store.put_routes("ten_a", Environment.DEV, [])
    assert store.routes("ten_a", Environment.DEV) == [moved]
    store.put_routes("ten_a", Environment.DEV, managed)

    assert store.remove_route("ten_a", Environment.DEV, "m") == moved
    assert store.remove_route("ten_a", Environment.DEV, "m") is None
    assert store.remove_route("ten_a", Environment.DEV, "n") is None, "it is managed"
    assert store.routes("ten_a", Environment.DEV) == managed


def test_a_route_leads_to_an_adapter_of_its_own_tenant_environment_and_base_only(
    store: SqlStore,
) -> None:
    store.add_adapters("ten_a", [adapter("ten_a", "x")])
    route = replace(_route("ten_a", "m"), adapter_digest=adapter("ten_a", "x").digest)
    for wrong in (
        replace(route, base_digest="sha256:other"), replace(route, adapter_digest="sha256:none"),
        replace(route, environment=Environment.PROD),
    ):  # fmt: skip
        with pytest.raises(UserError) as refused:
            store.set_route("ten_a", wrong)
        assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(UserError):
        store.set_route("ten_b", replace(route, tenant_id="ten_b"))
    assert store.routes("ten_a", Environment.DEV) == []
    store.set_route("ten_a", route)
    assert store.routes("ten_a", Environment.DEV) == [replace(route, managed=False)]


# adapters


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
        route = replace(_route("ten_a", alias), adapter_digest=kept.digest, managed=False)
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


# what concerns all tenants


def test_the_fleet_sees_what_every_tenants_routes_name(store: SqlStore) -> None:
    for tenant in ("ten_a", "ten_b"):
        made = adapter(tenant, "x", base_digest="sha256:b")
        store.add_adapters(tenant, [made, adapter(tenant, "unnamed")])
        store.set_route(tenant, replace(_route(tenant, "m"), adapter_digest=made.digest))
        store.set_route(tenant, replace(_route(tenant, "n"), id=f"rte_n_{tenant}"))
    wanted = {adapter(tenant, "x").digest for tenant in ("ten_a", "ten_b")}
    assert fleet.wanted_adapters(store, "sha256:b") == wanted
    assert fleet.wanted_adapters(store, "sha256:other") == set()
    assert fleet.is_wanted(store, "sha256:b", adapter("ten_a", "x").digest)
    assert not fleet.is_wanted(store, "sha256:b", adapter("ten_a", "unnamed").digest)
    files = fleet.adapter_files(store, [*wanted, "sha256:none"])
    assert set(files) == wanted
    made = adapter("ten_a", "x")
    assert files[made.digest] == (made.config_digest, made.weights_digest)
    assert sorted(fleet.homes_of_routes(store)) == [("ten_a", "dev"), ("ten_b", "dev")]


def test_routes_that_people_set_follow_their_base_to_where_it_is_served(store: SqlStore) -> None:
    gone = replace(_route("ten_a", "gone"), base_digest="sha256:gone", managed=False)
    store.put_routes("ten_a", Environment.DEV, [_route("ten_a", "kept")])
    store.set_route("ten_a", replace(_route("ten_a", "m"), managed=False))
    store.set_route("ten_a", gone)
    fleet.place_routes(store, {"sha256:b": ("new engine", "new pool")})
    found = {
        each.alias: (each.engine, each.pool) for each in store.routes("ten_a", Environment.DEV)
    }
    assert found == {
        "gone": ("fake", ""), "kept": ("fake", "pool ten_a"), "m": ("new engine", "new pool"),
    }  # fmt: skip


# usage


def test_usage_is_the_plain_sum_over_key_model_and_day(store: SqlStore) -> None:
    chance = random.Random(3)
    expected: dict[tuple[str, str, str, str | None], Counter[str]] = {}
    since_us, until_us = 10 * _DAY_US, 13 * _DAY_US
    for number in range(300):
        at_us = chance.choice(
            [chance.randrange(9 * _DAY_US, 14 * _DAY_US), since_us, since_us - 1, until_us,
             until_us - 1, 11 * _DAY_US, 11 * _DAY_US - 1]
        )  # fmt: skip
        key, alias = chance.choice(["key_1", "key_2"]), chance.choice(["m", "n"])
        under = None if alias == "m" else chance.choice(["sha256:a", "sha256:b"])
        outcome, tokens = chance.choice(list(Outcome)), chance.randrange(1000)
        if chance.random() < 0.2:  # still open
            asked = reservation(f"req_{number}", key_id=key, alias=alias, created_at_us=at_us)
            store.apply(_entries(ledger._reserved(asked), ["m", f"req_{number}", 9, 9]))
            continue
        _used(
            store, f"req_{number}", created_at_us=at_us, key_id=key, alias=alias,
            adapter_digest=under, outcome=outcome, tokens_out=tokens,
        )  # fmt: skip
        if since_us <= at_us < until_us:
            day = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d")
            group = expected.setdefault((day, key, alias, under), Counter())
            group.update(
                requests=1, failed=outcome is not Outcome.OK, tokens_in=3, tokens_out=tokens,
                tokens_cached=1,
            )  # fmt: skip
    rows = [
        UsageRow(
            key, alias, under, day, sums["requests"], sums["failed"], sums["tokens_in"],
            sums["tokens_out"], sums["tokens_cached"], 0, sums["requests"],
        )
        for (day, key, alias, under), sums in sorted(expected.items(), key=str)
    ]  # fmt: skip
    assert len(rows) == 18
    assert store.usage("ten_a", since_us, until_us) == rows
    one = [row for row in rows if row.key_id == "key_2"]
    assert store.usage("ten_a", since_us, until_us, "key_2") == one
    assert store.usage("ten_a", since_us, until_us, "key_none") == []


def test_requests_are_listed_newest_first_page_by_page(store: SqlStore) -> None:
    for number in range(7):
        _used(store, f"req_{number}")
    pages, before = [], None
    while page := store.records("ten_a", 3, before):
        pages.append([row["id"] for row in page])
        before = page[-1]["id"]
    assert pages == [["req_6", "req_5", "req_4"], ["req_3", "req_2", "req_1"], ["req_0"]]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE requests; --", '"\\', "\u00e9\u4e2d\U0001f600", "", "\n\t", "$.x[0]"]
)
def test_any_text_is_kept_as_it_is(store: SqlStore, text: str) -> None:
    asked = reservation("req_1", alias=text, conversation_id=text, created_at_us=2**53 + 1)
    store.apply(_entries(ledger._reserved(asked)))
    (row,) = store.records("ten_a", 10)
    assert (row["alias"], row["conversation_id"], row["created_at_us"]) == (text, text, 2**53 + 1)


# the ledger's entries


def test_entries_that_are_there_change_nothing(store: SqlStore) -> None:
    entries = _entries(
        ledger._reserved(reservation("req_1")), ["m", "req_1", 1, 1],
        ledger._settled(settlement("req_1")),
    )  # fmt: skip
    store.apply(entries)
    before = store.records("ten_a", 10)
    store.apply(entries)
    store.apply(_entries(ledger._reserved(reservation("req_1", alias="other"))))
    store.apply(_entries(["m", "req_1", 99, 99]))
    store.apply(_entries(ledger._settled(settlement("req_1", 99))))
    store.apply(_entries(ledger._settled(settlement("req_unknown"))))
    assert store.records("ten_a", 10) == before


def test_a_batch_is_applied_whole_or_not_at_all(store: SqlStore) -> None:
    broken = ["s", "req_1"]  # without the counts that a settlement must have
    with pytest.raises(IntegrityError):
        store.apply(_entries(ledger._reserved(reservation("req_1")), broken))
    assert store.records("ten_a", 10) == []


def test_orphans_are_settled_once_with_their_last_mark(store: SqlStore) -> None:
    _used(store, "req_done")
    both = [ledger._reserved(reservation(name)) for name in ("req_a", "req_b")]
    store.apply(_entries(*both, ["m", "req_b", 2, 1], ["m", "req_b", 2, 5]))
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
    store.apply(_entries(["c", "slot", "req_1", "body", 10]))
    store.apply(_entries(["d", "slot", "req_1", None, None, None]))
    assert store.claim(asked, 1) is None
    store.apply(_entries(["c", "slot", "req_2", "body", 10]))
    for older in (["d", "slot", "req_1", None, None, None], ["d", "slot", "req_1", 200, "x", ""]):
        store.apply(_entries(older))
        assert store.claim(asked, 1) == ClaimState(running=True)


# a database that cannot be used


def _unusable(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as refused:
        call()
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert "\n" not in refused.value.message
    return refused.value


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_told_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "freehold.db"
    path.write_bytes(content)
    assert str(path) in _unusable(lambda: SqlStore(path)).message
    assert path.read_bytes() == content


def test_a_path_that_cannot_be_a_file_is_told(tmp_path: Path) -> None:
    _unusable(lambda: SqlStore(tmp_path))
    _unusable(lambda: SqlStore(tmp_path / "none" / "freehold.db"))


def test_a_locked_database_refuses_writes_with_a_hint_and_goes_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 10)
    store = SqlStore(tmp_path / "freehold.db")
    store.add_key(_key())
    with locked(tmp_path / "freehold.db"):
        assert _unusable(lambda: store.add_key(_key("key_2"))).retry_after_s
        _unusable(lambda: store.apply(_entries(ledger._reserved(reservation("req_1")))))
        _unusable(lambda: store.settle_orphans(1))
        assert store.keys("ten_a") == [_key()]
        assert store.key_by_hash(_key().hash) == _key()
        _unusable(lambda: SqlStore(tmp_path / "freehold.db"))
    store.add_key(_key("key_2"))
    store.close()


def _damage(path: Path) -> None:
    """All pages but the first, where the tables are listed."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def test_a_damaged_database_is_told_at_the_start(tmp_path: Path) -> None:
    SqlStore(tmp_path / "freehold.db").close()
    _damage(tmp_path / "freehold.db")
    _unusable(lambda: SqlStore(tmp_path / "freehold.db"))


def test_a_database_that_breaks_while_it_is_open_is_told(tmp_path: Path) -> None:
    SqlStore(tmp_path / "freehold.db").close()
    store = SqlStore(tmp_path / "freehold.db")
    _damage(tmp_path / "freehold.db")
    _unusable(lambda: store.apply(_entries(ledger._reserved(reservation("req_1")))))
    _unusable(lambda: store.add_key(_key()))
    _unusable(lambda: store.keys("ten_a"))
    _unusable(lambda: store.records("ten_a", 10))
    store.close()


def test_many_threads_use_one_store(store: SqlStore) -> None:
    failed: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for turn in range(15):
                store.add_key(_key(f"key_{number}_{turn}", f"ten_{number}"))
                assert len(store.keys(f"ten_{number}")) == turn + 1
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
