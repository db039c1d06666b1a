"""Which time a decision is held against, and what is asked of the planning process for it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from freehold.core.decision import Decision

DAY_US = 86_400_000_000
_MONTH_US = DAY_US * 365 / 12


class Used(NamedTuple):
    """What was answered: `hours` and `sample` as `decide/outcome/measured.py` has them."""

    hours: Sequence[tuple[int, int, int, int, int]]
    sample: Sequence[tuple[int, int, int | None, int | None]]


# What all tenants used between two times, of some aliases or of all.
Usage = Callable[[int, int, Sequence[str] | None], Used]


def check_asked(decision: Decision, usage: Usage, since_us: int, now_us: int) -> dict[str, Any]:
    """From the decision on; from the first request on, where that came before it could all be
    delivered. May block."""
    from freehold.decide.outcome.measured import measured

    begun_us = max(since_us, decision.at_us)
    found = usage(begun_us, now_us, decision.content["aliases"])
    delivered_us = decision.at_us + decision.content["days_to_deliver"] * DAY_US
    first_us = found.hours[0][0] * 3_600_000_000 if found.hours else now_us
    if begun_us < first_us <= delivered_us:
        begun_us = first_us
    told = measured(found.hours, found.sample, begun_us / 1e6, now_us / 1e6)
    return {
        "id": decision.id,
        "content": decision.content,
        "measured": asdict(told),
        "months": (now_us - decision.at_us) / _MONTH_US,
        "today": datetime.fromtimestamp(now_us / 1e6, UTC).date().isoformat(),
    }


def shown_check(
    decision: Decision, asked: dict[str, Any], checked: dict[str, Any], now_us: int
) -> dict[str, Any]:
    """What a check says, for machines."""
    told = asked["measured"]
    return {
        "id": decision.id,
        "name": decision.name,
        "option": decision.content["option"]["id"],
        "at": _time(now_us / 1e6),
        "since": _time(told["since_s"]),
        "days": round((told["until_s"] - told["since_s"]) / 86_400, 3),
        "requests": told["requests"],
        "tokens_in": told["tokens_in"],
        "tokens_out": told["tokens_out"],
        **checked,
    }


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
