from typing import Annotated, Literal

from pydantic import BaseModel, Field


class AuditRecord(BaseModel):
    """`body` is JSON, as it was hashed; `personal` what can be read of its personal fields."""

    stream: str
    number: int
    body: str
    hash: str
    personal: dict[str, str] | Literal["forgotten", "unreadable"] | None


class AuditList(BaseModel):
    data: list[AuditRecord]
    has_more: bool
    next: Annotated[str | None, Field(description="The cursor to ask for what follows.")]
