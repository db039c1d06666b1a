"""Twenty-one companies whose right way was argued from the facts before anything was planned."""

from datetime import date
from functools import cache

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.plan import Way
from freehold.decide.ways.planner import Plan, plan
from freehold.decide.ways.rehearsal import Rehearsal
from freehold.decide.ways.sizing import Sizing
from tests.decide.cases import Case, read_cases

_FACTS = load_facts()
_CASES = read_cases(_FACTS)
each_case = pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)


@cache
def _planned(name: str) -> Plan:
    case = next(each for each in _CASES if each.name == name)
    sizing = Sizing(_FACTS, case.at_hand)
    return plan(
        case.workload,
        _FACTS,
        sizing,
        start=date(2026, 12, 1),
        at_hand=case.at_hand,
        simulates=Rehearsal(sizing),
    )


def test_there_are_twenty_one_and_each_way_is_right_for_somebody():
    assert len(_CASES) == 21
    assert {way for case in _CASES for way in case.ways} == {str(way) for way in Way}


@each_case
def test_the_cheapest_that_is_left_is_the_way_that_is_right(case: Case):
    best = _planned(case.name).ranked[0].option
    assert best.way in case.ways
    assert case.chosen in best.id


@each_case
def test_what_must_not_be_is_left_out_for_its_reason(case: Case):
    found = _planned(case.name)
    for words, why in case.rejected.items():
        assert not [each for each in found.ranked if each.option.id.startswith(words)]
        reasons = [
            reason
            for each in found.rejected
            if words in each.what
            for reason in (each.why, *(judged.why for judged in each.judged))
        ]
        assert any(why in reason for reason in reasons), (words, reasons)
