"""`/admin/v1/tenants`: all of them for those who operate the installation, and for others
their own."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.action import TenantItself
from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339
from freehold.core.departure import OnDeparture
from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.core.tenant import DEFAULT_TENANT, Holding, IsolationClass, Tenant
from freehold.secure.policy import Decision
from freehold.serve.gateway import Gateway
from freehold.serve.owner import no_tenant
from freehold.serve.policies import refused
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.wire import Receive, Scope, Send, reply_json


class NewTenant(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # Small letters only, which no id consists of.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    isolation: IsolationClass = IsolationClass.SHARED


class TenantChange(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    isolation: IsolationClass | None = None
    disabled: Annotated[bool, Field(strict=True)] | None = None
    audit_content: Annotated[bool, Field(strict=True)] | None = None
    feedback: Annotated[bool, Field(strict=True)] | None = None
    on_departure: OnDeparture | None = None


class RemovalQuery(BaseModel):
    """`force` removes what there is left too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    force: bool = False


class TenantsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        found = await asyncio.to_thread(self._gateway.store.tenants)
        mine = await asyncio.to_thread(  # thousands would keep everybody waiting
            lambda: [each for each in found if self._may(scope, principal, each.id)]
        )
        await reply_json(send, {"data": [shown_tenant(each) for each in mine]})

    async def create(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        raw = await body_of(self._gateway, scope, receive, principal, key)
        wanted = parsed(NewTenant, raw)
        made = Tenant(new_id("ten"), wanted.name, wanted.isolation, self._gateway.clock.wall_us())
        if not self._may(scope, principal, made.id):  # who may change its own makes no others
            raise refused(scope["freehold.action"], Decision(False, ()))
        await asyncio.to_thread(
            self._gateway.store.add_tenant,
            made.id,
            made.name,
            made.created_at_us,
            made.isolation,
        )
        await self._gateway.access.refresh()
        await reply_json(send, shown_tenant(made), status=201)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        tenant = await self._asked(scope, principal)
        held = await self._held(tenant)
        await reply_json(send, shown_tenant(tenant) | {"holdings": shown_holdings(held)})

    async def change(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        raw = await body_of(gateway, scope, receive, principal, key)
        wanted = parsed(TenantChange, raw)
        tenant: Tenant | None = await self._asked(scope, principal)
        if tenant is not None and wanted.disabled is not None:
            at_us = gateway.clock.wall_us() if wanted.disabled else None
            if wanted.disabled:
                check_not_default(tenant)
            tenant = await asyncio.to_thread(gateway.store.disable_tenant, tenant.id, at_us)
        if tenant is not None and wanted.isolation is not None:
            tenant = await asyncio.to_thread(
                gateway.store.set_isolation, tenant.id, wanted.isolation
            )
        if tenant is not None and wanted.audit_content is not None:
            tenant = await asyncio.to_thread(
                gateway.store.set_audit_content, tenant.id, wanted.audit_content
            )
        if tenant is not None and wanted.feedback is not None:
            tenant = await asyncio.to_thread(gateway.store.set_feedback, tenant.id, wanted.feedback)
        if tenant is not None and wanted.on_departure is not None:
            tenant = await asyncio.to_thread(
                gateway.store.choose_for_tenant, tenant.id, wanted.on_departure
            )
        await gateway.access.refresh()
        if tenant is None:
            raise no_tenant(scope["path_params"]["tenant"])
        await reply_json(send, shown_tenant(tenant))

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(RemovalQuery, scope)
        tenant = await self._asked(scope, principal)
        check_not_default(tenant)
        held = await self._held(tenant)
        if not asked.force:
            check_empty(tenant, held)
        await self._remove(tenant, held)
        await reply_json(send, shown_tenant(tenant) | {"holdings": shown_holdings(held)})

    async def _remove(self, tenant: Tenant, held: Sequence[Holding]) -> None:
        """Its requests are cut first; each step can be done again after a crash."""
        gateway = self._gateway
        at_us = gateway.clock.wall_us()
        await asyncio.to_thread(gateway.store.disable_tenant, tenant.id, at_us)
        await gateway.access.refresh()
        for each in held:
            if each.kind == "route":
                await gateway.routes.remove(tenant.id, Environment(each.environment), each.name)
            elif each.kind == "adapter":
                place = (tenant.id, Environment(each.environment))
                await gateway.routes.remove_adapter(*place, each.name)
            elif each.kind == "dataset":
                place = (tenant.id, Environment(each.environment))
                await asyncio.to_thread(gateway.datasets.remove, *place, each.id)
        await asyncio.to_thread(gateway.store.remove_tenant, tenant.id)
        await gateway.access.refresh()

    async def _asked(self, scope: Scope, principal: Principal) -> Tenant:
        reference = scope["path_params"]["tenant"]
        for tenant in await asyncio.to_thread(self._gateway.store.tenants):
            if reference in (tenant.name, tenant.id) and self._may(scope, principal, tenant.id):
                return tenant
        raise no_tenant(reference)

    def _may(self, scope: Scope, principal: Principal, tenant_id: str) -> bool:
        action, address = scope["freehold.action"], scope["freehold.address"]
        what = TenantItself(tenant_id)
        return self._gateway.policies.decide(principal, action, what, address).is_allowed

    async def _held(self, tenant: Tenant) -> Sequence[Holding]:
        now_us = self._gateway.clock.wall_us()
        return await asyncio.to_thread(self._gateway.store.holdings, tenant.id, now_us)


def check_not_default(tenant: Tenant) -> None:
    if tenant.name == DEFAULT_TENANT:
        raise UserError(
            Code.CONFLICT,
            f"The tenant {DEFAULT_TENANT} is that of those who operate the installation: revoke "
            "its keys, or remove its routes, instead.",
        )


def check_empty(tenant: Tenant, held: Sequence[Holding]) -> None:
    if held:
        counts = Counter(each.kind for each in held)
        shown = ", ".join(f"{count} {kind}s" for kind, count in sorted(counts.items()))
        raise UserError(
            Code.CONFLICT,
            f"{tenant.name} still has {shown}: see "
            f"`freehold tenant show {tenant.name}`, and remove all with --force.",
        )


def shown_tenant(tenant: Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "isolation": tenant.isolation.value,
        "state": "active" if tenant.is_active else "disabled",
        "created_at": rfc3339(tenant.created_at_us),
        "disabled_at": rfc3339(tenant.disabled_at_us),
        "audit_content": tenant.audit_content,
        "feedback": tenant.feedback,
        "on_departure": tenant.on_departure.value,
    }


def shown_holdings(held: Sequence[Holding]) -> list[dict[str, str]]:
    return [
        {"kind": each.kind, "id": each.id, "name": each.name, "environment": each.environment}
        for each in held
    ]
