from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.serve.replies.fields import Count


class AdapterManifest(BaseModel):
    """Where an adapter comes from. What is not known is null."""

    base_digest: str
    tokenizer_digest: str | None
    template_digest: str | None
    dataset_digest: str | None
    recipe: dict[str, Any]
    licences: dict[str, Any]
    made_with: dict[str, Any]
    job: Annotated[str | None, Field(description="That made it here.")]


class Adapter(BaseModel):
    """A stored adapter; `base` is null for a model that is not served now."""

    id: str
    name: str
    environment: Environment
    digest: str
    base: str | None
    base_digest: str
    rank: Count
    scaling: str
    target_modules: list[str]
    size_bytes: Count
    source: str
    added_at: datetime
    manifest: Annotated[
        AdapterManifest | None, Field(description="Null where nobody said where it comes from.")
    ]


class AdapterList(BaseModel):
    data: list[Adapter]
    has_more: Annotated[bool, Field(description="Ask again `after` the last name.")]


class Signature(BaseModel):
    """`by` is whose key it is, as far as it is trusted; `bundle` the file in the format of OpenSSF
    model-signing."""

    key: Annotated[str, Field(description="The SHA-256 of the public key in PEM.")]
    by: str | None
    holds: bool
    reason: str | None
    made_at: datetime
    made_by: str
    bundle: str


class Verified(BaseModel):
    """Whether an adapter's files are what they were and what was signed."""

    name: str
    environment: Environment
    digest: str
    holds: Annotated[bool, Field(description="Signed, unchanged, and not kept out.")]
    spoilt: Annotated[str | None, Field(description="Which file was changed on the disk.")]
    kept_out: Annotated[str | None, Field(description="Why no engine is told of it.")]
    signatures: list[Signature]
