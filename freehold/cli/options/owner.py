"""Whose things a command is about: `--tenant` and `--env`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.core.tenant import DEFAULT_TENANT, Tenant

if TYPE_CHECKING:
    from freehold.store.sql import SqlStore

TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Whose, by name or id. Default: default.")
]
EnvironmentOption = Annotated[
    Environment | None, typer.Option("--env", "--environment", help="Default: dev.")
]


@dataclass(frozen=True, slots=True)
class Of:
    """What was chosen. A running gateway is told only that: left out, it takes what the
    key of the environment variable FREEHOLD_API_KEY belongs to, if that is set."""

    tenant: str | None = None
    environment: Environment | None = None

    def named(self) -> dict[str, Any]:
        environment = self.environment and self.environment.value
        both = {"tenant": self.tenant, "environment": environment}
        return {name: value for name, value in both.items() if value is not None}

    def resting(self, store: "SqlStore") -> tuple[str, Environment]:
        """Tenant and environment on a home that no gateway serves."""
        tenant = chosen_tenant(store, self.tenant)
        return tenant.id, self.environment or Environment.DEV


def chosen_tenant(store: "SqlStore", reference: str | None) -> Tenant:
    """By name or id; the default one where none is named."""
    wanted = reference or DEFAULT_TENANT
    for tenant in store.tenants():
        if wanted in (tenant.name, tenant.id):
            return tenant
    raise UserError(
        Code.NOT_FOUND, f"There is no tenant {wanted[:80]!r}: see `freehold tenant list`."
    )
