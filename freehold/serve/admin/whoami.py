"""`/admin/v1/whoami`: who asks, and what it may."""

import asyncio

from freehold.core.action import Action
from freehold.core.binding import ROLES, Principal
from freehold.serve.gateway import Gateway
from freehold.serve.wire import Receive, Scope, Send, reply_json


class WhoAmIAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        tenant = gateway.tenants.find(principal.tenant_id)
        decide, address = gateway.policies.decide, scope["freehold.address"]
        routes = await asyncio.to_thread(
            gateway.directory.routes, principal.tenant_id, principal.environment
        )
        vouched = principal.vouched
        models = [
            alias
            for alias, route in routes.items()
            if decide(principal, Action.INFER, route, address).is_allowed
        ]
        shown = {
            "id": principal.id,
            "kind": "key" if principal.groups is None else "person",
            "tenant": {"id": principal.tenant_id, "name": tenant.name if tenant else ""},
            "environment": principal.environment.value,
            "roles": sorted(ROLES[each].value for each in principal.scopes),
            "groups": None if principal.groups is None else sorted(principal.groups),
            "models": sorted(models),
            "session": None if vouched is None else vouched.session_id,
        }
        await reply_json(send, shown)
