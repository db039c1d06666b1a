from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.core.job import JobKind, JobState
from freehold.serve.replies.fields import Count


class JobError(BaseModel):
    code: str
    message: str


class Job(BaseModel):
    """Work beside the gateway. `progress`, `result` and `spec` depend on the kind: see
    docs/adapt/tune.md."""

    id: str
    tenant: str
    environment: Environment
    kind: JobKind
    name: Annotated[str, Field(description="What people call what it makes.")]
    state: JobState
    is_cancelled: Annotated[
        bool, Field(description="Somebody asked for its end, also while it still runs.")
    ]
    spec: dict[str, Any]
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: JobError | None
    created_at: datetime
    created_by: str
    started_at: datetime | None
    ended_at: datetime | None


class JobList(BaseModel):
    data: list[Job]
    has_more: Annotated[bool, Field(description="Ask again `before` the last id.")]


class JobEstimate(BaseModel):
    """What it will take, about; `cost` in millionths of the currency, null where nobody knows
    what the machine costs. The rest is what was chosen."""

    name: str
    currency: str
    tokens: Annotated[Count, Field(description="To learn from, all epochs.")]
    seconds: float
    memory_bytes: Count
    cost: Count | None
    rests_on: Annotated[str, Field(description="Where the machine's speed is from.")]
    base: str
    dataset: str
    objective: str
    bits: int | None
    trainer: str
    epochs: Count
    max_seconds: float | None
    max_memory_bytes: Count | None
    notes: Annotated[list[str], Field(description="Of the data, as sentences.")]


class JobLine(BaseModel):
    """A line of its log has one of the two."""

    log: str | None = None
    progress: dict[str, Any] | None = None


class JobLog(BaseModel):
    data: list[JobLine]
