"""How long prompts and answers are, as people know it: one number, two percentiles, a
histogram, or quantiles."""

import math
from statistics import NormalDist
from typing import Any

from freehold.config.quantity import any_share, whole
from freehold.core.plan import Lengths

_STEPS = 32
_FORMS = (
    "a number of tokens, {p50: 200, p95: 800}, {histogram: {256: 70 %, 1k: 30 %}} or "
    "{quantiles: [...]}"
)
_Z95 = NormalDist().inv_cdf(0.95)
_LONGEST = 10_000_000


def lengths(value: Any) -> Lengths:
    """Raises `ValueError` with what is wrong."""
    if isinstance(value, Lengths):
        return value
    if not isinstance(value, dict):
        return _checked((whole(value),))
    if set(value) <= {"p50", "p95"} and len(value) == 2:
        return _checked(_lognormal(whole(value["p50"]), whole(value["p95"])))
    if set(value) == {"histogram"}:
        return _checked(_of_histogram(value["histogram"]))
    if set(value) == {"quantiles"} and isinstance(value["quantiles"], list):
        found = tuple(whole(each) for each in value["quantiles"])
        if list(found) != sorted(found):
            raise ValueError("quantiles must begin with the least")
        return _checked(found)
    raise ValueError(f"must be {_FORMS}")


def _checked(found: tuple[int, ...]) -> Lengths:
    if not found or len(found) > 10_000:
        raise ValueError(f"must be {_FORMS}")
    if found[0] < 1:
        raise ValueError("must be at least one token: a request without one asks nothing")
    if found[-1] > _LONGEST:
        raise ValueError(f"{found[-1]:,} tokens is longer than any model reads")
    return Lengths(found)


def _lognormal(p50: int, p95: int) -> tuple[int, ...]:
    """A length whose logarithm is normal, as the lengths of recorded requests mostly are (Patel
    et al., Splitwise, ISCA 2024, fig. 3), with these percentiles: the deviation of the
    logarithm is ln(p95 / p50) / 1.645. In the middle of each of 32 equal steps."""
    if p50 < 1 or p95 < p50:
        raise ValueError(f"p95 must not be below p50, and {p95:,} is below {max(p50, 1):,}")
    deviation = math.log(p95 / p50) / _Z95
    middles = [NormalDist().inv_cdf((step + 0.5) / _STEPS) for step in range(_STEPS)]
    return tuple(max(round(p50 * math.exp(deviation * z)), 1) for z in middles)


def _of_histogram(value: Any) -> tuple[int, ...]:
    """Names are the most tokens of each bar, values its share; evenly spread within a bar."""
    if not isinstance(value, dict) or not value:
        raise ValueError("histogram must hold shares by length: {256: 70 %, 1k: 30 %}")
    bars = [(whole(most), any_share(part)) for most, part in value.items()]
    mosts = [most for most, _ in bars]
    if mosts != sorted(set(mosts)):
        raise ValueError("histogram must begin with the shortest, each length once")
    total = sum(part for _, part in bars)
    if abs(total - 1) > 0.005:
        raise ValueError(f"the shares of histogram are {total:.1%} in all and must be 100 %")
    found, least, reached, index = [], 0, 0.0, 0
    for step in range(_STEPS * 2):
        wanted = (step + 0.5) / (_STEPS * 2) * total
        while index < len(bars) - 1 and wanted > reached + bars[index][1]:
            least, reached, index = bars[index][0], reached + bars[index][1], index + 1
        most, part = bars[index]
        within = min(max((wanted - reached) / part, 0), 1) if part else 1.0
        found.append(max(round(least + (most - least) * within), 1))
    return tuple(found)
