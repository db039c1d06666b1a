"""`/admin/v1/lineage`: where answers come from, of a tenant's environment."""

import asyncio
from typing import Annotated, Any

from pydantic import Field, model_validator

from freehold.catalog.bom import bom
from freehold.core.binding import Principal
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import Time, in_us, query
from freehold.serve.wire import Receive, Scope, Send, reply_json


class LineageQuery(OwnQuery):
    """Of an alias, now or at a time (UTC where it says no zone), or of one past request."""

    alias: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    at: Time | None = None
    request: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "LineageQuery":
        if self.request is None and self.alias is None:
            raise ValueError("name an alias or a request")
        if self.request is not None and self.at is not None:
            raise ValueError("a request has its time: leave `at` out")
        return self

    @property
    def at_us(self) -> int | None:
        return in_us(self.at)


class LineageAdmin:
    """Acts inside one tenant and environment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        await reply_json(send, await self._found(scope, principal))

    async def bom(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        await reply_json(send, bom(await self._found(scope, principal)))

    async def _found(self, scope: Scope, principal: Principal) -> dict[str, Any]:
        gateway, asked = self._gateway, query(LineageQuery, scope)
        place = owner(gateway, scope, principal, asked.tenant, asked.environment)
        lineages = gateway.lineages
        if asked.request is not None:
            await asyncio.to_thread(gateway.ledger.flush)
            return await asyncio.to_thread(lineages.of_request, place, asked.request, asked.alias)
        at_us = gateway.clock.wall_us() if asked.at_us is None else asked.at_us
        return await asyncio.to_thread(lineages.of_alias, place, asked.alias or "", at_us)
