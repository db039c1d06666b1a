"""`/admin/v1/routes`: where the aliases of a tenant's environment lead."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from freehold.catalog.adapters import Adapters
from freehold.core.binding import Principal, Route
from freehold.core.clock import rfc3339
from freehold.core.model import ModelCard
from freehold.core.promotion import GATED
from freehold.serve.admin.paging import PageQuery
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import NewRoute, no_route
from freehold.serve.wire import Receive, Scope, Send, reply_json


class RoutesAdmin:
    """Acts inside one tenant and environment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(PageQuery, scope)
        place = self._owner(scope, principal, asked)
        mine = self._gateway.directory.routes(*place)
        aliases = sorted(alias for alias in mine if alias > asked.after)
        page = [mine[alias] for alias in aliases[: asked.limit]]
        data = await asyncio.to_thread(self._shown_routes, page)
        await reply_json(send, {"data": data, "has_more": len(aliases) > asked.limit})

    async def put(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        wanted = parsed(NewRoute, await body_of(self._gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, wanted)
        if place[1] in GATED:
            await self._let_in(place, wanted, principal.id)
            await self._reply(send, self._gateway.directory.routes(*place)[wanted.alias])
        else:
            await self._reply(send, await self._gateway.routes.set(*place, wanted))

    async def _let_in(self, place: Owner, wanted: NewRoute, by: str) -> None:
        gateway = self._gateway
        base = await asyncio.to_thread(gateway.adapters.base, wanted.base)
        step = await asyncio.to_thread(
            gateway.promoting.by_hand, place, wanted, base, by, gateway.clock.wall_us()
        )
        await gateway.routes.promote(step)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        alias = scope["path_params"]["alias"]
        found = self._gateway.directory.routes(*place).get(alias)
        if found is None:
            raise no_route(alias)
        await self._reply(send, found)

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        await self._reply(
            send, await self._gateway.routes.remove(*place, scope["path_params"]["alias"])
        )

    async def _reply(self, send: Send, route: Route) -> None:
        (shown,) = await asyncio.to_thread(self._shown_routes, [route])
        await reply_json(send, shown)

    def _shown_routes(self, routes: Sequence[Route]) -> list[dict[str, Any]]:
        gateway = self._gateway
        return [shown_route(route, gateway.adapters, gateway.cards) for route in routes]

    def _owner(self, scope: Scope, principal: Principal, asked: NewRoute | OwnQuery) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def shown_route(route: Route, adapters: Adapters, cards: Mapping[str, ModelCard]) -> dict[str, Any]:
    base = cards.get(route.base_digest or "")
    return {
        "id": route.id,
        "alias": route.alias,
        "environment": route.environment.value,
        "engine": route.engine,
        "base": base.name if base else None,
        "base_digest": route.base_digest,
        "adapter": adapters.name_of(route),
        "adapter_digest": route.adapter_digest,
        "managed": route.managed,
        "passed_by": route.passed_by,
        "promotion": route.promotion,
        "candidate": route.candidate
        and {
            "adapter": adapters.name_of(route.candidate.route),
            "adapter_digest": route.candidate.route.adapter_digest,
            "base_digest": route.candidate.route.base_digest,
            "share": route.candidate.share * 100,
            "promotion": route.candidate.route.promotion,
        },
        "created_at": rfc3339(route.created_at_us),
    }
