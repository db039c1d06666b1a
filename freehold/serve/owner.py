"""Whose things an administrator means: its own, unless it operates the installation."""

from pydantic import BaseModel, ConfigDict

from freehold.core.binding import Environment, Principal
from freehold.core.binding import Scope as Right
from freehold.core.errors import Code, UserError
from freehold.secure.keys import not_served
from freehold.serve.gateway import Gateway
from freehold.serve.routes import Reference

Owner = tuple[str, Environment]


class OwnQuery(BaseModel):
    """Both are the key's own where they are left out. `tenant` (a name or an id) is for
    those who operate the installation; `environment` must be the key's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Reference | None = None
    environment: Environment | None = None


def owner(
    gateway: Gateway,
    principal: Principal,
    tenant: str | None = None,
    environment: Environment | None = None,
) -> Owner:
    """Raises `UserError`: `NOT_FOUND`, alike for a tenant that is somebody else's and one
    that is not there, `FORBIDDEN` for another environment."""
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
    if tenant is None:
        return principal.tenant_id, environment
    found = gateway.tenants.find(tenant)
    may = found is not None and (
        found.id == principal.tenant_id or Right.OPERATE in principal.scopes
    )
    if found is None or not may:
        raise no_tenant(tenant)
    return found.id, environment


def no_tenant(reference: str) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"There is no tenant {reference[:80]!r} for this key: see `freehold tenant list`.",
        param="tenant",
    )
