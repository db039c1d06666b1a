"""`/v1/models`: the aliases this key may use, and nothing about anybody else's."""

import asyncio
from typing import Any

from freehold.core.action import Action
from freehold.core.binding import Principal, Route
from freehold.serve.gateway import Gateway
from freehold.serve.policies import model_not_found
from freehold.serve.wire import Receive, Scope, Send, reply_json


class Models:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        found = await asyncio.to_thread(self._mine, scope, principal)
        models = [self._entry(route) for route in found.values()]
        await reply_json(send, {"object": "list", "data": models})

    async def one(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        alias = scope["path_params"]["alias"]
        route = (await asyncio.to_thread(self._mine, scope, principal)).get(alias)
        if route is None:
            raise model_not_found(alias)
        await reply_json(send, self._entry(route))

    def _mine(self, scope: Scope, principal: Principal) -> dict[str, Route]:
        """Those that a request of this principal, from here and now, would get an answer of."""
        routes = self._gateway.directory.routes(principal.tenant_id, principal.environment)
        decide, address = self._gateway.policies.decide, scope["freehold.address"]
        return {
            alias: route
            for alias, route in routes.items()
            if decide(principal, Action.INFER, route, address).is_allowed
        }

    def _entry(self, route: Route) -> dict[str, Any]:
        """OpenAI's model object, and what a careful client wants to know besides."""
        entry: dict[str, Any] = {
            "id": route.alias,
            "object": "model",
            "created": route.created_at_us // 1_000_000,
            "owned_by": "freehold" if route.engine != "remote" else route.pool,
        }
        pool = self._gateway.pools.get(route.pool)
        card = self._gateway.cards.get(route.base_digest or "")
        entry["freehold"] = {
            "engine": route.engine,
            "model_digest": route.base_digest,
            "adapter_digest": route.adapter_digest,
            "licence": card.licence.spdx if card else None,
            "quantization": card.quantization if card else None,
            "context_length": pool.capabilities.context_length if pool else None,
            "endpoints": sorted(pool.capabilities.endpoints) if pool else [],
        }
        return entry
