"""Where an answer comes from: what is kept of routes, bases, adapters and datasets when they are
gone."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Remains(StrEnum):
    """Of what something is left when it is removed."""

    ADAPTER = "adapter"
    DATASET = "dataset"
    JOB = "job"  # by its id, where others have a digest


@dataclass(frozen=True, slots=True)
class Left:
    """What was known of something that was removed at `at_us`."""

    content: Mapping[str, Any]
    at_us: int


@dataclass(frozen=True, slots=True)
class Led:
    """Where an alias led from `at_us` on; nowhere, if `is_removed`. `set_by` is None for what
    each start writes."""

    at_us: int
    base_digest: str | None
    adapter_digest: str | None
    is_removed: bool
    set_by: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one request, what says where its answer comes from."""

    request_id: str
    alias: str
    at_us: int
    base_digest: str | None
    adapter_digest: str | None
