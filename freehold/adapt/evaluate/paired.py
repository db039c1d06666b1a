"""Two that answered the same questions, compared question by question."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from freehold.adapt.evaluate.shares import needed

_LEVEL = 0.05
_RESAMPLES = 10_000
_SEED = 20_261
BETTER, WORSE, SAME = "better", "worse", "not told apart at 95 %"


@dataclass(frozen=True, slots=True)
class Compared:
    """`difference` is the candidate's share less the incumbent's, with its interval at 95 %
    by a paired bootstrap; the verdict is by McNemar's exact test."""

    of: int
    wins: int  # the candidate alone passes
    losses: int  # the incumbent alone passes
    difference: float
    low: float
    high: float
    p: float
    verdict: str
    needed: int | None


def compare(candidate: Sequence[bool], incumbent: Sequence[bool]) -> Compared:
    wins = sum(one and not other for one, other in zip(candidate, incumbent, strict=True))
    losses = sum(other and not one for one, other in zip(candidate, incumbent, strict=True))
    of = len(candidate)
    low, high = _interval(wins, losses, of)
    p = exact_p(wins, losses)
    difference = (wins - losses) / of if of else 0.0
    return Compared(
        of, wins, losses, difference, low, high, p, verdict(difference, p), needed(wins, losses, of)
    )


def verdict(difference: float, p: float) -> str:
    if p >= _LEVEL or difference == 0:
        return SAME
    return BETTER if difference > 0 else WORSE


def exact_p(wins: int, losses: int) -> float:
    """Both sides: how often a fair coin falls as far from the middle, or farther."""
    tosses, fewer = wins + losses, min(wins, losses)
    if tosses == 0:
        return 1.0
    logs = (
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * sum(math.exp(each - tosses * math.log(2)) for each in logs))


def adjusted(ps: Sequence[float]) -> list[float]:
    """Holm's: of twenty comparisons that differ in nothing, one would be told apart."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    made, most = [1.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        most = max(most, min(1.0, ps[at] * (len(ps) - rank)))
        made[at] = most
    return made


def _interval(wins: int, losses: int, of: int) -> tuple[float, float]:
    if of == 0:
        return -1.0, 1.0
    if wins + losses == 0:
        # Resampling what never differs says that it never will. After `of` tries without
        # one, an event is rarer than 3 in `of`, at 95 %.
        return -min(1.0, 3 / of), min(1.0, 3 / of)
    import numpy as np

    chances = [wins / of, losses / of, max(0.0, 1 - (wins + losses) / of)]
    drawn = np.random.default_rng(_SEED).multinomial(of, chances, _RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / of, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(scores: Sequence[float]) -> tuple[float, float]:
    """Of the mean, by resampling; nothing is known where there is none."""
    if not scores:
        return 0.0, 1.0
    if len(set(scores)) == 1:
        # As above: what was never seen is rarer than 3 in so many.
        room = min(1.0, 3 / len(scores))
        return max(0.0, scores[0] - room), min(1.0, scores[0] + room)
    import numpy as np

    values, counts = np.unique(np.array(scores), return_counts=True)
    drawn = np.random.default_rng(_SEED).multinomial(len(scores), counts / len(scores), _RESAMPLES)
    low, high = np.quantile(drawn @ values / len(scores), [0.025, 0.975])
    return float(low), float(high)
