"""What a workload turned out to be, from what was metered of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freehold.core.plan import Lengths, Workload
from freehold.decide.load.arrivals import quantiles

_HOUR_S, _DAY_S = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Between two times, in seconds since 1970. Shapes of days and weeks are None where less
    than one was watched, times where nothing says them."""

    since_s: float
    until_s: float
    requests: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_a_second_busy: float  # of answers, in the busiest hour
    prompts: tuple[int, ...]  # quantiles
    answers: tuple[int, ...]
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    tpot_p50_ms: float | None
    tpot_p95_ms: float | None
    hours: tuple[float, ...] | None
    weekdays: tuple[float, ...] | None

    @property
    def days(self) -> float:
        return (self.until_s - self.since_s) / _DAY_S

    @property
    def requests_a_day(self) -> float:
        return self.requests / self.days if self.days else 0.0


def measured(
    hours: Sequence[tuple[int, int, int, int, int]],
    sample: Iterable[tuple[int, int, int | None, int | None]],
    since_s: float,
    until_s: float,
) -> Measured:
    """`hours` are those in which something was answered: the hour since 1970, requests, tokens
    in, out and cached. `sample` has tokens in and out of single requests, the time to the first
    token and the whole, in microseconds."""
    whole = np.array(hours, dtype=np.int64).reshape(-1, 5)
    some = list(sample)
    first = [each[2] / 1000 for each in some if each[2] is not None]
    # A first token is there before those that are counted between it and the end.
    between = [
        (whole_us - first_us) / (made - 1) / 1000
        for _, made, first_us, whole_us in some
        if first_us is not None and whole_us is not None and made > 1
    ]
    busiest = int(whole[:, 3].max()) if len(whole) else 0
    watched_s = min(max(until_s - since_s, 1.0), _HOUR_S)
    by_hour, by_weekday = _shapes(whole, since_s, until_s)
    return Measured(
        since_s, until_s,
        int(whole[:, 1].sum()), int(whole[:, 2].sum()), int(whole[:, 3].sum()),
        int(whole[:, 4].sum()),
        tokens_a_second_busy=busiest / watched_s,
        prompts=_lengths(each[0] for each in some),
        answers=_lengths(each[1] for each in some),
        ttft_p50_ms=_quantile(first, 50), ttft_p95_ms=_quantile(first, 95),
        tpot_p50_ms=_quantile(between, 50), tpot_p95_ms=_quantile(between, 95),
        hours=by_hour, weekdays=by_weekday,
    )  # fmt: skip


def read(plain: Mapping[str, Any]) -> Measured:
    """From `dataclasses.asdict`, through JSON."""
    lists = ("prompts", "answers", "hours", "weekdays")
    given = {name: plain[name] and tuple(plain[name]) for name in lists}
    return Measured(**{**plain, **given, "prompts": given["prompts"] or (),
                       "answers": given["answers"] or ()})  # fmt: skip


def as_measured(workload: Workload, found: Measured) -> Workload:
    """The workload that came, under the rules and targets of the one that was planned."""
    read_before = found.tokens_cached / found.tokens_in if found.tokens_in else 0.0
    return replace(
        workload,
        requests_a_day=found.requests_a_day,
        prompt=Lengths(found.prompts) if found.prompts else workload.prompt,
        answer=Lengths(found.answers) if found.answers else workload.answer,
        hours=found.hours or workload.hours,
        weekdays=found.weekdays or workload.weekdays,
        cached_share=min(read_before, 0.99),
    )


def _lengths(values: Iterable[int]) -> tuple[int, ...]:
    found = np.array([max(each, 1) for each in values], dtype=np.int64)
    return quantiles(found).quantiles if len(found) else ()


def _quantile(values: Sequence[float], share: int) -> float | None:
    return float(np.percentile(values, share)) if values else None


def _shapes(
    whole: NDArray[np.int64], since_s: float, until_s: float
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Requests by the hour of the day and by the day of the week, in UTC, for as long as each
    was watched."""
    watched = np.arange(int(since_s // _HOUR_S), max(int(-(-until_s // _HOUR_S)), 1))
    if until_s - since_s < _DAY_S or not len(whole):
        return None, None
    counts = np.zeros(len(watched))
    counts[np.clip(whole[:, 0] - watched[0], 0, len(watched) - 1)] += whole[:, 1]
    # 1970 began on a Thursday.
    hours = _means(counts, watched % 24, 24)
    weekdays = _means(counts, (watched // 24 + 3) % 7, 7)
    return hours, weekdays if until_s - since_s >= 7 * _DAY_S else None


def _means(counts: NDArray[np.float64], group: NDArray[np.int64], size: int) -> tuple[float, ...]:
    seen = np.bincount(group, minlength=size)
    sums = np.bincount(group, weights=counts, minlength=size)
    found = np.divide(sums, seen, out=np.zeros(size), where=seen > 0)
    return tuple(float(each) for each in found)
