"""What a check found: one sentence a person can act on, and the figure behind it."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    PASS = "pass"  # noqa: S105
    WARNING = "warning"  # holds, and weakens something or ends soon
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    state: State
    said: str
    measured: str | None = None
