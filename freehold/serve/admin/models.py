"""`/admin/v1/models`: the cards of what is served."""

import dataclasses

from freehold.core.binding import Principal
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


class ModelsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        cards = [dataclasses.asdict(card) for card in self._gateway.cards.values()]
        await reply_json(send, {"data": cards})
