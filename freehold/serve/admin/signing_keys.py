"""`/admin/v1/signing-keys`: the keys whose signatures on adapters count."""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict

from freehold.catalog.bundle import pem_of
from freehold.catalog.signatures import Revoked, Signatures
from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.tenant import Tenant
from freehold.serve.gateway import Gateway
from freehold.serve.reading import Time, body_of, in_us, parsed
from freehold.serve.wire import Receive, Scope, Send, reply_json

_SHOWN = 20


class Revocation(BaseModel):
    """`since` is from when on nothing counts that the key signed, by when that was recorded here;
    without one nothing does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Time | None = None


class SigningKeysAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        signatures = self._gateway.adapters.signatures
        await reply_json(send, {"data": await asyncio.to_thread(shown_keys, signatures)})

    async def rotate(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        signatures = self._gateway.adapters.signatures
        new = await asyncio.to_thread(signatures.rotate)
        shown = await asyncio.to_thread(shown_keys, signatures)
        await reply_json(send, next(each for each in shown if each["id"] == new.id), status=201)

    async def revoke(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = parsed(Revocation, await body_of(self._gateway, scope, receive, principal, key))
        reference = scope["path_params"]["key"]
        revoked = await self._gateway.routes.revoke_key(reference, in_us(asked.since) or 0)
        signatures, tenants = self._gateway.adapters.signatures, self._gateway.store.tenant
        await reply_json(send, await asyncio.to_thread(shown_revoked, signatures, revoked, tenants))


def shown_keys(signatures: Signatures) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "by": trusted.by,
            "signs": id == signatures.current,
            "made_at": None if own is None else rfc3339(own.made_at_us),
            "revoked": trusted.is_revoked,
            "invalid_since": rfc3339(trusted.revoked_since_us or None),
            "public": pem_of(trusted.key).decode(),
        }
        for own, id, trusted in signatures.keys
    ]


def shown_revoked(
    signatures: Signatures, revoked: Revoked, tenant: Callable[[str], Tenant | None]
) -> dict[str, Any]:
    """`tenant` finds one by its id."""
    shown = next(each for each in shown_keys(signatures) if each["id"] == revoked.key)
    names = []
    for each in revoked.kept_out[:_SHOWN]:
        owner = tenant(each.tenant_id)
        names.append(
            {
                "tenant": each.tenant_id if owner is None else owner.name,
                "environment": each.environment.value,
                "name": each.name,
                "digest": each.digest,
            }
        )
    return shown | {"kept_out": len(revoked.kept_out), "adapters": names}
