"""A decision as it was made: kept as it was, and held against what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Decision:
    """`content` is the workload as it was read, the option that was chosen, and what was
    predicted of it; it is never changed. `superseded_by` is a later one that took its place."""

    id: str
    tenant_id: str
    at_us: int
    made_by: str
    name: str
    version: str
    content: Mapping[str, Any]
    supersedes: str | None = None
    superseded_by: str | None = None
