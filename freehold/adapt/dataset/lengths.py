"""How long examples are, in words or in tokens of the base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Ruler:
    """`limit` is the context of the base, where one is known."""

    unit: str
    measure: Callable[[str], int]
    limit: int | None = None


def report(ruler: Ruler, lengths: Sequence[int]) -> dict[str, Any]:
    values = np.asarray(lengths)
    low, middle, high = (int(each) for each in np.percentile(values, (5, 50, 95)))
    longer = None if ruler.limit is None else int((values > ruler.limit).sum())
    return {
        "unit": ruler.unit,
        "total": int(values.sum()),
        "shortest": int(values.min()),
        "p5": low,
        "median": middle,
        "p95": high,
        "longest": int(values.max()),
        "context": ruler.limit,
        "longer_than_context": longer,
    }
