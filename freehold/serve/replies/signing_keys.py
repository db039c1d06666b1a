from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.binding import Environment


class SigningKey(BaseModel):
    """`made_at` is null for keys that the settings name."""

    id: str
    by: str
    signs: Annotated[bool, Field(description="Whether what is signed here now is by it.")]
    made_at: datetime | None
    revoked: bool
    invalid_since: Annotated[
        datetime | None,
        Field(
            description="Of a revoked key: what it signed counts where it was recorded here "
            "before; null where nothing of it does."
        ),
    ]
    public: Annotated[str, Field(description="In PEM.")]


class SigningKeyList(BaseModel):
    data: list[SigningKey]


class KeptOut(BaseModel):
    tenant: str
    environment: Environment
    name: str
    digest: str


class RevokedSigningKey(SigningKey):
    kept_out: Annotated[
        int,
        Field(description="So many adapters with its signature serve no more."),
    ]
    adapters: Annotated[list[KeptOut], Field(description="The first twenty of them.")]
