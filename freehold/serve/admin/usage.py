"""`/admin/v1/usage`: what a tenant's environment used, by key, model and day."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from freehold.core.binding import Environment, Principal
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.sql import SqlStore

_MAX_DAYS = 3660


class UsageQuery(OwnQuery):
    days: Annotated[int, Field(ge=1, le=_MAX_DAYS)] = 30
    key: Annotated[str, Field(max_length=64)] | None = None


class UsageAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(UsageQuery, scope)
        tenant_id, environment = owner(
            self._gateway, scope, principal, asked.tenant, asked.environment
        )
        until_us = self._gateway.clock.wall_us() + 1
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since = midnight - timedelta(days=asked.days - 1)
        await asyncio.to_thread(self._gateway.ledger.flush)
        rows = await asyncio.to_thread(
            self._gateway.store.usage,
            tenant_id,
            int(since.timestamp() * 1e6),
            until_us,
            asked.key,
            environment=environment,
        )
        thumbs = await asyncio.to_thread(
            shown_thumbs, self._gateway.store, tenant_id, environment, int(since.timestamp() * 1e6)
        )
        data = [dataclasses.asdict(row) for row in rows]
        await reply_json(send, {"data": data, "thumbs": thumbs})


def shown_thumbs(
    store: SqlStore, tenant_id: str, environment: Environment, since_us: int
) -> list[dict[str, Any]]:
    found = store.every_thumb(tenant_id, environment, since_us)
    return [
        {"alias": alias, "adapter_digest": digest, "up": up, "down": down}
        for (alias, digest), (up, down) in found.items()
    ]
