"""When requests come and how long they are: drawn from a workload, or as they were recorded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freehold.core.errors import Code, UserError
from freehold.core.plan import Lengths, Workload

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
_STEPS = 100  # of the quantiles that lengths are summed up in


@dataclass(frozen=True, slots=True)
class Load:
    """Requests by time of arrival. `adapter` is a number for each adapter, -1 for the base;
    `span_s` is how long was watched, from 0."""

    at_s: NDArray[np.float64]
    prompt: NDArray[np.int64]
    answer: NDArray[np.int64]
    adapter: NDArray[np.int64]
    span_s: float

    def __len__(self) -> int:
        return len(self.at_s)


def rates(workload: Workload, days: int, first_day: int = 0) -> NDArray[np.float64]:
    """Requests of each hour, on average: the day's, shared out as `hours` and `weekdays` say
    (both scaled to a mean of 1), growing by the month of 365 / 12 days."""
    hours = np.array(workload.hours) / sum(workload.hours)
    weekdays = np.array(workload.weekdays) * 7 / sum(workload.weekdays)
    day = np.arange(first_day, first_day + days)
    grown = (1 + workload.growth_a_month) ** (day * 12 / 365)
    a_day = workload.requests_a_day * weekdays[day % 7] * grown
    shared: NDArray[np.float64] = np.outer(a_day, hours).ravel()
    return shared


def busiest_day(workload: Workload) -> int:
    """Of the last week that is planned for; days count from a Monday."""
    last = max(round(workload.horizon_months * 365 / 12) - 7, 0)
    week = rates(workload, 7, last).reshape(7, 24).max(axis=1)
    return last + int(np.argmax(week))


def arrivals(workload: Workload, days: int = 1, first_day: int = 0, seed: int = 0) -> Load:
    """A Poisson process whose rate is that of the hour: given how many come, they come at
    independent even times (Ross, Introduction to Probability Models, ch. 5). With `bursts`
    each minute's rate is multiplied by a gamma variable of mean 1 and that deviation (a Cox
    process). Lengths are drawn from the quantiles, so that their means are kept. The same
    seed draws the same."""
    dice = np.random.default_rng(seed)
    minutes = np.repeat(rates(workload, days, first_day) / 60, 60)
    if workload.bursts:
        shape = 1 / workload.bursts**2
        minutes = minutes * dice.gamma(shape, 1 / shape, len(minutes))
    counts = dice.poisson(minutes)
    begun = np.repeat(np.arange(len(minutes)) * float(MINUTE_S), counts)
    at_s = np.sort(begun + dice.random(len(begun)) * MINUTE_S)
    return Load(
        at_s,
        _drawn(workload.prompt, len(at_s), dice),
        _drawn(workload.answer, len(at_s), dice),
        _tenants(workload.tenants_with_adapters, len(at_s), dice),
        float(days * DAY_S),
    )


def steady(workload: Workload, a_second: float, span_s: float, seed: int = 0) -> Load:
    """A Poisson process of one rate, the same seed the same. With `bursts` each minute's rate
    has its level of the gamma variable, at equal steps of its distribution and in any order, so
    that a few minutes have together what many have. There is one request at least."""
    dice = np.random.default_rng(seed)
    minutes = max(round(span_s / MINUTE_S), 1)
    each_s = span_s / minutes
    levels = np.full(minutes, a_second * each_s)
    if workload.bursts:
        shape = 1 / workload.bursts**2
        drawn = np.sort(dice.gamma(shape, 1 / shape, (minutes, _STEPS)), axis=None)
        parts = drawn.reshape(minutes, _STEPS).mean(axis=1)
        levels *= dice.permutation(parts / parts.mean())
    counts = dice.poisson(levels)
    counts[0] += not counts.any()
    begun = np.repeat(np.arange(minutes) * each_s, counts)
    at_s = np.sort(begun + dice.random(len(begun)) * each_s)
    return Load(
        at_s,
        _drawn(workload.prompt, len(at_s), dice),
        _drawn(workload.answer, len(at_s), dice),
        _tenants(workload.tenants_with_adapters, len(at_s), dice),
        span_s,
    )


def _drawn(lengths: Lengths, count: int, dice: np.random.Generator) -> NDArray[np.int64]:
    values = np.array(lengths.quantiles, dtype=np.int64)
    chosen: NDArray[np.int64] = values[dice.integers(len(values), size=count)]
    return chosen


def _tenants(adapters: int, count: int, dice: np.random.Generator) -> NDArray[np.int64]:
    if not adapters:
        return np.full(count, -1, dtype=np.int64)
    return dice.integers(adapters, size=count, dtype=np.int64)


def quantiles(lengths: NDArray[np.int64]) -> Lengths:
    """At a hundred equal steps, each the mean of its hundredth, so that the mean of all is
    kept to half a token."""
    if len(lengths) <= _STEPS:
        return Lengths(tuple(int(each) for each in np.sort(lengths)))
    parts = np.array_split(np.sort(lengths), _STEPS)
    return Lengths(tuple(round(float(part.mean())) for part in parts))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a load looks like, in the words of a workload."""

    requests_a_day: float
    prompt: Lengths
    answer: Lengths
    hours: tuple[float, ...]
    weekdays: tuple[float, ...]
    bursts: float
    tenants_with_adapters: int


