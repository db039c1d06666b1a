"""`/admin/v1/sessions`: who is logged in, and its end."""

import asyncio
from typing import Annotated, Any

from pydantic import Field, model_validator

from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.session import Session, SessionKind
from freehold.secure.oidc import no_provider
from freehold.secure.sessions import PREFIX, invalid_session
from freehold.serve.gateway import Gateway
from freehold.serve.owner import TenantQuery, tenant_of
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send, reply_json

PersonId = Annotated[str, Field(pattern=r"^per_[a-z2-7]{26}$")]


class SessionsQuery(TenantQuery):
    person: PersonId | None = None


class CutOffQuery(SessionsQuery):
    """One person, or with `all` everybody of the tenant."""

    all: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> "CutOffQuery":
        if self.all == (self.person is not None):
            raise ValueError("the query needs one of person and all")
        return self


class SessionsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, asked = self._gateway, query(SessionsQuery, scope)
        tenant_id = tenant_of(gateway, scope, principal, asked.tenant)
        found = await asyncio.to_thread(
            gateway.store.sessions, tenant_id, gateway.clock.wall_us(), asked.person
        )
        await reply_json(send, {"data": [shown_session(each) for each in found]})

    async def revoke(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, asked = self._gateway, query(TenantQuery, scope)
        tenant_id = tenant_of(gateway, scope, principal, asked.tenant)
        session_id = scope["path_params"]["session_id"]
        ended = await asyncio.to_thread(
            gateway.sessions.revoke, tenant_id, session_id, principal.id
        )
        if ended is None:
            raise no_session(session_id)
        await gateway.access.refresh()
        await reply_json(send, shown_session(ended))

    async def cut_off(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, asked = self._gateway, query(CutOffQuery, scope)
        tenant_id = tenant_of(gateway, scope, principal, asked.tenant)
        ended = await asyncio.to_thread(
            gateway.sessions.cut_off, tenant_id, asked.person, principal.id
        )
        await gateway.access.refresh()
        await reply_json(send, {"person": asked.person, "sessions_ended": ended})

    async def open(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        """The ID token that is sent as the key is exchanged, once."""
        login = self._gateway.login
        if login is None:
            raise no_provider()
        session, secret = await login.exchange(key)
        shown = {
            **shown_session(session),
            "secret": secret.reveal(),
            "idle_s": self._gateway.sessions.idle_s,
        }
        await reply_json(send, shown, status=201)

    async def close(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        """The session that is sent as the key ends, whatever became of its rights."""
        ended = None
        if key.startswith(PREFIX) and not scope.get("freehold.by_cookie"):
            ended = await asyncio.to_thread(
                self._gateway.sessions.end,
                key,
                SessionKind.COMMAND,
                "DELETE /admin/v1/sessions/current",
            )
        if ended is None:
            raise invalid_session()
        await self._gateway.access.refresh()
        await reply_json(send, shown_session(ended))


def shown_session(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "person": session.person_id,
        "name": session.name,
        "kind": session.kind.value,
        "provider": session.issuer,
        "groups": sorted(session.groups),
        "created_at": rfc3339(session.created_at_us),
        "last_used_at": rfc3339(session.last_used_at_us),
        "expires_at": rfc3339(session.expires_at_us),
        "ended_at": rfc3339(session.ended_at_us),
    }


def no_session(session_id: str) -> UserError:
    return UserError(
        Code.NOT_FOUND, f"There is no session {session_id[:60]!r}: see `freehold session list`."
    )
