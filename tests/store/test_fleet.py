"""What concerns all tenants at once."""

from dataclasses import replace

import pytest

from freehold.core.binding import Environment
from freehold.core.ids import new_id
from freehold.core.tenant import IsolationClass
from freehold.core.usage import Outcome
from freehold.store import fleet
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_route,
    adapter,
    used,
)


def test_those_with_engines_of_their_own_are_apart_from_those_that_share(store: SqlStore) -> None:
    for tenant, isolation in (("ten_a", "shared"), ("ten_b", "dedicated"), ("ten_c", "weights")):
        store.add_tenant(tenant, tenant, 1, IsolationClass(isolation))
        store.add_adapters(tenant, [adapter(tenant)])
        named = adapter(tenant).digest
        store.set_route(tenant, replace(a_route(tenant, "x"), adapter_digest=named))
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


def test_the_fleet_sees_what_every_tenants_routes_name(store: SqlStore) -> None:
    for tenant in ("ten_a", "ten_b"):
        made = adapter(tenant, "x", base_digest="sha256:b")
        store.add_adapters(tenant, [made, adapter(tenant, "unnamed")])
        store.set_route(tenant, replace(a_route(tenant, "m"), adapter_digest=made.digest))
        store.set_route(tenant, replace(a_route(tenant, "n"), id=f"rte_n_{tenant}"))
    wanted = {adapter(tenant, "x").digest for tenant in ("ten_a", "ten_b")}
    assert fleet.wanted_adapters(store, "sha256:b") == wanted
    assert fleet.wanted_adapters(store, "sha256:other") == set()
    assert fleet.is_wanted(store, "sha256:b", adapter("ten_a", "x").digest)
    assert not fleet.is_wanted(store, "sha256:b", adapter("ten_a", "unnamed").digest)
    files = fleet.adapter_files(store, [*wanted, "sha256:none"])
    assert set(files) == wanted
    made = adapter("ten_a", "x")
    assert files[made.digest] == (made.config_digest, made.weights_digest)
    store.put_routes("ten_a", Environment.DEV, [replace(a_route("ten_a", "m"), id="rte_managed")])
    found = {(each.tenant_id, each.alias): each.id for each in fleet.every_route(store)}
    assert set(found) == {(tenant, alias) for tenant in ("ten_a", "ten_b") for alias in ("m", "n")}
    assert found["ten_a", "m"] == store.routes("ten_a", Environment.DEV)[0].id != "rte_managed"


def test_routes_that_people_set_follow_their_base_to_where_it_is_served(store: SqlStore) -> None:
    gone = replace(a_route("ten_a", "gone"), base_digest="sha256:gone", managed=False)
    store.put_routes("ten_a", Environment.DEV, [a_route("ten_a", "kept")])
    store.set_route("ten_a", replace(a_route("ten_a", "m"), managed=False))
    store.set_route("ten_a", gone)
    fleet.place_routes(store, {"sha256:b": ("new engine", "new pool")})
    found = {
        each.alias: (each.engine, each.pool) for each in store.routes("ten_a", Environment.DEV)
    }
    assert found == {
        "gone": ("fake", ""), "kept": ("fake", "pool ten_a"), "m": ("new engine", "new pool"),
    }  # fmt: skip


def test_what_all_tenants_used_is_counted_by_the_hour_and_for_some_aliases(
    store: SqlStore,
) -> None:
    for tenant in ("ten_a", "ten_b"):
        store.add_tenant(tenant, tenant, 1)
    hour_us = 3_600_000_000
    used(store, "req_1", "ten_a", created_at_us=hour_us + 1, alias="bot")
    used(store, "req_2", "ten_b", created_at_us=2 * hour_us - 1, alias="other")
    used(store, "req_3", "ten_b", created_at_us=3 * hour_us, alias="bot", tokens_out=40)
    used(store, "req_4", "ten_b", created_at_us=3 * hour_us, outcome=Outcome.CLIENT_GONE)
    used(store, "req_5", "ten_b", created_at_us=3 * hour_us, endpoint="embeddings")
    every = fleet.used(store, 0, 10**12)
    assert every.hours == [(1, 2, 6, 14, 2), (3, 1, 3, 40, 1)]
    assert sorted(every.sample) == [(3, 7, 10, 20), (3, 7, 10, 20), (3, 40, 10, 20)]
    bots = fleet.used(store, 0, 3 * hour_us, ["bot"])
    assert (bots.hours, bots.sample) == ([(1, 1, 3, 7, 1)], [(3, 7, 10, 20)])
    assert fleet.used(store, 0, 1) == ([], [])


def test_of_many_requests_some_are_chosen_by_chance(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_SAMPLE", 20)
    store.add_tenant("ten_a", "a", 1)
    for _ in range(200):
        used(store, new_id("req"), created_at_us=1)
    found = fleet.used(store, 0, 10)
    assert found.hours[0][1] == 200
    assert 2 <= len(found.sample) <= 60
