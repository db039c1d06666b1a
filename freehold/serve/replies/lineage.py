from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.binding import Environment


class Lineage(BaseModel):
    """Where answers come from; what nobody ever said is null, and so is all but the digest of
    what nobody here knows."""

    alias: str
    environment: Environment
    at: datetime
    request: str | None
    since: Annotated[datetime | None, Field(description="Since when the alias led there.")]
    set_by: str | None
    base: Annotated[
        dict[str, Any] | None, Field(description="Its digest, licence, source; null for remotes.")
    ]
    adapter: Annotated[
        dict[str, Any] | None, Field(description="Its digests, recipe, licences and signatures.")
    ]
    dataset: Annotated[
        dict[str, Any] | None, Field(description="Its version, licence, origin and findings.")
    ]
    job: Annotated[dict[str, Any] | None, Field(description="That trained it here.")]
    gates: Annotated[list[dict[str, Any]], Field(description="Evaluations, the oldest first.")]
    promotions: Annotated[list[dict[str, Any]], Field(description="Of it, the oldest first.")]


class Bom(BaseModel):
    """CycloneDX 1.6."""

    model_config = ConfigDict(extra="allow")

    bomFormat: Literal["CycloneDX"]
    specVersion: Literal["1.6"]
