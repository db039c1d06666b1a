"""`/admin/v1/policies`: who may do what, as people wrote it."""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.action import Installation
from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy
from freehold.secure.policy import MAX_POLICY_CHARACTERS, check
from freehold.serve.explain import Explainer, Question
from freehold.serve.gateway import Gateway
from freehold.serve.owner import environment_of, tenant_of
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json

PolicyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class PoliciesQuery(BaseModel):
    """Of one tenant, the key's own where it is left out, or of the installation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Reference | None = None
    installation: bool = False


class NewPolicy(PoliciesQuery):
    """Cedar. It takes the place of the policy of the same name, or changes nothing."""

    name: PolicyName
    text: Annotated[str, Field(max_length=MAX_POLICY_CHARACTERS)]


class PoliciesAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        owner = self._owner(scope, principal, query(PoliciesQuery, scope))
        found = await asyncio.to_thread(self._gateway.store.policies, owner)
        await reply_json(send, {"data": [shown_policy(each) for each in found]})

    async def put(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        raw = await body_of(gateway, scope, receive, principal, key)
        wanted = parsed(NewPolicy, raw)
        owner = self._owner(scope, principal, wanted)
        policy = Policy(
            wanted.name, wanted.text, owner, gateway.clock.wall_us(), set_by=principal.id
        )
        check(policy)
        await asyncio.to_thread(gateway.store.put_policy, policy)
        await gateway.access.refresh()
        await reply_json(send, shown_policy(policy), status=201)

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, name = self._gateway, scope["path_params"]["name"]
        owner = self._owner(scope, principal, query(PoliciesQuery, scope))
        if not await asyncio.to_thread(gateway.store.remove_policy, owner, name):
            raise no_policy(name)
        await gateway.access.refresh()
        await reply_json(send, {"name": name, "removed": True})

    async def explain(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        raw = await body_of(gateway, scope, receive, principal, key)
        asked = parsed(Question, raw)
        mine = (
            tenant_of(gateway, scope, principal, asked.tenant),
            environment_of(gateway, principal, asked.environment),
        )
        explainer = Explainer(
            gateway.store,
            gateway.tenants,
            gateway.policies,
            gateway.directory,
            gateway.people,
            gateway.clock,
        )
        await reply_json(send, await asyncio.to_thread(explainer.explain, asked, mine))

    def _owner(self, scope: Scope, principal: Principal, asked: PoliciesQuery) -> str | None:
        """A tenant's id, or None for the installation."""
        gateway = self._gateway
        action, address = scope["freehold.action"], scope["freehold.address"]
        if asked.installation:
            gateway.policies.require(principal, action, Installation(), address)
            return None
        return tenant_of(gateway, scope, principal, asked.tenant)


def shown_policy(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "tenant": policy.tenant_id,
        "text": policy.text,
        "set_at": rfc3339(policy.set_at_us),
        "set_by": policy.set_by,
    }


def no_policy(name: str) -> UserError:
    return UserError(
        Code.NOT_FOUND, f"There is no policy {name[:80]!r}: see `freehold policy list`."
    )
