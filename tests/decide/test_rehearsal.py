"""The busiest hour, simulated: how many replicas it says, and what a plan makes of that."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from freehold.catalog.facts import load_facts
from freehold.core.plan import (
    Basis,
    Lengths,
    Option,
    Precision,
    Predicted,
    Rules,
    Targets,
    Way,
    Workload,
)
from freehold.decide.load.arrivals import Load, steady
from freehold.decide.load.replica import Batching
from freehold.decide.load.simulate import capacity, simulate
from freehold.decide.ways.planner import plan
from freehold.decide.ways.rehearsal import Corrected, Rehearsal
from freehold.decide.ways.sizing import Needed, Sizing
from tests.decide.plain import Linear

_FACTS = load_facts()
_SIZING = Sizing(_FACTS)
_REHEARSAL = Rehearsal(_SIZING)
_OPTION = Option("o", Way.OWNED, "llama-3.1-8b", None, Precision.FP8, "l4", 1)
_WORK = Workload(
    "work",
    86_400 * 6,
    Lengths((400, 1200)),
    Lengths((100, 300)),
    region="us",
    models=("llama-3.1-8b", "mistral-7b-v0.1", "gpt-5-mini"),
    targets=Targets(ttft_ms=2000, tpot_ms=90),
    rules=Rules(users_a_month=1000),
)


def _needed(work: Workload, about: int = 5) -> Needed:
    found = _REHEARSAL(_OPTION, work, about)
    assert isinstance(found, Needed), found
    return found


def test_what_is_predicted_meets_the_targets_and_is_what_is_asked_for() -> None:
    found = _needed(_WORK).predicted
    assert found.basis is Basis.SIMULATED
    assert found.ttft_ms is not None
    assert found.tpot_ms is not None
    assert found.ttft_ms <= 2000
    assert found.tpot_ms <= 90
    assert found.tokens_per_s == pytest.approx(6 * 200, rel=0.1)


def test_what_the_closed_form_says_only_shortens_the_way() -> None:
    numbers = {_needed(_WORK, about).replicas for about in (1, 3, 8, 40)}
    assert max(numbers) - min(numbers) <= 1


def test_ten_times_as_much_takes_about_ten_times_as_many() -> None:
    few = _needed(_WORK).replicas
    many = _needed(replace(_WORK, requests_a_day=_WORK.requests_a_day * 10), few * 10).replicas
    assert 0.85 * 10 * (few - 1) <= many <= 10 * few


def test_harder_targets_and_bursts_take_more() -> None:
    number = _needed(_WORK).replicas
    harder = replace(_WORK, targets=Targets(ttft_ms=400, tpot_ms=60))
    assert _needed(harder).replicas > number
    assert _needed(replace(_WORK, bursts=0.8)).replicas > number


def test_without_targets_the_ceiling_of_utilization_is_left_free() -> None:
    work = replace(_WORK, targets=Targets(), requests_a_day=_WORK.requests_a_day * 4)
    economics = replace(work.economics, utilization_ceiling=0.25)
    assert _needed(replace(work, economics=economics)).replicas >= 2.5 * _needed(work).replicas


def test_what_no_number_reaches_is_said() -> None:
    why = _REHEARSAL(_OPTION, replace(_WORK, targets=Targets(tpot_ms=5)), 3)
    assert isinstance(why, str)
    assert why.startswith("Simulated, even alone on a replica, TPOT at p95 is ")


def test_a_replica_with_one_place_ends_one_after_the_other() -> None:
    times, count = Linear(pair=0, look=0), 200
    crowd = Load(np.zeros(count), np.full(count, 500), np.full(count, 11), np.full(count, -1), 1.0)
    each_s = (0.01 + 500 * 2e-5) + 10 * (0.01 + 1e-4)
    found = capacity(crowd, times, Batching(sequences=1, step_tokens=500))
    assert found == pytest.approx(1 / each_s, rel=0.02)


@pytest.mark.parametrize("sequences", [4, 64])
def test_below_its_capacity_a_replica_keeps_up_and_above_it_does_not(sequences: int) -> None:
    times, batching = Linear(), Batching(sequences=sequences)
    work = replace(_WORK, bursts=0.0)
    full = capacity(
        replace(steady(work, 1000, 1.0), at_s=np.zeros(len(steady(work, 1000, 1.0)))),
        times,
        batching,
    )
    waits = [
        simulate(steady(work, full * share, 600.0), times, 1, batching).wait_s.p95
        for share in (0.8, 1.2)
    ]
    assert waits[0] < 5 < 40 < waits[1]


def test_bursts_are_in_a_few_minutes_as_in_many() -> None:
    work = replace(_WORK, bursts=1.0)
    load = steady(work, 50, 600.0)
    counts = np.bincount((load.at_s // 60).astype(np.int64), minlength=10)
    assert counts.sum() == pytest.approx(30_000, rel=0.05)
    assert 0.7 < counts.std() / counts.mean() < 1.1
    again = steady(work, 50, 600.0)
    assert (again.at_s == load.at_s).all()


# What a plan makes of it.


def _plan(simulates, work=_WORK):
    return plan(work, _FACTS, _SIZING, start=date(2026, 12, 1), simulates=simulates)


def test_the_best_few_of_each_way_are_simulated_and_with_them_the_winner() -> None:
    found = _plan(_REHEARSAL).ranked
    hosted = [each for each in found if each.sized is not None]
    for way in (Way.RENTED, Way.MANAGED, Way.OWNED):
        of_way = [each for each in hosted if each.option.way is way]
        assert of_way[0].predicted.basis is Basis.SIMULATED
    assert {each.predicted.basis for each in hosted} == {Basis.SIMULATED, Basis.CLOSED_FORM}
    assert [each.over_horizon for each in found] == sorted(each.over_horizon for each in found)


def _told(replicas: int):
    predicted = Predicted(Basis.SIMULATED, 1.0, 1.0, 1.0, 1.0)
    return lambda option, workload, about: Needed(replicas, predicted)


def test_numbers_and_costs_are_those_of_the_simulation() -> None:
    few, many = (_plan(_told(count)).ranked for count in (4, 40))
    for found, count in ((few, 4), (many, 40)):
        simulated = [each for each in found if each.predicted.basis is Basis.SIMULATED]
        owned = [each for each in simulated if each.option.way is Way.OWNED]
        assert owned
        assert all(each.sized.at_peak == count for each in simulated)
        assert all(f"{count * each.option.accelerators_a_replica} {each.option.accelerator} ×"
                   in each.cost.parts[0].formula for each in owned)  # fmt: skip
    assert few[0].over_horizon < many[0].over_horizon


def test_what_becomes_dear_makes_room_for_what_is_next_and_that_is_simulated_too() -> None:
    asked = []

    def simulates(option, workload, about):
        asked.append(option.id)
        return Needed(about * 3, _told(1)(option, workload, about).predicted)

    found = _plan(simulates)
    best = next(each for each in found.ranked if each.sized is not None)
    assert best.predicted.basis is Basis.SIMULATED
    assert len(set(asked)) == len(asked)


def test_what_no_number_of_replicas_does_is_left_out_with_the_reason() -> None:
    found = _plan(lambda option, workload, about: "Simulated, it is too slow.")
    assert not any(each.predicted.basis is Basis.SIMULATED for each in found.ranked if each.sized)
    reasons = [each for each in found.rejected if each.why == "Simulated, it is too slow."]
    assert reasons
    first = reasons[0].what.split(" on ")[0].split(" ")[0]
    assert first in {"llama-3.1-8b", "mistral-7b-v0.1"}


def test_a_mix_is_sized_as_what_it_is_made_of() -> None:
    busy = replace(_WORK, requests_a_day=_WORK.requests_a_day * 4, hours=(1.0,) * 23 + (9.0,))
    found = _plan(_REHEARSAL, busy).ranked
    mixed = next(each for each in found if each.option.way is Way.MIXED)
    own = next(
        each
        for each in found
        if each.option.way is Way.OWNED
        and each.option.accelerator == mixed.option.accelerator
        and each.option.precision == mixed.option.precision
        and each.option.model == mixed.option.model
    )
    assert mixed.predicted == own.predicted
    assert mixed.predicted.basis is Basis.SIMULATED
    assert mixed.sized.at_peak == own.sized.at_peak
    assert mixed.sized.replicas < own.sized.at_peak
    assert mixed.over_horizon > Decimal(0)


def test_at_other_volumes_the_closed_form_keeps_the_ratio_that_the_simulation_found() -> None:
    found = plan(
        _WORK,
        _FACTS,
        _SIZING,
        start=date(2026, 12, 1),
        simulates=lambda option, workload, about: Needed(
            about * 3, _told(1)("", _WORK, 1).predicted
        ),
    )
    first = next(
        each for each in found.ranked if each.sized and each.predicted.basis is Basis.SIMULATED
    )
    again = Corrected(_SIZING, found, _WORK)
    twice = replace(_WORK, requests_a_day=_WORK.requests_a_day * 2)
    assert again(first.option, _WORK).replicas == first.sized.at_peak
    assert again(first.option, twice).replicas == 3 * _SIZING(first.option, twice).replicas
    other = next(
        each.option for each in found.ranked
        if each.sized and each.predicted.basis is Basis.CLOSED_FORM
    )  # fmt: skip
    assert again(other, twice) == _SIZING(other, twice)
