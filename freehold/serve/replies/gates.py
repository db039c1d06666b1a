from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.binding import Environment


class GateVerdict(BaseModel):
    name: str
    needed: str
    found: str
    passed: bool


class Gate(BaseModel):
    """What an evaluation decided of a revision: a base with an adapter, or by itself."""

    id: str
    tenant: str
    environment: Annotated[Environment, Field(description="Where it was evaluated.")]
    base_digest: str
    adapter_digest: str | None
    suite_name: str
    suite_digest: str
    incumbent_digest: Annotated[
        str | None, Field(description="Of the adapter, or else the base, it was held against.")
    ]
    passed: bool
    verdicts: list[GateVerdict]
    job: str | None
    made_at: datetime
    made_by: str


class GateList(BaseModel):
    data: list[Gate]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]
