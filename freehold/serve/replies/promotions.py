from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.core.promotion import PromotionState

Digest = str


class Bundle(BaseModel):
    """What goes together. `limits`: ids of those that came along."""

    base: Digest | None
    adapter: Digest | None
    tokenizer: Digest | None
    template: Digest | None
    dataset: Digest | None
    policies: dict[str, Digest]
    limits: list[str]


class Watch(BaseModel):
    errors: float | None
    latency: float | None
    thumbs: float | None
    judge: str | None
    score: float
    least: int
    seconds: float


class Before(BaseModel):
    base_digest: Digest | None
    adapter_digest: Digest | None


class Promotion(BaseModel):
    """`source` is null where an alias was set by hand, `before` where it led nowhere. `figures`
    compare the new revision with the old one, by what really was asked."""

    id: str
    tenant: str
    environment: Environment
    source: Environment | None
    alias: str
    adapter: str | None
    bundle: Bundle
    gate: str | None
    forced: Annotated[str | None, Field(description="Why, although something spoke against it.")]
    overridden: list[str]
    accepted_licence: str | None
    state: PromotionState
    share: Annotated[float, Field(description="Of a hundred requests of the alias.")]
    watch: Watch
    before: Before | None
    figures: dict[str, Any] | None
    made_at: datetime
    made_by: str
    whole_at: datetime | None
    ended_at: datetime | None
    ended_because: str | None
    ended_by: str | None


class PromotionList(BaseModel):
    data: list[Promotion]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]
