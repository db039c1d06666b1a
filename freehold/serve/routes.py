"""Where people let their aliases lead: one change at a time, whole or not at all.

A new adapter is with every replica before its route shows; the old one goes when the
last request under it has ended. What is bound to a route finishes as it began.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from freehold.catalog.adapters import Adapters, Verified
from freehold.catalog.arriving import Arrived
from freehold.catalog.parity import check_adapter
from freehold.catalog.signatures import Revoked
from freehold.config.schema import Name
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route
from freehold.core.clock import Clock
from freehold.core.engine import Capabilities
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.ids import new_id
from freehold.core.limit import Limit
from freehold.core.model import ModelCard
from freehold.core.promotion import Promotion, PromotionState
from freehold.core.tenant import OwnPool
from freehold.deploy.adapters import PoolAdapters
from freehold.deploy.pool import Pool
from freehold.deploy.pools import Pools
from freehold.engines import registry
from freehold.serve.directory import Directory
from freehold.serve.tenants import Tenants
from freehold.store.sql import SqlStore

Reference = Annotated[str, Field(min_length=1, max_length=128)]
Ticket = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Reason = Annotated[str, Field(min_length=3, max_length=500)]


class NewRoute(BaseModel):
    """Where an alias shall lead: a stored model by name or digest, bare or under one of
    the adapters of the caller's own tenant and environment. In staging and prod an adapter needs
    a gate that it passed, or a reason to `force` it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: Name
    base: Reference
    adapter: Reference | None = None
    force: Reason | None = None
    accept_licence: Reason | None = None
    tenant: Reference | None = None
    environment: Environment | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a base is served, and what its engine can."""

    engine: str
    pool: str
    capabilities: Capabilities

    def check_adapters(self, base: str) -> None:
        """Raises `UNSUPPORTED_PARAMETER`."""
        if not self.capabilities.adapters:
            raise UserError(
                Code.UNSUPPORTED_PARAMETER,
                f"The engine {self.engine} cannot answer under adapters: serve {base} with one "
                f"that can ({', '.join(registry.with_adapters())}), as `engines.default` says.",
                param="adapter",
            )


@dataclass(frozen=True, slots=True)
class Step:
    """What shall be let in, once it is known where its base is served."""

    promotion: Promotion
    base: ModelCard
    brought: Adapter | None  # which the environment does not have yet
    limits: tuple[Limit, ...] = ()
    came: Arrived | None = None  # from another installation: its adapter is taken in first
    decided: Gate | None = None  # there, and not known here yet

    def route(self, place: Place, at_us: int) -> Route:
        """Raises `UNSUPPORTED_PARAMETER` where its adapter cannot be served."""
        promotion = self.promotion
        if promotion.bundle.adapter is not None:
            place.check_adapters(self.base.name)
        route = led(
            (promotion.tenant_id, promotion.environment),
            promotion.alias,
            self.base.digest,
            promotion.bundle.adapter,
            place,
            at_us,
        )
        return replace(route, passed_by=promotion.evidence, promotion=promotion.id)


def resolve(
    wanted: NewRoute,
    owner: tuple[str, Environment],
    base: ModelCard,
    adapters: Adapters,
    place: Place,
    at_us: int,
) -> Route:
    """The route that is asked for. Raises `UserError`: `NOT_FOUND`, alike for another
    tenant's adapter, `INVALID_VALUE` for one of another base, `ADAPTER_MISMATCH`
    for one that was trained with another tokenizer or template, `UNSUPPORTED_PARAMETER` for an
    engine without adapters."""
    adapter = None
    if wanted.adapter:
        place.check_adapters(base.name)
        adapter = _adapter(wanted, owner, base, adapters)
    return led(
        owner, wanted.alias, base.digest, None if adapter is None else adapter.digest, place, at_us
    )


def led(
    owner: tuple[str, Environment],
    alias: str,
    base_digest: str,
    adapter_digest: str | None,
    place: Place,
    at_us: int,
) -> Route:
    return Route(
        id=new_id("rte"),
        tenant_id=owner[0],
        environment=owner[1],
        alias=alias,
        engine=place.engine,
        pool=place.pool,
        base_digest=base_digest,
        adapter_digest=adapter_digest,
        engine_model=base_digest,
        created_at_us=at_us,
    )


def _adapter(
    wanted: NewRoute, owner: tuple[str, Environment], base: ModelCard, adapters: Adapters
) -> Adapter:
    found = adapters.get(*owner, wanted.adapter or "", base.digest)
    if found.base_digest != base.digest:
        raise UserError(
            Code.INVALID_VALUE,
            f"{found.name} is an adapter of another base ({found.base_digest[:19]}) than "
            f"{base.name}: name that one as the base.",
            param="adapter",
        )
    check_adapter(found, base)
    adapters.signatures.check(found)
    return found


class Routes:
    """Blocking work goes to threads; `is_wanted` says whether a route names an adapter
    for a base: one of a tenant with engines of its own, or (None) of any that share."""

    def __init__(
        self,
        store: SqlStore,
        adapters: Adapters,
        directory: Directory,
        tenants: Tenants,
        pools: Mapping[str, Pool],
        fleet: Pools,
        cards: Mapping[str, ModelCard],
        is_wanted: Callable[[str, str, str | None], bool],
        clock: Clock,
    ) -> None:
        self._store = store
        self._adapters = adapters
        self._directory = directory
        self._tenants = tenants
        self._pools = pools
        self._fleet = fleet
        self._cards = cards
        self._is_wanted = is_wanted
        self._clock = clock
        # Held as well while tenants are led elsewhere (`access.py`).
        self.changing = asyncio.Lock()

    async def set(self, tenant_id: str, environment: Environment, wanted: NewRoute) -> Route:
        """Returns when new requests take the new way. Raises `UserError`; then they take
        the old one."""
        async with self.changing:
            base = await asyncio.to_thread(self._adapters.base, wanted.base)
            place, at_us = self._place(base), self._clock.wall_us()
            route = await asyncio.to_thread(
                resolve, wanted, (tenant_id, environment), base, self._adapters, place, at_us
            )
            async with self._ready_for(route) as with_engines:
                before = await asyncio.to_thread(self._store.set_route, tenant_id, route)
            await self._lead(route, with_engines, () if before is None else (before,))
            return route

    async def promote(self, step: Step) -> Promotion:
        """Lets it in as `set` moves an alias: its adapter is with every replica before."""
        promotion = step.promotion
        async with self.changing:
            route = step.route(self._place(step.base), self._clock.wall_us())
            async with self._taken_in(step.came), self._ready_for(route) as with_engines:
                moved = await asyncio.to_thread(
                    self._store.promote,
                    promotion.tenant_id,
                    promotion,
                    route,
                    step.brought,
                    step.limits,
                    step.decided,
                )
            await self._lead(moved.route or route, with_engines, moved.released)
            return moved.promotion

    async def share(self, promotion: Promotion, share: float) -> Promotion:
        """`share` of a promotion that has another one."""
        async with self.changing:
            moved = await asyncio.to_thread(
                self._store.share_promotion,
                promotion.tenant_id,
                promotion.id,
                share,
                self._clock.wall_us(),
            )
            if moved.route is not None:
                await self._lead(moved.route, True, moved.released)
            return moved.promotion

    async def roll_back(self, promotion: Promotion, because: str, by: str) -> Promotion:
        """Where the alias led before takes new requests again; what runs finishes as it began."""
        async with self.changing:
            back_to = None
            if promotion.state is PromotionState.WHOLE and promotion.before is not None:
                back_to = self._placed_again(promotion.before)
                await asyncio.to_thread(self._check_signed, back_to)
            async with self._ready_for(back_to) as with_engines:
                moved = await asyncio.to_thread(
                    self._store.roll_back,
                    promotion.tenant_id,
                    promotion,
                    back_to,
                    because,
                    by,
                    self._clock.wall_us(),
                )
            if moved.route is not None:
                await self._lead(moved.route, with_engines, moved.released)
                return moved.promotion
            await asyncio.to_thread(
                self._directory.load, promotion.tenant_id, promotion.environment
            )
            for each in moved.released:
                await self._release(each)
            return moved.promotion

    def _place(self, base: ModelCard) -> Place:
        pool = self._pools.get(base.name) if base.digest in self._cards else None
        if pool is None:
            raise UserError(
                Code.CONFLICT,
                f"{base.name} is not served now: start the gateway with `--model {base.name}`.",
                param="base",
            )
        return Place(pool.engine, pool.name, pool.capabilities)

    def _check_signed(self, route: Route) -> None:
        """The key that signed its adapter may have been revoked since it led there."""
        if route.adapter_digest is not None:
            owner = (route.tenant_id, route.environment)
            adapter = self._adapters.get(*owner, route.adapter_digest, route.base_digest or "")
            self._adapters.signatures.check(adapter)

    def _placed_again(self, route: Route) -> Route:
        """Where its base is served by this start; nowhere, if it is not."""
        card = self._cards.get(route.base_digest or "")
        pool = None if card is None else self._pools.get(card.name)
        if pool is None:
            return replace(route, pool="")
        return replace(route, engine=pool.engine, pool=pool.name)

    @contextlib.asynccontextmanager
    async def _taken_in(self, came: Arrived | None) -> AsyncIterator[None]:
        """Its adapter is stored within, as engines are told of what is; it goes again where it
        was not there before and is not let in."""
        if came is None:
            yield
            return
        adapters, adapter = self._adapters, came.adapter
        is_new = await asyncio.to_thread(adapters.keep, adapter, came.folder, came.signatures)
        try:
            yield
        except BaseException:
            if is_new:
                await asyncio.to_thread(adapters.take_back, adapter)
            raise

    @contextlib.asynccontextmanager
    async def _ready_for(self, route: Route | None) -> AsyncIterator[bool]:
        """Its adapter is with the replicas within, and is let go where the route does not come
        about. False where they are the tenant's own and not there yet: they start with what
        routes name."""
        if route is None:
            yield True
            return
        serving = self._pools.get(self._tenants.pool(route))
        if serving is not None and serving.adapters and route.adapter_digest is not None:
            await serving.adapters.want(route.adapter_digest)
            owner = (route.tenant_id, route.environment)
            serving.adapters.permit(owner, route.adapter_digest)
        try:
            yield serving is not None
        except BaseException:
            await self._release(route)
            raise

    async def _lead(self, route: Route, with_engines: bool, released: Collection[Route]) -> None:
        if not with_engines:
            await self._fleet.start_missing()
        self._directory.lead(route)
        for each in released:
            await self._release(each)

    async def remove(self, tenant_id: str, environment: Environment, alias: str) -> Route:
        async with self.changing:
            removed = await asyncio.to_thread(
                self._store.remove_route, tenant_id, environment, alias
            )
            left = await asyncio.to_thread(self._directory.load, tenant_id, environment)
            if removed is None:
                raise not_removed(alias, left.get(alias))
            await self._release(removed)
            return removed

    async def remove_adapter(
        self, tenant_id: str, environment: Environment, reference: str
    ) -> Adapter:
        """One change at a time with those of routes: what they are about to name stays."""
        async with self.changing:
            return await asyncio.to_thread(self._adapters.remove, tenant_id, environment, reference)

    async def sign_adapter(
        self, tenant_id: str, environment: Environment, reference: str
    ) -> Verified:
        """With the key of this installation; where only its signature kept it out, it serves."""
        adapters = self._adapters
        async with self.changing:
            adapter = await asyncio.to_thread(adapters.get, tenant_id, environment, reference)
            await asyncio.to_thread(adapters.sign, adapter)
            for pool in list(self._pools.values()):
                if pool.adapters is not None and pool.base_digest == adapter.base_digest:
                    await _let_in(pool.adapters, adapter)
            return await asyncio.to_thread(adapters.verified, adapter)

    async def revoke_key(self, reference: str, since_us: int) -> Revoked:
        """When it returns, no new request is answered under what counts no more."""
        async with self.changing:
            signatures = self._adapters.signatures
            revoked = await asyncio.to_thread(signatures.revoke, reference, since_us)
            await self._recheck()
            return revoked

    async def follow_signatures(self) -> None:
        """Another gateway revoked a key, or signed an adapter."""
        async with self.changing:
            await self._recheck()

    async def _recheck(self) -> None:
        for pool in list(self._pools.values()):
            if pool.adapters is not None:
                await pool.adapters.recheck()

    async def follow(self, homes: Collection[tuple[str, Environment]]) -> None:
        """Leads these tenants' environments as the store says now: another gateway changed
        their routes."""
        async with self.changing:
            await self._fleet.prepare()
            for tenant_id, environment in homes:
                await asyncio.to_thread(self._directory.load, tenant_id, environment)
            await self._fleet.settle()

    async def _release(self, route: Route) -> None:
        """The replicas of its base need its adapter no more, unless another route does."""
        digest, pool = route.adapter_digest, self._pools.get(self._tenants.pool(route))
        if pool is None or route.base_digest is None:
            return
        if pool.adapters is not None and digest is not None:
            tenant_id = pool.own.tenant_id if pool.own else None
            if not await asyncio.to_thread(self._is_wanted, route.base_digest, digest, tenant_id):
                pool.adapters.unwant(digest)
        if pool.own is not None and not self._leads_to(pool.own):
            await self._fleet.stop_surplus(pool.name)

    def _leads_to(self, own: OwnPool) -> bool:
        return any(
            own.name in (route.pool, route.candidate and route.candidate.route.pool)
            for environment in Environment
            for route in self._directory.routes(own.tenant_id, environment).values()
        )


async def _let_in(told: PoolAdapters, adapter: Adapter) -> None:
    told.permit((adapter.tenant_id, adapter.environment), adapter.digest)
    if adapter.digest in told.refused:
        with contextlib.suppress(UserError):  # there is another reason, which it keeps
            await told.want(adapter.digest)


def no_route(alias: str) -> UserError:
    return UserError(
        Code.NOT_FOUND, f"There is no route {alias[:80]!r}: see `freehold route list`."
    )


def not_removed(alias: str, managed: Route | None) -> UserError:
    if managed is None:
        return no_route(alias)
    return UserError(
        Code.CONFLICT,
        f"{alias} is there because its model is served: leave that out of `models` or `upstreams` "
        "in the settings instead.",
    )
