from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from freehold.core.binding import Environment, Scope
from freehold.core.departure import OnDeparture


class Key(BaseModel):
    """A key as it is shown: never its secret."""

    id: str
    name: str
    environment: Environment
    scopes: list[Scope]
    models: Annotated[list[str] | None, Field(description="null: every model of the tenant.")]
    networks: Annotated[list[str] | None, Field(description="null: from everywhere.")]
    certificates: Annotated[
        list[str] | None, Field(description="null: whatever the client's certificate is.")
    ]
    state: Literal["active", "expired", "revoked", "stepped_down", "suspended"]
    on_departure: Annotated[
        OnDeparture, Field(description="What follows when it is used otherwise than before.")
    ]
    restrained_at: Annotated[
        datetime | None, Field(description="Since when it is suspended or stepped down.")
    ]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: Annotated[str | None, Field(description="The key that replaces it.")]


class CreatedKey(Key):
    key: Annotated[
        str,
        Field(
            description="The key, shown this once; absent when it was taken over, or made by an "
            "earlier call."
        ),
    ] = ""


class KeyList(BaseModel):
    data: list[Key]
