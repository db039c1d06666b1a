from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.session import SessionKind
from freehold.serve.replies.fields import Count


class Session(BaseModel):
    """Somebody who is logged in; `person` is the id that usage and audit have."""

    id: str
    person: str
    name: str | None
    kind: SessionKind
    provider: str
    groups: list[str]
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class NewSession(Session):
    secret: Annotated[str, Field(description="To be sent like a key; shown this once.")]
    idle_s: Annotated[int, Field(description="It ends after so long without a use.")]


class SessionList(BaseModel):
    data: list[Session]


class CutOff(BaseModel):
    person: Annotated[str | None, Field(description="null: everybody of the tenant.")]
    sessions_ended: Count
