"""`/admin/v1/audit/content`: what was said, for tenants that have it kept."""

import asyncio
from typing import Any

import orjson

from freehold.core.binding import Environment, Principal
from freehold.core.errors import Code, UserError
from freehold.secure.subjects import Subjects
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.sql import SqlStore


class ContentAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, request_id = self._gateway, scope["path_params"]["request"]
        asked = query(OwnQuery, scope)
        place = owner(gateway, scope, principal, asked.tenant, asked.environment)
        await asyncio.to_thread(gateway.ledger.flush)
        found = await asyncio.to_thread(
            content_of, gateway.store, gateway.subjects, *place, request_id
        )
        await reply_json(send, found)

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, request_id = self._gateway, scope["path_params"]["request"]
        asked = query(OwnQuery, scope)
        place = owner(gateway, scope, principal, asked.tenant, asked.environment)
        await asyncio.to_thread(gateway.ledger.flush)
        if not await asyncio.to_thread(gateway.store.remove_content, *place, request_id):
            raise no_content(request_id)
        await reply_json(send, {"request": request_id, "removed": True})


def content_of(
    store: SqlStore, subjects: Subjects, tenant_id: str, environment: Environment, request_id: str
) -> dict[str, Any]:
    """Raises `UserError(NOT_FOUND)`, alike for what is not there and what is forgotten."""
    found = store.read_content(tenant_id, environment, request_id)
    text = subjects.read_content(*found, request_id) if found is not None else None
    if text is None:
        raise no_content(request_id)
    return {"request": request_id, **orjson.loads(text)}


def no_content(request_id: str) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"Nothing that was said is kept of {request_id[:64]!r}: see `freehold tenant set "
        "--audit-content`.",
    )
