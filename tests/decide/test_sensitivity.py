"""What would change a decision, tried by planning all of the facts again."""

from dataclasses import replace
from datetime import date
from functools import cache

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.plan import Economics, Lengths, Rules, Way, Workload
from freehold.decide.compared.finalists import Case, finalists
from freehold.decide.compared.levers import levers
from freehold.decide.compared.sensitivity import sensitivity
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.ways.options import canonical
from freehold.decide.ways.planner import plan
from freehold.decide.ways.sizing import Sizing

_FACTS = load_facts()
_SIZING = Sizing(_FACTS)
_START = date(2026, 12, 1)
_MODELS = ("llama-3.1-8b", "mistral-7b-v0.1", "gpt-5-mini")
_WORK = Workload(
    "work",
    60_000,
    Lengths((1000,)),
    Lengths((200,)),
    region="us",
    models=_MODELS,
    rules=Rules(users_a_month=1000),
    economics=Economics(team_a_month=4000),
)


@cache
def _few(work, told=()):
    assumptions = Assumptions().given(dict(told))
    found = plan(work, _FACTS, _SIZING, start=_START, assumptions=assumptions)
    return finalists(found, work, _FACTS, _SIZING, start=_START, assumptions=assumptions)


@cache
def _found(work):
    return sensitivity(_few(work))


def _replanned(lever, value):
    """With all of the facts."""
    case = lever.put(Case(_WORK, _FACTS, Assumptions()), value)

    def replicas(option, workload):
        by = workload.requests_a_day / case.speed
        return _SIZING(option, replace(workload, requests_a_day=by))

    found = plan(case.workload, case.facts, replicas, start=_START, assumptions=case.assumptions)
    return found.ranked[0].option


def _levers(work):
    few = _few(work)
    return {each.name: each for each in levers(few.case, tuple(Way))}


def test_what_is_said_to_change_the_decision_does_when_all_is_planned_again():
    found = _found(_WORK)
    changes = [(each, change) for each in found.effects for change in each.changes]
    assert {change.is_way for _, change in changes} >= {True}
    for effect, change in changes:
        option = _replanned(_levers(_WORK)[effect.name], change.at)
        assert (option.way, canonical(option.model)) != (
            found.base.way,
            canonical(found.base.model),
        ), f"{effect.name} at {change.at}"


def test_what_is_not_said_to_change_it_does_not():
    found = _found(_WORK)
    still = [each for each in found.effects if not each.changes][:4]
    assert still
    for effect in still:
        for tried in effect.tried:
            option = _replanned(_levers(_WORK)[effect.name], tried.value)
            assert option.way is found.base.way


def test_what_it_costs_more_falls_below_zero_where_the_way_changes():
    found = _found(_WORK)
    assert found.base.margin > 0
    for effect in found.effects:
        for tried in effect.tried:
            if tried.margin is not None:
                assert (tried.margin < 0) is (tried.way is not found.base.way)


def test_the_value_of_a_change_is_between_what_was_told_and_what_was_tried():
    for effect in _found(_WORK).effects:
        for change in effect.changes:
            ends = [each.value for each in effect.tried]
            assert min(*ends, effect.base) <= change.at <= max(*ends, effect.base)
            assert change.at != effect.base


def test_months_are_told_whole():
    for effect in _found(_WORK).effects:
        if effect.unit == "months":
            assert all(each.at == int(each.at) for each in effect.changes)


def test_a_figure_of_one_s_own_is_varied_too():
    """Though a plan puts it over whatever it was made with."""
    own = replace(_WORK, assumptions=(("setup_days.api", 200.0),))
    effect = next(e for e in _found(own).effects if e.name == "Days of setting up")
    assert effect.spread > 0


def test_a_decision_between_apis_alone_has_no_levers_of_machines():
    only = replace(_WORK, models=("gpt-5-mini",))
    names = {each.name for each in _found(only).effects}
    assert "Prices of APIs" in names
    assert not {"Speed of machines", "Power, a kWh", "Prices of servers"} & names
    assert _found(only).against is None
    assert _found(only).base.margin is None


def test_where_nothing_is_possible_nothing_is_varied():
    assert _found(replace(_WORK, rules=Rules(users_a_month=1000, least_mmlu=99.9))) is None


@pytest.mark.parametrize("name", ["Prices of APIs", "Prices of rented machines"])
def test_prices_change_what_is_paid_and_nothing_else(name):
    few = _few(_WORK)
    lever = _levers(_WORK)[name]
    halved = few.again(lever.put(few.case, 0.5))
    first = {each.option.id: each for each in few.again(few.case).ranked}
    ways = {Way.API} if name == "Prices of APIs" else {Way.RENTED, Way.MANAGED}
    for each in halved.ranked:
        before = first.get(each.option.id)
        if before is None or each.option.way is Way.MIXED:
            continue
        if each.option.way in ways:
            assert each.over_horizon < before.over_horizon
        else:
            assert each.over_horizon == before.over_horizon
