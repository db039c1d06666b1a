"""What a group of an identity provider was granted, beside what the settings give it."""

from dataclasses import dataclass

from freehold.core.binding import Environment, Role


@dataclass(frozen=True, slots=True)
class RoleGrant:
    tenant_id: str
    environment: Environment
    issuer: str
    group: str
    role: Role
    granted_at_us: int = 0
    granted_by: str = ""
