from typing import Annotated, Literal

from pydantic import BaseModel, Field

from freehold.core.binding import Role, Scope


class Policy(BaseModel):
    """`tenant` is null for one of the installation."""

    name: str
    tenant: str | None
    text: str
    set_at: str | None
    set_by: str


class PolicyList(BaseModel):
    data: list[Policy]


class AskedPrincipal(BaseModel):
    id: str
    roles: list[Role]
    groups: list[str] | None
    models: list[str] | None


class ToldPolicy(BaseModel):
    name: str
    effect: Literal["permit", "forbid"]
    says: str | None
    text: str


class MissingRole(BaseModel):
    role: Role
    scope: Scope
    policies: Annotated[list[str], Field(description="That permit it then.")]


class Explanation(BaseModel):
    allowed: bool
    answer: Annotated[str, Field(description="One sentence.")]
    principal: AskedPrincipal
    policies: Annotated[list[ToldPolicy], Field(description="Those that decided.")]
    missing: Annotated[list[MissingRole], Field(description="Each alone would do.")]


class RemovedPolicy(BaseModel):
    name: str
    removed: bool
