"""What each way costs at other volumes, planned with the facts."""

from dataclasses import replace
from datetime import date
from functools import cache

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.plan import Economics, Lengths, Rules, Targets, Way, Workload
from freehold.decide.compared.breakeven import break_even, rounded
from freehold.decide.compared.finalists import finalists, scaled
from freehold.decide.ways.planner import plan
from freehold.decide.ways.sizing import Sizing

_FACTS = load_facts()
_SIZING = Sizing(_FACTS)
_START = date(2026, 12, 1)
_WORK = Workload(
    "work",
    300_000,
    Lengths((500, 1500)),
    Lengths((200,)),
    region="us",
    models=("llama-3.1-8b", "mistral-7b-v0.1", "gpt-5-mini"),
    rules=Rules(users_a_month=1000),
)
_OFFICE = replace(
    _WORK,
    hours=(0.2,) * 8 + (1.0,) * 10 + (0.2,) * 6,
    targets=Targets(ttft_ms=2000, availability=0.99),
    growth_a_month=0.03,
    economics=Economics(team_a_month=5000),
)
_WORKS = pytest.mark.parametrize("work", [_WORK, _OFFICE], ids=["even", "office"])


@cache
def _few(work):
    found = plan(work, _FACTS, _SIZING, start=_START)
    return finalists(found, work, _FACTS, _SIZING, start=_START)


@cache
def _found(work):
    return break_even(_few(work))


def _cheapest(found, way):
    return next(float(e.over_horizon) for e in found.ranked if e.option.way is way)


@_WORKS
def test_costs_rise_with_volume_on_every_curve(work):
    points = _found(work).points
    assert points[0].requests_a_day == pytest.approx(work.requests_a_day / 100)
    assert points[-1].requests_a_day == pytest.approx(work.requests_a_day * 100)
    for way in {way for point in points for way in point.by_way}:
        costs = [point.cost(way) for point in points if way in point.by_way]
        assert len(costs) > 3
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]


@_WORKS
def test_a_crossing_is_where_the_curves_cross(work):
    found = _found(work)
    assert any(each.is_cheapest for each in found.crossings)
    for each in found.crossings:
        before, after = (
            _few(work).at(replace(work, requests_a_day=each.at * by)) for by in (0.985, 1.0)
        )
        if not each.ends:
            assert _cheapest(after, each.above) < _cheapest(after, each.below)
        assert _cheapest(before, each.below) <= _cheapest(before, each.above)
        assert each.why.startswith(f"Above {rounded(each.at)} requests a day")


@_WORKS
def test_the_cheapest_way_changes_only_at_crossings(work):
    found = _found(work)
    named = [each for each in found.crossings if each.is_cheapest]
    way = found.points[0].way
    for each in named:
        assert each.below is way
        way = each.above
    assert way is found.points[-1].way


def test_at_its_own_volume_a_curve_is_the_plan():
    work = _WORK
    middle = _found(work).points[len(_found(work).points) // 2]
    whole = plan(work, _FACTS, _SIZING, start=_START)
    assert middle.requests_a_day == pytest.approx(work.requests_a_day)
    for way in (Way.API, Way.MANAGED, Way.RENTED, Way.OWNED):
        cheapest = _cheapest(whole, way)
        assert middle.cost(way) * work.horizon_months == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize("by", [0.01, 0.3, 30, 100])
def test_a_few_finalists_cost_nearly_what_the_best_of_all_would(by):
    asked = scaled(_WORK, by)
    whole, few = plan(asked, _FACTS, _SIZING, start=_START), _few(_WORK).at(asked)
    for way in (Way.API, Way.MANAGED, Way.RENTED, Way.OWNED):
        assert _cheapest(few, way) == pytest.approx(_cheapest(whole, way), rel=0.03)


def test_where_nothing_is_possible_there_are_no_curves():
    found = _found(replace(_WORK, rules=Rules(users_a_month=1000, least_mmlu=99.9)))
    assert found.points == found.crossings == ()


def test_a_volume_is_told_to_three_figures():
    assert [rounded(each) for each in (243_712, 9.876, 0.0123, 1_000_000)] == [
        "244,000",
        "9.88",
        "0.01",
        "1,000,000",
    ]
