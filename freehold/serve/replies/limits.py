from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.core.limit import Measure, Period
from freehold.serve.replies.fields import Count


class Limit(BaseModel):
    """`environment` is null for all together, `subject` (a key's first id, or a person's) for
    everybody. `held` is what running requests may still use. `own`: the tenant's admins may
    change it."""

    id: str
    environment: Environment | None
    subject: str | None
    measure: Measure
    period: Period
    unit: Annotated[str, Field(description="Of the amounts: `micro-USD`, `tokens`, ...")]
    amount: Count
    used: Count
    held: Count
    frees_at: datetime | None
    own: bool
    set_at: datetime
    set_by: str


class LimitList(BaseModel):
    data: list[Limit]


class RemovedLimit(BaseModel):
    id: str
    removed: bool
