"""What people said of answers."""

from dataclasses import dataclass
from enum import StrEnum

from freehold.core.binding import Environment


class Rating(StrEnum):
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Answered:
    """A request, as far as somebody may say something of its answer. `account` is whose it
    was, `data_keys` are those of whom it was about."""

    request_id: str
    account: str
    alias: str
    adapter_digest: str | None
    data_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one person said last of one answer. `sealed` is a better answer and a comment,
    under `data_keys` of those whom they may be about, for this id: another text gets another
    id."""

    id: str
    tenant_id: str
    environment: Environment
    request_id: str
    alias: str
    adapter_digest: str | None
    rating: Rating
    given_at_us: int
    given_by: str
    data_keys: tuple[str, ...] = ()
    sealed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """What somebody said of an answer, and what is kept of that, sealed."""

    feedback: Feedback
    endpoint: str
    data_keys: tuple[str, ...]
    sealed: bytes | None  # None where nothing is kept
