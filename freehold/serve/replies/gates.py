from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.serve.replies.promotions import Signer


class GateVerdict(BaseModel):
    name: str
    needed: str
    found: str
    passed: bool


class Elsewhere(BaseModel):
    """Where a gate was decided that came with a revision, in whose file (`through`), and what its
    evaluation measured."""

    signer: Signer
    through: Signer
    gate: Annotated[str, Field(description="Its id there.")]
    environment: Environment
    came_at: datetime
    figures: dict[str, Any] | None


class Gate(BaseModel):
    """What an evaluation decided of a revision: a base with an adapter, or by itself."""

    id: str
    tenant: str
    environment: Annotated[
        Environment, Field(description="Where it was evaluated, or came into from elsewhere.")
    ]
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
    elsewhere: Elsewhere | None


class GateList(BaseModel):
    data: list[Gate]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]
