"""Arrivals drawn from a workload, and a workload read back from arrivals."""

import dataclasses

import numpy as np
import pytest

from freehold.core.errors import UserError
from freehold.core.plan import Lengths, Workload
from freehold.decide.load.arrivals import Load, arrivals, busiest_day, rates, traffic

OFFICE = tuple([0.1] * 8 + [2.0] * 10 + [0.5] * 6)
WEEK = (1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
WORK = Workload(
    name="help desk",
    requests_a_day=20_000,
    prompt=Lengths((100, 200, 300, 1000)),
    answer=Lengths((10, 30, 50, 150)),
    hours=OFFICE,
    weekdays=WEEK,
)
MONDAY_S = 4 * 86_400.0  # 1970-01-05


def test_a_day_has_the_requests_of_its_hours() -> None:
    load = arrivals(WORK, days=7)
    by_hour = np.bincount((load.at_s // 3600).astype(int), minlength=7 * 24)
    expected = rates(WORK, 7)
    # Poisson: within five deviations each.
    assert (abs(by_hour - expected) < 5 * np.sqrt(expected) + 1).all()
    assert len(load) == pytest.approx(20_000 * 7, rel=0.02)
    assert (np.diff(load.at_s) >= 0).all()
    assert load.span_s == 7 * 86_400


def test_gaps_within_an_hour_are_exponential() -> None:
    load = arrivals(dataclasses.replace(WORK, hours=(1.0,) * 24, weekdays=(1.0,) * 7))
    gaps = np.diff(load.at_s)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.03)
    share_above_mean = (gaps > gaps.mean()).mean()
    assert share_above_mean == pytest.approx(np.exp(-1), abs=0.015)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    one, same, other = arrivals(WORK, seed=1), arrivals(WORK, seed=1), arrivals(WORK, seed=2)
    assert np.array_equal(one.at_s, same.at_s)
    assert np.array_equal(one.prompt, same.prompt)
    assert not np.array_equal(one.at_s[:10], other.at_s[:10])


def test_lengths_keep_their_means() -> None:
    load = arrivals(WORK, days=7)
    assert load.prompt.mean() == pytest.approx(WORK.prompt.mean, rel=0.02)
    assert load.answer.mean() == pytest.approx(WORK.answer.mean, rel=0.02)


def test_growth_counts_by_the_month() -> None:
    growing = dataclasses.replace(WORK, growth_a_month=0.1, horizon_months=12)
    year = rates(growing, 7, 364).sum() / rates(WORK, 7).sum()
    assert year == pytest.approx(1.1**12, rel=0.01)
    assert rates(growing, 1, busiest_day(growing)).max() > rates(growing, 1, 0).max() * 2.9


def test_the_busiest_day_is_one_of_the_busy_weekdays_at_the_end() -> None:
    fridays = dataclasses.replace(WORK, weekdays=(1, 1, 1, 1, 3, 0, 0))
    assert busiest_day(fridays) % 7 == 4


@pytest.mark.parametrize("bursts", [0.0, 0.5, 1.5])
def test_bursts_are_found_again(bursts: float) -> None:
    bursty = dataclasses.replace(WORK, bursts=bursts, requests_a_day=100_000)
    found = traffic(arrivals(bursty, days=7), MONDAY_S)
    assert found.bursts == pytest.approx(bursts, abs=0.08)
    assert found.requests_a_day == pytest.approx(100_000, rel=0.05)


def test_a_workload_is_read_back_from_its_arrivals() -> None:
    several = dataclasses.replace(WORK, tenants_with_adapters=7)
    found = traffic(arrivals(several, days=14), MONDAY_S)
    assert np.array(found.hours) == pytest.approx(np.array(OFFICE) / np.mean(OFFICE), abs=0.1)
    assert np.array(found.weekdays) == pytest.approx(np.array(WEEK) / np.mean(WEEK), abs=0.05)
    assert found.prompt.mean == pytest.approx(WORK.prompt.mean, rel=0.02)
    assert found.tenants_with_adapters == 7


def test_what_was_watched_for_an_hour_says_nothing_of_nights() -> None:
    load = arrivals(WORK)
    noon = (load.at_s >= 43_200) & (load.at_s < 46_800)
    chosen = Load(
        load.at_s[noon] - 43_200,
        load.prompt[noon],
        load.answer[noon],
        load.adapter[noon],
        3600.0,
    )
    found = traffic(chosen, MONDAY_S + 43_200)
    assert found.hours == (1.0,) * 24
    assert found.weekdays == (1.0,) * 7


def test_no_requests_teach_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(UserError, match="no requests"):
        traffic(Load(np.zeros(0), none, none, none, 60.0), MONDAY_S)
