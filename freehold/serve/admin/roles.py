"""`/admin/v1/roles`: what groups of identity providers may in a tenant's environment, beside
what the settings give them."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.config.schema import ProviderSettings
from freehold.core.binding import Environment, Principal, Role
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.role import RoleGrant
from freehold.secure.grants import check_role
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json

Group = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
ProviderName = Annotated[str, Field(min_length=1, max_length=1000)]


class RoleOfGroup(BaseModel):
    """`provider` (a name or an issuer) may be left out where there is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Group
    role: Role
    provider: ProviderName | None = None
    tenant: Reference | None = None
    environment: Environment | None = None

    def grant(self, issuer: str, owner: Owner, at_us: int = 0, by: str = "") -> RoleGrant:
        return RoleGrant(*owner, issuer, self.group, self.role, at_us, by)


class RolesAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(OwnQuery, scope)
        mine = owner(self._gateway, scope, principal, asked.tenant, asked.environment)
        found = await asyncio.to_thread(self._gateway.store.role_grants, *mine)
        await reply_json(send, {"data": [shown_grant(each) for each in found]})

    async def grant(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        raw = await body_of(gateway, scope, receive, principal, key)
        wanted = parsed(RoleOfGroup, raw)
        mine = self._owner(scope, principal, wanted)
        at_us = gateway.clock.wall_us()
        new = wanted.grant(self._issuer(wanted), mine, at_us, principal.id)
        check_role(principal, new)
        await asyncio.to_thread(gateway.store.grant_role, new)
        await gateway.access.refresh()
        await reply_json(send, shown_grant(new), status=201)

    async def revoke(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, asked = self._gateway, query(RoleOfGroup, scope)
        old = asked.grant(self._issuer(asked), self._owner(scope, principal, asked))
        if not await asyncio.to_thread(gateway.store.revoke_role, old):
            raise no_grant(old)
        await gateway.access.refresh()
        await reply_json(send, shown_grant(old))

    def _owner(self, scope: Scope, principal: Principal, asked: RoleOfGroup) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)

    def _issuer(self, asked: RoleOfGroup) -> str:
        people = self._gateway.people
        return chosen_issuer(() if people is None else people.providers, asked.provider)


def chosen_issuer(providers: Sequence[ProviderSettings], name: str | None) -> str:
    """Raises `UserError(NOT_FOUND)` for a provider that the settings do not have, and where
    one must be named."""
    found = [each.issuer for each in providers if name in (None, each.called, each.issuer)]
    if len(found) != 1:
        told = "Name one identity provider" if name is None else f"There is no {name[:80]!r}"
        raise UserError(
            Code.NOT_FOUND,
            f"{told}: the setting `identity_providers` says which there are.",
            param="provider",
        )
    return found[0]


def shown_grant(grant: RoleGrant) -> dict[str, Any]:
    return {
        "provider": grant.issuer,
        "group": grant.group,
        "role": grant.role.value,
        "environment": grant.environment.value,
        "granted_at": rfc3339(grant.granted_at_us) if grant.granted_at_us else None,
        "granted_by": grant.granted_by or None,
    }


def no_grant(grant: RoleGrant) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"The group {grant.group[:80]!r} has no such role {grant.role.value!r} from here: see "
        "`freehold role list`; what the settings give is taken away there.",
    )
