"""How much is asked for: of a month over the horizon, and of each hour of a week."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import lcm

from freehold.core.plan import Lengths, Workload
from freehold.decide.money.money import MONTH_DAYS, exact, shown


@lru_cache(maxsize=16)  # of one decision, thousands of options ask
def growth(workload: Workload) -> tuple[Decimal, ...]:
    """By how much each month of the horizon is above the first: (1 + g)^m."""
    rate = 1 + exact(workload.growth_a_month)
    return tuple(rate**month for month in range(workload.horizon_months))


@lru_cache(maxsize=16)
def mean_growth(workload: Workload) -> Decimal:
    steps = growth(workload)
    return sum(steps, Decimal(0)) / len(steps)


def requests_a_month(workload: Workload) -> Decimal:
    """Of the mean month of the horizon."""
    return exact(workload.requests_a_day) * MONTH_DAYS * mean_growth(workload)


@lru_cache(maxsize=16)
def requests_in_words(workload: Workload) -> str:
    words = f"{shown(workload.requests_a_day)} requests a day × {shown(MONTH_DAYS, 4)} days"
    if workload.growth_a_month:
        words += (
            f" × {shown(mean_growth(workload), 4)} (the mean of {workload.horizon_months} months"
            f" that grow by {shown(workload.growth_a_month * 100)} % each)"
        )
    return words


def longest(workload: Workload) -> int:
    """Tokens of context that the longest request has, or as many as are asked for."""
    both = max(workload.prompt.quantiles) + max(workload.answer.quantiles)
    return max(both, workload.context_length or 0)


def mean(lengths: Lengths) -> Decimal:
    return Decimal(sum(lengths.quantiles)) / len(lengths.quantiles)


@lru_cache(maxsize=16)
def hourly(workload: Workload) -> tuple[Fraction, ...]:
    """Requests in each hour of an ordinary week, the first month's, as shares of exact sums."""
    hours = [Fraction(str(each)) for each in workload.hours]
    days = [Fraction(str(each)) for each in workload.weekdays]
    week = Fraction(str(workload.requests_a_day)) * len(days)
    whole = sum(hours) * sum(days)
    return tuple(week * day * hour / whole for day in days for hour in hours)


@lru_cache(maxsize=16)
def peak(workload: Workload) -> Fraction:
    return max(hourly(workload))


@lru_cache(maxsize=16)
def _levels(workload: Workload) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Demand of an hour and how many hours of the week have it, most of which are alike: whole
    numbers, of the parts of a request that are told first."""
    hours = hourly(workload)
    parts = lcm(*(each.denominator for each in hours))
    return parts, tuple(Counter(int(each * parts) for each in hours).items())


@dataclass(frozen=True, slots=True)
class Split:
    """Of an hourly demand curve at a capacity: what stays below it is own, the rest is bought."""

    own: Fraction  # shares of all requests
    bought: Fraction
    hours_above: int  # of a week


@lru_cache(maxsize=1024)
def split(workload: Workload, capacity_an_hour: Fraction) -> Split:
    """Σ min(d_h, C) ÷ Σ d_h over the 168 hours of a week: the load-duration curve by which
    power stations are chosen for base and peak."""
    parts, demand = _levels(workload)
    limit, scale = capacity_an_hour.numerator * parts, capacity_an_hour.denominator
    whole = sum(each * hours for each, hours in demand) * scale
    own = Fraction(sum(min(each * scale, limit) * hours for each, hours in demand), whole)
    above = sum(hours for each, hours in demand if each * scale > limit)
    return Split(own, 1 - own, above)


@lru_cache(maxsize=1024)
def replica_hours(workload: Workload, replicas: int) -> Decimal:
    """Hours of replicas a month where as many run in each hour as its demand needs: an hour
    that has a share of the peak's demand needs that share of its replicas, rounded up."""
    _, demand = _levels(workload)
    most = max(each for each, _ in demand)
    needed = sum(-((-each * replicas) // most) * hours for each, hours in demand)
    return Decimal(needed) * MONTH_DAYS / 7
