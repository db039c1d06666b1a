"""`/admin/v1/events`: what happened, to a tenant or to all of the installation."""

import asyncio
from typing import Annotated, Any

from pydantic import Field

from freehold.core.action import Action, Installation
from freehold.core.binding import Principal
from freehold.core.event import Severity
from freehold.serve.admin.paging import reply_page
from freehold.serve.events.webhooks import shown_event
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send


class EventsQuery(OwnQuery):
    """Oldest first, from the event after that id on. `all` is for those who operate the
    installation: its own events and every tenant's."""

    all: bool = False
    after: Annotated[str, Field(max_length=64)] = ""
    since_us: Annotated[int, Field(ge=0, lt=2**63)] = 0
    severity: Severity = Severity.INFO
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class EventsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, asked = self._gateway, query(EventsQuery, scope)
        bounds: dict[str, Any] = {"since_us": asked.since_us, "least": asked.severity}
        page = asked.limit + 1, asked.after
        if asked.all:
            address = scope["freehold.address"]
            gateway.policies.require(principal, Action.READ_ALL_EVENTS, Installation(), address)
            await gateway.events.flush()
            found = await asyncio.to_thread(gateway.store.every_event, *page, **bounds)
        else:
            mine = owner(gateway, scope, principal, asked.tenant, asked.environment)
            await gateway.events.flush()
            found = await asyncio.to_thread(gateway.store.events, *mine, *page, **bounds)
        await reply_page(send, found, asked.limit, shown_event)