def traffic(load: Load, starts_at_s: float) -> Traffic:
    """`starts_at_s`: when the load's time 0 was, in seconds since 1970 (UTC). Hours and
    weekdays that were never watched get the mean of the others, and all are alike where less
    than a day, or a week, was watched."""
    if not len(load):
        raise UserError(
            Code.INVALID_VALUE, "There are no requests in it: nothing can be learned of them."
        )
    hour = ((starts_at_s + load.at_s) // HOUR_S).astype(np.int64)
    end_s = starts_at_s + load.span_s
    watched = np.arange(int(starts_at_s // HOUR_S), int(np.ceil(end_s / HOUR_S)))
    seen_s = np.minimum((watched + 1) * HOUR_S, end_s) - np.maximum(watched * HOUR_S, starts_at_s)
    # 1970 began on a Thursday.
    weekday_of, hour_of = (watched // 24 + 3) % 7, watched % 24
    counts = np.bincount(hour - watched[0], minlength=len(watched))[: len(watched)]
    whole_day, whole_week = load.span_s >= DAY_S, load.span_s >= 7 * DAY_S
    return Traffic(
        len(load) / load.span_s * DAY_S,
        quantiles(load.prompt),
        quantiles(load.answer),
        _rates(counts, seen_s, hour_of, 24) if whole_day else (1.0,) * 24,
        _rates(counts, seen_s, weekday_of, 7) if whole_week else (1.0,) * 7,
        burstiness(load),
        len(set(np.unique(load.adapter).tolist()) - {-1}),
    )


def _rates(
    counts: NDArray[np.int64], seen_s: NDArray[np.float64], group: NDArray[np.int64], size: int
) -> tuple[float, ...]:
    seen = np.bincount(group, weights=seen_s, minlength=size)
    sums = np.bincount(group, weights=counts, minlength=size)
    found = np.divide(sums, seen, out=np.zeros(size), where=seen > 0)
    found[seen == 0] = found[seen > 0].mean()
    return tuple(float(each) for each in found / found.mean())


def burstiness(load: Load) -> float:
    """How far the counts of minutes vary within their hour beyond Poisson's: of a count with
    mean m, the variance is m + (m * bursts)^2 when its rate varies so. Hours with no request
    say nothing."""
    minutes = int(load.span_s // HOUR_S) * 60
    if not minutes:
        return 0.0
    counts = np.bincount((load.at_s // MINUTE_S).astype(np.int64), minlength=minutes)[:minutes]
    by_hour = counts.reshape(-1, 60).astype(np.float64)
    mean = by_hour.mean(axis=1)
    beyond = by_hour.var(axis=1, ddof=1) - mean
    squares = float((mean**2).sum())
    return float(np.sqrt(max(float(beyond.sum()), 0.0) / squares)) if squares else 0.0
