"""`/admin/v1/subjects`: whom personal fields of audit records are about, to be forgotten."""

import asyncio
from typing import Any

from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.subject import Remembered
from freehold.secure.keys import Keyring
from freehold.serve.gateway import Gateway
from freehold.serve.owner import TenantQuery, tenant_of
from freehold.serve.reading import query
from freehold.serve.request.personal import user_id
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.sql import SqlStore


class SubjectsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def forget(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, named = self._gateway, scope["path_params"]["subject"]
        tenant_id = tenant_of(gateway, scope, principal, query(TenantQuery, scope).tenant)
        shown = await asyncio.to_thread(forget, gateway.store, gateway.keyring, tenant_id, named)
        await gateway.access.refresh()
        await reply_json(send, shown)


def forget(store: SqlStore, keyring: Keyring, tenant_id: str, named: str) -> dict[str, Any]:
    """By the id of a key or a person, or as requests name an end user. Raises
    `UserError(NOT_FOUND)` for one of whom nothing is known."""
    at_us = keyring.clock.wall_us()
    for subject in (named, user_id(keyring, tenant_id, named)):
        count = store.forget_subject(tenant_id, subject, at_us)
        if count is not None:
            held = [shown_remembered(each) for each in store.remembered(tenant_id, subject)]
            return {
                "id": subject,
                "data_keys": count,
                "forgotten_at": rfc3339(at_us),
                "still_in": held,
            }
    raise UserError(
        Code.NOT_FOUND,
        f"Nothing is known of {named[:80]!r} here: name a key, a person (per_…), or an end user "
        "as requests do.",
    )


def shown_remembered(each: Remembered) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "environment": each.environment,
        "id": each.id,
        "name": each.name,
    }
