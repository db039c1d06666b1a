from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.binding import Environment, Priority
from freehold.core.usage import Outcome
from freehold.serve.replies.fields import Count


class RequestRecord(BaseModel):
    """One accepted request; what is still running has no outcome yet."""

    id: str
    tenant_id: str
    environment: Environment
    key_id: str
    alias: str
    endpoint: str
    engine: str
    base_digest: str | None
    adapter_digest: str | None
    conversation_id: str | None
    priority: Priority
    stream: bool
    created_at_us: int
    tokens_in: Count
    tokens_out: Count
    tokens_cached: Count
    estimated: bool
    ttft_us: int | None
    duration_us: int | None
    settled_at_us: int | None
    outcome: Outcome | None
    error_code: str | None
    policies: str | None
    account: str | None
    price: str | None
    cost: Annotated[int | None, Field(description="Micro-units; null: no price is known.")]
    gateway: Annotated[str | None, Field(description="That served it, where there are several.")]


class RequestList(BaseModel):
    data: list[RequestRecord]
