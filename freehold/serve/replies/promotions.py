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


class Signer(BaseModel):
    """An installation, by the key that it signs with and what that is called here."""

    key: str
    by: str


class Export(BaseModel):
    """What was written for another installation. `digest` is that of the file, `signed_by` the
    id of our key; `figures` and `examples` say whether those of its evaluation are in it,
    `forgotten` whether the adapter was trained on words of somebody who was forgotten since."""

    adapter: str
    adapter_digest: Digest
    base: str
    base_digest: Digest
    environment: Environment
    gate: str
    digest: Digest
    signed_by: str
    figures: bool
    examples: bool
    forgotten: bool


class Promotion(BaseModel):
    """`source` is null where an alias was set by hand, and an environment of `elsewhere` where
    another installation exported it; `before` is where it led nowhere. `figures`
    compare the new revision with the old one, by what really was asked."""

    id: str
    tenant: str
    environment: Environment
    source: Environment | None
    elsewhere: Signer | None
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


class Promoted(Promotion):
    notes: Annotated[list[str], Field(description="What should be looked at here.")]


class PromotionList(BaseModel):
    data: list[Promotion]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]
