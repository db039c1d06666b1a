"""Whose things an administrator means: its own, unless it operates the installation."""

from pydantic import BaseModel, ConfigDict

from freehold.core.action import Space, TenantItself
from freehold.core.binding import Environment, Principal
from freehold.core.errors import Code, UserError
from freehold.secure.keys import not_served
from freehold.serve.gateway import Gateway
from freehold.serve.policies import refused
from freehold.serve.routes import Reference
from freehold.serve.wire import Scope

Owner = tuple[str, Environment]


class OwnQuery(BaseModel):
    """Both are the key's own where they are left out. `tenant` (a name or an id) is for
    those who operate the installation; `environment` must be the key's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Reference | None = None
    environment: Environment | None = None


class TenantQuery(BaseModel):
    """The key's own tenant where it is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Reference | None = None


def owner(
    gateway: Gateway,
    scope: Scope,
    principal: Principal,
    tenant: str | None = None,
    environment: Environment | None = None,
) -> Owner:
    """Raises `UserError`: `NOT_FOUND`, alike for a tenant that is somebody else's and one
    that is not there, `FORBIDDEN` for another environment."""
    environment = environment_of(gateway, principal, environment)
    tenant_id = principal.tenant_id
    if tenant is not None:
        found = gateway.tenants.find(tenant)
        if found is None:
            raise no_tenant(tenant)
        tenant_id = found.id
    action = scope["freehold.action"]
    place = Space(tenant_id, environment)
    decision = gateway.policies.decide(principal, action, place, scope["freehold.address"])
    if decision.is_allowed:
        return tenant_id, environment
    if tenant is None or tenant_id == principal.tenant_id:
        raise refused(action, decision)
    raise no_tenant(tenant)


def environment_of(
    gateway: Gateway, principal: Principal, environment: Environment | None
) -> Environment:
    """Raises `UserError(FORBIDDEN)` for one that is not the principal's."""
    if environment is None:
        environment = principal.environment
    elif environment is not principal.environment and not principal.is_local:
        raise UserError(
            Code.FORBIDDEN,
            f"Your key belongs to {principal.environment}: ask for {environment} with a key of "
            "that environment.",
            param="environment",
        )
    if environment not in gateway.keyring.environments:
        raise not_served(environment)
    return environment


def tenant_of(gateway: Gateway, scope: Scope, principal: Principal, reference: str | None) -> str:
    """The id of a tenant that something is asked about as a whole. Raises as `owner`."""
    if reference is None:
        return principal.tenant_id  # which was asked about before
    tenant = gateway.tenants.find(reference)
    if tenant is None:
        raise no_tenant(reference)
    action, address = scope["freehold.action"], scope["freehold.address"]
    decision = gateway.policies.decide(principal, action, TenantItself(tenant.id), address)
    if decision.is_allowed:
        return tenant.id
    if tenant.id == principal.tenant_id:
        raise refused(action, decision)
    raise no_tenant(reference)


def no_tenant(reference: str) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"There is no tenant {reference[:80]!r} for this key: see `freehold tenant list`.",
        param="tenant",
    )
