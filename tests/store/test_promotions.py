"""Revisions that move, on both databases: all of a step or nothing of it."""

from dataclasses import replace

import pytest

from freehold.core.binding import Environment, Route
from freehold.core.errors import UserError
from freehold.core.promotion import Bundle, PromotionState, Watch
from freehold.core.signature import Signer
from freehold.store import fleet
from freehold.store.sql import SqlStore
from tests.store.making import a_limit, a_promotion, a_route, adapter

STAGING = Environment.STAGING


def _route(name: str, adapter_digest: str | None = None) -> Route:
    made = a_route("ten_a", "bot", STAGING)
    return replace(made, id=f"rte_{name}", managed=False, adapter_digest=adapter_digest)


def _whole(store: SqlStore, name: str, adapter_digest: str | None = None, **fields: object) -> None:
    made = a_promotion(
        f"pro_{name}", environment=STAGING, alias="bot", whole_at_us=9,
        bundle=Bundle("sha256:b", adapter_digest), **fields,
    )  # fmt: skip
    store.promote("ten_a", made, _route(name, adapter_digest))


def _shared(store: SqlStore, name: str, share: float = 0.2) -> None:
    made = a_promotion(
        f"pro_{name}", environment=STAGING, alias="bot", state=PromotionState.SHARING,
        share=share,
    )  # fmt: skip
    store.promote("ten_a", made, _route(name))


def _leads(store: SqlStore) -> tuple[str, str | None]:
    (route,) = store.routes("ten_a", STAGING)
    return route.id, route.candidate and route.candidate.route.id


def test_a_promotion_comes_back_as_it_was_made(store: SqlStore) -> None:
    made = a_promotion(
        "pro_1", environment=STAGING, source=Environment.DEV, adapter="v1", forced="the fair",
        overridden=("gate", "environment"), accepted="we asked", share=1.0,
        bundle=Bundle("sha256:b", None, "sha256:t", None, None, {"nights": "sha256:p"}, ("lim_x",)),
        watch=Watch(errors=None, judge="judge", least=5), figures={"new": {"requests": 3}},
        elsewhere=Signer("ab" * 32, "dev.pem"),
    )  # fmt: skip
    store.promote("ten_a", made, a_route("ten_a", "promoted", STAGING))
    assert store.promotion("ten_a", STAGING, "pro_1") == made
    assert store.promotion("ten_a", Environment.PROD, "pro_1") is None
    assert store.promotions("ten_a", STAGING, 9, alias="other") == []


def test_a_share_is_beside_the_route_until_it_is_whole_or_taken_back(store: SqlStore) -> None:
    _whole(store, "first")
    _shared(store, "second")
    assert _leads(store) == ("rte_first", "rte_second")
    last = store.last_promotion("ten_a", STAGING, "bot")
    assert last is not None
    assert (last.id, last.before and last.before.id) == ("pro_second", "rte_first")
    assert store.share_promotion("ten_a", "pro_second", 0.7, 5).promotion.share == 0.7
    moved = store.share_promotion("ten_a", "pro_second", 1.0, 6)
    assert [each.id for each in moved.released] == ["rte_first"]
    assert _leads(store) == ("rte_second", None)
    with pytest.raises(UserError, match="is whole already"):
        store.share_promotion("ten_a", "pro_second", 0.5, 7)
    _shared(store, "third")
    third = store.last_promotion("ten_a", STAGING, "bot")
    assert third is not None
    back = store.roll_back("ten_a", third, None, "worse", "per_1", 8)
    assert [each.id for each in back.released] == ["rte_third"]
    assert _leads(store) == ("rte_second", None)


def test_a_step_that_is_refused_leaves_nothing(store: SqlStore) -> None:
    brought = adapter("ten_a", "x", environment=STAGING)
    made = a_promotion("pro_1", environment=STAGING, alias="bot", state=PromotionState.SHARING)
    with pytest.raises(UserError, match="leads nowhere in staging yet"):
        store.promote("ten_a", made, _route("1", brought.digest), brought, [a_limit("ten_a")])
    assert store.routes("ten_a", STAGING) == []
    assert store.adapters("ten_a", STAGING, 9) == []
    assert store.limits("ten_a") == []
    assert store.promotions("ten_a", STAGING, 9) == []


def test_rolling_back_twice_the_same_is_refused_and_what_was_set_since_stays(
    store: SqlStore,
) -> None:
    _whole(store, "first")
    _whole(store, "second")
    second = store.last_promotion("ten_a", STAGING, "bot")
    assert second is not None
    store.roll_back("ten_a", second, second.before, "worse", "per_1", 8)
    assert _leads(store) == ("rte_first", None)
    with pytest.raises(UserError, match="has moved on since pro_second"):
        store.roll_back("ten_a", second, second.before, "worse", "per_1", 8)
    first = store.last_promotion("ten_a", STAGING, "bot")
    assert first is not None
    _whole(store, "third")
    with pytest.raises(UserError, match="has moved on since pro_first"):
        store.roll_back("ten_a", first, None, "worse", "per_1", 8)


def test_an_adapter_that_has_a_share_is_with_the_engines_and_stays(store: SqlStore) -> None:
    kept = adapter("ten_a", "x", environment=STAGING)
    store.add_adapters("ten_a", [kept])
    _whole(store, "first")
    made = a_promotion(
        "pro_2", environment=STAGING, alias="bot", state=PromotionState.SHARING, share=0.1
    )
    store.promote("ten_a", made, replace(_route("2", kept.digest), base_digest=kept.base_digest))
    assert fleet.wanted_adapters(store, kept.base_digest) == {kept.digest}
    assert fleet.is_wanted(store, kept.base_digest, kept.digest)
    with pytest.raises(UserError, match="these routes name: bot"):
        store.remove_adapter("ten_a", kept.id)
    (found,) = list(fleet.every_route(store))
    assert found.candidate is not None
    assert found.candidate.route.adapter_digest == kept.digest
    fleet.place_routes(store, {kept.base_digest: ("fake", "moved")})
    (found,) = store.routes("ten_a", STAGING)
    assert found.candidate is not None
    assert found.candidate.route.pool == "moved"


def test_what_is_watched_is_what_is_shared_or_new(store: SqlStore) -> None:
    _whole(store, "first", watch=Watch(seconds=10))
    until_us = 9 + 10_000_000
    assert [each.id for each in store.watched_promotions(until_us - 1)] == ["pro_first"]
    assert store.watched_promotions(until_us) == []
    _shared(store, "second")
    assert [each.id for each in store.watched_promotions(10**17)] == ["pro_second"]
