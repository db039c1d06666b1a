"""Routes in the store: those of people over those of the start."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from freehold.core.binding import Environment, Route
from freehold.core.errors import Code, UserError
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_route,
    adapter,
)


def test_routes_are_replaced_as_a_whole_in_their_environment_only(store: SqlStore) -> None:
    prod = [a_route("ten_a", "m", Environment.PROD)]
    store.put_routes("ten_a", Environment.PROD, prod)
    store.put_routes("ten_a", Environment.DEV, [a_route("ten_a", "m"), a_route("ten_a", "b")])
    assert [route.alias for route in store.routes("ten_a", Environment.DEV)] == ["b", "m"]
    store.put_routes("ten_a", Environment.DEV, [a_route("ten_a", "c")])
    assert store.routes("ten_a", Environment.DEV) == [a_route("ten_a", "c")]
    with pytest.raises(IntegrityError):
        store.put_routes(
            "ten_a", Environment.DEV,
            [a_route("ten_a", "d"), replace(a_route("ten_a", "d"), id="rte_other")],
        )  # fmt: skip
    assert store.routes("ten_a", Environment.DEV) == [a_route("ten_a", "c")]
    assert store.routes("ten_a", Environment.PROD) == prod
    assert store.routes("ten_a", Environment.STAGING) == []


def test_a_persons_route_hides_a_managed_one_until_it_is_removed(store: SqlStore) -> None:
    managed = [a_route("ten_a", "m"), a_route("ten_a", "n")]
    store.put_routes("ten_a", Environment.DEV, managed)
    mine = replace(a_route("ten_a", "m"), id="rte_1", engine_model="mine", managed=False)
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
    route = replace(a_route("ten_a", "m"), adapter_digest=adapter("ten_a", "x").digest)
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


def test_an_alias_is_as_old_as_it_first_was_wherever_it_leads(store: SqlStore) -> None:
    def since() -> dict[str, int]:
        found = store.routes("ten_a", Environment.DEV)
        return {route.alias: route.since_us for route in found}

    def at(alias: str, at_us: int) -> Route:
        return replace(a_route("ten_a", alias), id=f"rte_{alias}{at_us}", created_at_us=at_us)

    store.put_routes("ten_a", Environment.DEV, [at("m", 10), at("gone", 10)])
    store.put_routes("ten_a", Environment.DEV, [at("m", 20), at("n", 20)])
    assert since() == {"m": 10, "n": 20}
    store.set_route("ten_a", at("m", 30))
    store.set_route("ten_a", at("mine", 30))
    store.set_route("ten_a", at("mine", 40))
    store.put_routes("ten_a", Environment.DEV, [at("m", 50), at("gone", 50)])
    assert since() == {"m": 10, "mine": 30, "gone": 50}
