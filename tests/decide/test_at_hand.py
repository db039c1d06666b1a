"""The machine that is there: by what was measured on it, or by what the facts know."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.facts import Accelerator
from freehold.core.plan import Economics, Lengths, Precision, Targets, Way, Workload
from freehold.decide.money import machines
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.machines import Costs
from freehold.decide.speed.memory import OPENVINO_INT8, Q4_K_M
from freehold.decide.speed.throughput import measured_hardware
from freehold.decide.ways.at_hand import NOTHING_MEASURED, THIS, AtHand, Measurement
from freehold.decide.ways.planner import plan
from freehold.decide.ways.sizing import Sizing

_FACTS = load_facts()
_SMALL, _OTHER = _FACTS.models["qwen3-0.6b"], _FACTS.models["smollm2-1.7b"]
_MACHINE = Accelerator(
    THIS, "A processor, 2 cores", "", "cpu", 24.0, None, None, None, None, None, None, None, (),
    cores=2,
)  # fmt: skip
_HARDWARE = measured_hardware(_SMALL, OPENVINO_INT8, 600.0, 150.0, 8, 200, 50)
_HERE = AtHand(
    _MACHINE, measured=(Measurement("qwen3-0.6b-instruct", "openvino", OPENVINO_INT8, _HARDWARE),)
)
_WORK = Workload(
    "work", 500, Lengths((100, 300)), Lengths((50,)), models=(_SMALL.id, _OTHER.id, "gpt-5-nano")
)


def _plan(here, work=_WORK):
    return plan(work, _FACTS, Sizing(_FACTS, here), start=date(2026, 12, 1), at_hand=here)


def _here(found):
    return [each for each in found.ranked if each.option.way is Way.AT_HAND]


def test_step_times_are_those_that_were_measured():
    times = _HERE.times(_SMALL, Precision.INT8, 400, 0, 16)
    assert 8 / times.decode_s(8, 8 * 25) == pytest.approx(150, rel=0.01)
    assert 200 / times.prefill_s(200, 0) == pytest.approx(600, rel=0.01)


def test_a_model_that_was_measured_here_is_told_from_one_that_is_computed():
    by_model = {(each.option.model, each.option.precision): each for each in _here(_plan(_HERE))}
    [measured] = by_model[_SMALL.id, Precision.INT8].notes
    assert measured == "Its step times were measured on this machine, with openvino."
    [computed] = by_model[_SMALL.id, Precision.INT4].notes
    assert "computed from those that were measured on this machine in int8, with" in computed
    [computed] = by_model[_OTHER.id, Precision.INT8].notes
    assert "computed from those of qwen3-0.6b-instruct with openvino" in computed
    assert "`freehold bench MODEL --autotune`" in computed


def test_a_larger_model_is_slower_here():
    own, larger = (_HERE.times(model, Precision.INT8, 400, 0, 16) for model in (_SMALL, _OTHER))
    assert larger.decode_s(1, 100) > own.decode_s(1, 100)
    assert larger.prefill_s(100, 0) > own.prefill_s(100, 0)


def test_the_measurement_in_the_same_format_goes_before_a_newer_one():
    slow = replace(_HARDWARE, bandwidth=_HARDWARE.bandwidth / 10)
    both = replace(
        _HERE, measured=(Measurement("tiny", "llama_cpp", Q4_K_M, slow), *_HERE.measured)
    )
    assert "qwen3-0.6b-instruct" in both.rests_on(_OTHER, Precision.INT8)
    assert "those of tiny" in both.rests_on(_OTHER, Precision.INT4)


def test_where_nothing_was_measured_it_is_left_out_with_the_command_that_measures():
    found = _plan(AtHand(_MACHINE, measured=()))
    assert not _here(found)
    [reason] = [each for each in found.rejected if each.what == "this machine"]
    assert reason.why == NOTHING_MEASURED
    assert "`freehold bench MODEL --autotune`" in reason.why


def test_one_machine_is_one_replica_and_what_does_not_fit_is_said():
    busy = _plan(_HERE, replace(_WORK, requests_a_day=400_000))
    assert not _here(busy)
    assert any("replicas are needed at the peak, and 1 are there" in e.why for e in busy.rejected)
    large = _plan(_HERE, replace(_WORK, models=("llama-3.3-70b",), targets=Targets()))
    assert not _here(large)


def test_a_stored_model_that_the_facts_do_not_know_is_an_option_here_and_nowhere_else():
    stored = replace(_SMALL, id="ours", name="Ours", licence="Apache-2.0", scores=())
    here = replace(_HERE, models=(stored,))
    found = _plan(here, replace(_WORK, models=("ours",)))
    assert {each.option.way for each in found.ranked} == {Way.AT_HAND}
    assert {each.option.model for each in found.ranked} == {"ours"}


def _parts(costs: Costs, **made: float):
    told = machines.at_hand(_MACHINE, 1, Economics(), Assumptions().given(made), costs)
    return {part.name: part for part in told}


def test_its_owner_s_figures_are_its_cost():
    rented = _parts(Costs(per_hour=Decimal("0.10")))
    assert [part.a_month for part in rented.values()] == [73.0]
    own = _parts(
        Costs(None, Decimal(4800), 48, Decimal(100), Decimal("0.30"), Decimal(12)), for_a_dollar=2
    )
    assert own["This machine, written off"].a_month > 2 * 4800 / 48
    assert own["Power"].a_month == pytest.approx(0.1 * 730 * 0.3 * 2)
    assert own["Housing and support"].a_month == 24
    assert all("as your settings say" in part.formula for part in own.values())


def test_without_them_it_is_what_is_assumed_that_it_draws():
    [part] = _parts(machines.UNTOLD).values()
    assert part.name == "Power"
    assert "150 W (assumed)" in part.formula
    assert part.a_month == pytest.approx(0.150 * 0.7 * 730 * 1.4 * 0.2, abs=0.01)
