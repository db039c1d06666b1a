"""Work that takes longer than a request: it is done in a process of its own, which outlives
terminals and gateways."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from freehold.core.binding import Environment


class JobKind(StrEnum):
    TUNE = "tune"
    EVAL = "eval"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    """`spec` is what its process is told, as it was checked when the job was made; `name` what
    people will call what it makes. `error` has the fields code and message."""

    id: str
    tenant_id: str
    environment: Environment
    kind: JobKind
    name: str
    state: JobState
    spec: Mapping[str, Any]
    progress: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    created_at_us: int
    created_by: str
    started_at_us: int | None = None
    ended_at_us: int | None = None
    is_cancelled: bool = False  # somebody asked for its end, also while it still runs
