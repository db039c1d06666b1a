"""`/admin/v1/backups`: what was backed up, and a backup now. Nothing is restored here."""

import asyncio

from freehold.core.acts import Act, Change
from freehold.core.audit import INSTALLATION
from freehold.core.binding import Principal
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


class BackupsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        found = await asyncio.to_thread(self._gateway.backups.listing)
        await reply_json(send, {"data": found})

    async def make(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        made = await self._gateway.backups.make()
        change = Change(Act.BACKUP_MAKE, INSTALLATION, made["name"])
        await asyncio.to_thread(self._gateway.store.acted, change)
        await reply_json(send, made, status=201)
