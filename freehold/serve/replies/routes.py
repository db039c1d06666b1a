from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.binding import Environment


class RouteCandidate(BaseModel):
    """A revision that is tried on a share of the requests for an alias."""

    adapter: str | None
    adapter_digest: str | None
    base_digest: str | None
    share: Annotated[float, Field(description="Of a hundred.")]
    promotion: str


class Route(BaseModel):
    """Where an alias leads. Managed ones are there as long as their model is served."""

    id: str
    alias: str
    environment: Environment
    engine: str
    base: str | None
    base_digest: str | None
    adapter: str | None
    adapter_digest: str | None
    managed: bool
    passed_by: Annotated[
        str | None,
        Field(description="In staging and prod: the gate, or that it was forced; else null."),
    ]
    promotion: Annotated[str | None, Field(description="With which it came.")]
    candidate: RouteCandidate | None
    created_at: datetime


class RouteList(BaseModel):
    data: list[Route]
    has_more: Annotated[bool, Field(description="Ask again `after` the last alias.")]
