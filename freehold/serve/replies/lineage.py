from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.binding import Environment
from freehold.core.promotion import PromotionState
from freehold.serve.replies.fields import Count
from freehold.serve.replies.gates import GateVerdict
from freehold.serve.replies.promotions import Signer

Digest = str


class NotKnown(BaseModel):
    """What nobody here knows but by its digest."""

    digest: Digest
    name: None


class LineageLicence(BaseModel):
    """`waiver` is why it was taken although its conditions were not known to be kept."""

    spdx: str
    commercial_use: bool | None
    url: str | None
    waiver: str | None


class LineageBase(BaseModel):
    digest: Digest
    name: str
    is_stored: Annotated[bool, Field(description="Whether it is still here.")]
    licence: LineageLicence
    source: str
    architecture: str
    parameters: Count
    quantization: str
    tokenizer_digest: Digest | None
    template_digest: Digest | None
    added_at: datetime


class UnknownBase(NotKnown):
    is_stored: Literal[False]


class LineageSignature(BaseModel):
    key: Annotated[str, Field(description="SHA-256 of the public key.")]
    by: str | None
    holds: bool
    made_at: datetime
    made_by: str


class LineageAdapter(BaseModel):
    """What its manifest does not say is null."""

    digest: Digest
    name: str
    rank: Count
    scaling: str
    target_modules: list[str]
    config_digest: Digest
    weights_digest: Digest
    size_bytes: Count
    source: str
    added_at: datetime
    removed_at: datetime | None
    tokenizer_digest: Digest | None
    template_digest: Digest | None
    dataset_digest: Digest | None
    recipe: dict[str, Any] | None
    licences: dict[str, Any] | None
    made_with: dict[str, Any] | None
    signatures: list[LineageSignature]


class LineageDataset(BaseModel):
    """`findings` are what its report warned of, `accepted` why they might stay."""

    digest: Digest
    name: str
    version: Count
    kind: Literal["chat", "preference"]
    licence: str
    origin: str
    train: Count
    held_out: Count
    created_at: datetime
    created_by: str
    removed_at: datetime | None
    findings: list[str]
    accepted: str | None


class LineageJob(BaseModel):
    """`figures`: tokens, seconds, steps, losses and memory, those that were told."""

    id: str
    name: str
    environment: Environment
    state: str
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    figures: dict[str, float]


class LineageGate(BaseModel):
    """`elsewhere` is who signed it, where it was decided by another installation."""

    id: str
    environment: Environment
    suite: str
    suite_digest: Digest
    incumbent_digest: Digest | None
    passed: bool
    verdicts: list[GateVerdict]
    job: str | None
    made_at: datetime
    made_by: str
    elsewhere: Signer | None


class LineagePromotion(BaseModel):
    """`share` is a part of one, `elsewhere` who signed the file that it came in."""

    id: str
    environment: Environment
    source: Environment | None
    elsewhere: Signer | None
    gate: str | None
    forced: str | None
    overridden: list[str]
    accepted: str | None
    share: float
    state: PromotionState
    made_at: datetime
    made_by: str
    ended_at: datetime | None
    ended_because: str | None
    ended_by: str | None


class Lineage(BaseModel):
    """Where answers come from; what nobody ever said is null."""

    alias: str
    environment: Environment
    at: datetime
    request: str | None
    since: Annotated[datetime | None, Field(description="Since when the alias led there.")]
    set_by: str | None
    base: Annotated[LineageBase | UnknownBase | None, Field(description="Null for remotes.")]
    adapter: LineageAdapter | NotKnown | None
    dataset: LineageDataset | NotKnown | None
    job: Annotated[LineageJob | None, Field(description="That trained it here.")]
    gates: Annotated[list[LineageGate], Field(description="Of it, the oldest first.")]
    promotions: Annotated[
        list[LineagePromotion],
        Field(description="Of it on its way to this environment, the oldest first."),
    ]


class Bom(BaseModel):
    """CycloneDX 1.6."""

    model_config = ConfigDict(extra="allow")

    bomFormat: Literal["CycloneDX"]
    specVersion: Literal["1.6"]
