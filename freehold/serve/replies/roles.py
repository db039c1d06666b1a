from datetime import datetime

from pydantic import BaseModel

from freehold.core.binding import Environment, Role


class GrantedRole(BaseModel):
    provider: str
    group: str
    role: Role
    environment: Environment
    granted_at: datetime | None
    granted_by: str | None


class RoleList(BaseModel):
    data: list[GrantedRole]
