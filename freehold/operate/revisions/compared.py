"""Two revisions of one alias beside each other, by the requests that each answered. Pure.

It is looked at every few seconds, so what is said must be sure: one in a thousand by chance, in a
single look.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Any, NamedTuple

from freehold.core.promotion import Watch
from freehold.core.usage import Outcome

_CHANCE = 0.001
_Z = NormalDist().inv_cdf(1 - _CHANCE)
# What is the model's or its engine's doing, and not the caller's.
_FAILED = frozenset({Outcome.ENGINE_FAILED, Outcome.ENGINE_TIMEOUT, Outcome.FAILED})
_COUNTED = _FAILED | {Outcome.OK, Outcome.CLIENT_GONE, Outcome.CLIENT_TOO_SLOW}
_SLOW = 0.95  # of the old revision's answers are faster
_LEAST_SPREAD = 0.25  # of marks
_LEAST_OLD = 50  # to know what is slow


class Answered(NamedTuple):
    """One settled request. `ttft_us` is None where nothing came."""

    outcome: str
    ttft_us: int | None
    duration_us: int
    tokens_out: int


class Thumbs(NamedTuple):
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Compared:
    """`worse` says in what the new one is surely worse; None while nothing is sure."""

    figures: dict[str, Any]
    worse: str | None


def compared(
    new: Sequence[Answered],
    old: Sequence[Answered],
    liked: Thumbs,
    liked_old: Thumbs,
    marked: Sequence[int],
    marked_old: Sequence[int],
    watch: Watch,
) -> Compared:
    sides = (_counted(new), _counted(old))
    figures = {
        name: _figures(side, thumbs, marks)
        for name, side, thumbs, marks in (
            ("new", sides[0], liked, marked),
            ("old", sides[1], liked_old, marked_old),
        )
    }
    worse = (
        _more_errors(*sides, watch)
        or _slower("first token", _firsts(sides[0]), _firsts(sides[1]), watch)
        or _slower("time between tokens", _between(sides[0]), _between(sides[1]), watch)
        or _less_liked(liked, liked_old, watch)
        or _marked_worse(marked, marked_old, watch)
    )
    return Compared(figures, worse)


def _counted(answered: Sequence[Answered]) -> list[Answered]:
    return [each for each in answered if each.outcome in _COUNTED]


def _failed(side: Sequence[Answered]) -> int:
    return sum(each.outcome in _FAILED for each in side)


def _firsts(side: Sequence[Answered]) -> list[float]:
    return [each.ttft_us for each in side if each.ttft_us is not None]


def _between(side: Sequence[Answered]) -> list[float]:
    return [
        (each.duration_us - each.ttft_us) / (each.tokens_out - 1)
        for each in side
        if each.ttft_us is not None and each.tokens_out > 1 and each.outcome == Outcome.OK
    ]


def _more_errors(new: Sequence[Answered], old: Sequence[Answered], watch: Watch) -> str | None:
    """Where nothing answered before, no error is taken for the usual."""
    if watch.errors is None or len(new) < watch.least:
        return None
    failed, failed_old = _failed(new), _failed(old)
    if not is_more((failed, len(new)), (failed_old, len(old)), watch.errors):
        return None
    before = f"{failed_old} of {len(old)} before" if old else "nothing answered before"
    return f"{failed} of {len(new)} requests failed, {before}"


def _slower(what: str, new: Sequence[float], old: Sequence[float], watch: Watch) -> str | None:
    """More of the new ones than one in twenty take so many times as long as all but one in twenty
    of the old ones. No shape of the times is assumed."""
    if watch.latency is None or len(new) < watch.least or len(old) < _LEAST_OLD:
        return None
    slow = quantile(old, _SLOW)
    late = sum(each > slow * watch.latency for each in new)
    if tail(late, len(new), 1 - _SLOW) >= _CHANCE:
        return None
    return (
        f"the {what} takes {quantile(new, _SLOW) / 1000:,.0f} ms at p95, {slow / 1000:,.0f} ms "
        "before"
    )


def _less_liked(liked: Thumbs, before: Thumbs, watch: Watch) -> str | None:
    count, count_before = sum(liked), sum(before)
    if watch.thumbs is None or min(count, count_before) < watch.least:
        return None
    if not is_more((liked.down, count), (before.down, count_before), watch.thumbs):
        return None
    return f"{liked.down} of {count} thumbs are down, {before.down} of {count_before} before"


def _marked_worse(marks: Sequence[int], before: Sequence[int], watch: Watch) -> str | None:
    """Welch's comparison of two means; marks that are all the same are taken to spread a little."""
    if watch.judge is None or min(len(marks), len(before)) < watch.least:
        return None
    means = [fmean(each) for each in (marks, before)]
    spread = math.sqrt(
        sum(max(_LEAST_SPREAD, variance(each)) / len(each) for each in (marks, before))
    )
    if means[1] - means[0] - watch.score <= _Z * spread:
        return None
    return f"{watch.judge} marks its answers {means[0]:.1f} of 10, {means[1]:.1f} before"


def is_more(new: tuple[int, int], old: tuple[int, int], by: float) -> bool:
    """Whether the new share is surely more than the old one by so much: two shares with one
    success and one failure added to each (Agresti and Caffo 2000)."""
    shares = [((count + 1) / (of + 2), of + 2) for count, of in (new, old)]
    if old[1] == 0:
        shares[1] = (0.0, 1)
    spread = math.sqrt(sum(share * (1 - share) / of for share, of in shares))
    return shares[0][0] - shares[1][0] - by > _Z * spread


def tail(count: int, of: int, chance: float) -> float:
    """The chance of so many or more."""
    return math.fsum(
        math.exp(
            math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
            + k * math.log(chance) + (of - k) * math.log1p(-chance)
        )
        for k in range(count, of + 1)
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _figures(side: Sequence[Answered], thumbs: Thumbs, marks: Sequence[int]) -> dict[str, Any]:
    firsts, between = _firsts(side), _between(side)
    return {
        "requests": len(side),
        "failed": _failed(side),
        "ttft_ms_p50": _ms(firsts, 0.5),
        "ttft_ms_p95": _ms(firsts, _SLOW),
        "token_ms_p95": _ms(between, _SLOW),
        "mark": round(fmean(marks), 2) if marks else None,
        "thumbs_up": thumbs.up,
        "thumbs_down": thumbs.down,
    }


def _ms(values: Sequence[float], share: float) -> float | None:
    return round(quantile(values, share) / 1000, 1) if values else None
