"""`/admin/v1/login`: how commands log in."""

from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


class LoginAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def clients(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What `freehold login` must know of the providers: nothing of it is secret."""
        people = self._gateway.people
        found = [
            {
                "name": each.called,
                "issuer": each.issuer,
                "client_id": each.command_client,
                "scopes": list(each.scopes),
            }
            for each in (people.providers if people is not None else ())
            if each.command_client is not None
        ]
        await reply_json(send, {"data": found})
