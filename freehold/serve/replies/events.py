from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.core.event import Kind, Severity


class Event(BaseModel):
    """`tenant` is null for one of the installation; `subject` is what it is about."""

    id: str
    at: datetime
    severity: Severity
    kind: Kind
    tenant: str | None
    environment: Environment | None
    subject: str | None
    text: str
    details: dict[str, str | int | float]


class EventList(BaseModel):
    data: list[Event]
    has_more: Annotated[bool, Field(description="Ask again `after` the last id.")]
