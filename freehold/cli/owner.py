"""Whose things a command is about: `--tenant` and `--env`."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from freehold.cli import reach
from freehold.core.binding import Environment
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

    def resting(self, store: SqlStore) -> tuple[str, Environment]:
        """Tenant and environment on a home that no gateway serves."""
        tenant = reach.chosen_tenant(store, self.tenant)
        return tenant.id, self.environment or Environment.DEV
