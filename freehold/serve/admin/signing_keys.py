"""`/admin/v1/signing-keys`: the keys whose signatures on adapters count."""

import asyncio
from typing import Any

from freehold.catalog.bundle import pem_of
from freehold.catalog.signatures import Signatures
from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


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


def shown_keys(signatures: Signatures) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "by": trusted.by,
            "signs": id == signatures.current,
            "made_at": None if own is None else rfc3339(own.made_at_us),
            "public": pem_of(trusted.key).decode(),
        }
        for own, id, trusted in signatures.keys
    ]
