from typing import Annotated, Literal

from pydantic import BaseModel, Field

from freehold.core.binding import Environment, Role


class TenantName(BaseModel):
    id: str
    name: str


class WhoAmI(BaseModel):
    id: str
    kind: Literal["key", "person"]
    tenant: TenantName
    environment: Environment
    roles: list[Role]
    groups: Annotated[list[str] | None, Field(description="null: a key has none.")]
    models: Annotated[list[str], Field(description="The aliases that it may use.")]
    session: str | None
