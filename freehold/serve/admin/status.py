"""`/admin/v1/status`: how the gateway is."""

import dataclasses

from freehold.core.binding import Principal
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


class StatusAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        pools = [dataclasses.asdict(pool.status()) for pool in gateway.pools.values()]
        await reply_json(
            send,
            {
                **gateway.describe(),
                "in_flight": len(gateway.watch),
                "tokens_out": gateway.tokens_out,
                "ledger_writable": gateway.ledger.is_writable,
                "draining": gateway.is_draining,
                "pools": pools,
            },
        )
