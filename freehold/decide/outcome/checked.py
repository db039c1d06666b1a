"""What a check of a recorded decision says."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from freehold.core.plan import Judged, Way

AGAIN = (
    "decide again with what came: `freehold decide init --from-usage 30d`, then `freehold decide "
    "FILE --record --supersede {id}`"
)


class Kind(StrEnum):
    """What departed from a decision."""

    VOLUME = "volume"
    PROMPTS = "prompts"
    ANSWERS = "answers"
    TTFT = "ttft"
    TPOT = "tpot"
    COST = "cost"
    UTILIZATION = "utilization"
    API_CHEAPER = "api_cheaper"
    OTHER_CHEAPER = "other_cheaper"
    RULES = "rules"
    GONE = "gone"
    FACTS_OLD = "facts_old"


@dataclass(frozen=True, slots=True)
class Figure:
    """Within `least` and `most` it is as predicted; None bounds nothing. `within` is None where
    nothing was predicted or measured, or too little was watched."""

    name: str
    predicted: float | None
    measured: float | None
    least: float | None
    most: float | None
    within: bool | None


@dataclass(frozen=True, slots=True)
class Departure:
    """`subject` tells apart several of one kind: a rule, a part of the facts, a way."""

    kind: Kind
    subject: str
    what: str
    cause: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """The best of a way, planned today for what was measured."""

    way: Way
    id: str
    a_month: float
    once: float

    def monthly(self, months: int) -> float:
        """With what it takes to move there."""
        return self.a_month + self.once / months


@dataclass(frozen=True, slots=True)
class Now:
    """What holds today. `price_ratio` is that of its price to the recorded one; None where it
    has none any more. `again` is what the option would cost, where tokens are bought."""

    judged: tuple[Judged, ...]
    alternatives: tuple[Alternative, ...]
    price_ratio: float | None
    again: float | None
    facts_days: Mapping[str, int]  # how old each part is


@dataclass(frozen=True, slots=True)
class Checked:
    holds: bool
    is_judged: bool  # whether enough was watched for figures to be
    figures: tuple[Figure, ...]
    departures: tuple[Departure, ...]
    a_month: float | None  # of what was decided for, today
    alternatives: tuple[Alternative, ...]


def number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
