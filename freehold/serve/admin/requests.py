"""`/admin/v1/requests`: single requests of a tenant's environment, as they are recorded."""

import asyncio
from typing import Annotated

from pydantic import Field

from freehold.core.binding import Principal
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send, reply_json


class RequestsQuery(OwnQuery):
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[str, Field(max_length=64)] | None = None


class RequestsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(RequestsQuery, scope)
        tenant_id, environment = owner(
            self._gateway, scope, principal, asked.tenant, asked.environment
        )
        await asyncio.to_thread(self._gateway.ledger.flush)
        rows = await asyncio.to_thread(
            self._gateway.store.records,
            tenant_id,
            asked.limit,
            asked.before,
            environment=environment,
        )
        await reply_json(send, {"data": rows})
