"""Shares with the interval that they lie in at 95 %."""

import math
from dataclasses import dataclass
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)
_POWER_Z = NormalDist().inv_cdf(0.8)
_MOST_NEEDED = 1_000_000


@dataclass(frozen=True, slots=True)
class Share:
    """`low` and `high` are Wilson's interval, which holds for few and for all alike."""

    passed: int
    of: int
    share: float | None
    low: float
    high: float


def share(passed: int, of: int) -> Share:
    if of == 0:
        return Share(0, 0, None, 0.0, 1.0)
    p, spread = passed / of, Z * Z / of
    middle = (p + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(p * (1 - p) / of + spread / (4 * of))
    low = 0.0 if passed == 0 else max(0.0, middle - half)
    high = 1.0 if passed == of else min(1.0, middle + half)
    return Share(passed, of, p, low, high)


def widest_half(of: int) -> float:
    """Half the interval where it is widest, which is at one half."""
    middle = share(of // 2, of)
    return (middle.high - middle.low) / 2


def needed(wins: int, losses: int, of: int) -> int | None:
    """How many examples tell a difference like this one apart in four of five tries (Connor
    1987); None where no difference was seen, or nobody has that many."""
    if of == 0 or wins == losses:
        return None
    apart, shift = (wins + losses) / of, (wins - losses) / of
    found = (Z * math.sqrt(apart) + _POWER_Z * math.sqrt(max(0.0, apart - shift**2))) ** 2
    return rounded if (rounded := math.ceil(found / shift**2)) <= _MOST_NEEDED else None
