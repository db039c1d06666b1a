"""Steps' times against arithmetic that can be done by hand, and against what was published."""

from dataclasses import replace
from hashlib import sha256

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.facts import Measured
from freehold.core.plan import Precision, StepTimes
from freehold.decide.published.fitting import PRIORS, error, fit, halves, held_out, parted, spread
from freehold.decide.published.replay import cases_of, computed
from freehold.decide.speed import fitted
from freehold.decide.speed.memory import FORMATS, memory_of
from freehold.decide.speed.throughput import (
    Efficiency,
    Hardware,
    Roofline,
    efficiency_of,
    is_linked,
    measured_hardware,
    on_hardware,
    peak_flops,
    roofline,
)

FACTS = load_facts()
MODELS, ACCELERATORS = FACTS.models, FACTS.accelerators
LLAMA, BF16 = MODELS["llama-3.1-8b"], FORMATS[Precision.BF16]
CASES, UNSEEN = parted(cases_of(FACTS))
IDEAL = Efficiency(compute=1, bandwidth=1, step_s=0, sequence_s=0)


def _ideal(model: str = "llama-3.1-8b", accelerator: str = "h100_sxm", count: int = 1) -> Roofline:
    hardware, shape = ACCELERATORS[accelerator], MODELS[model]
    memory = memory_of(shape, hardware, count)
    found = roofline(shape, hardware, count, BF16, memory, IDEAL)
    assert found is not None
    return found


def test_one_stream_takes_as_long_as_reading_the_weights_and_its_cache() -> None:
    steps: StepTimes = _ideal()
    table = 128256 * 4096

    expected = ((8.03e9 - table) * 2 + 10_000 * 131072) / 3350e9

    assert steps.decode_s(1, 10_000) == pytest.approx(expected)


def test_a_prompt_takes_two_operations_a_parameter_and_token_and_its_attention() -> None:
    steps = _ideal()
    table = 128256 * 4096

    linear = 2 * (8.03e9 - table) * 2000
    attention = 4 * 32 * 128 * 32 * 2000 * (500 + 1000)

    assert steps.prefill_s(2000, 500) == pytest.approx((linear + attention) / 989e12)


def test_a_single_token_of_a_prompt_waits_for_the_weights() -> None:
    assert _ideal().prefill_s(1, 0) == pytest.approx(_ideal().decode_s(1, 0))


def test_streams_share_the_weights_until_compute_holds_them_back() -> None:
    steps = _ideal()

    assert steps.decode_s(16, 0) == steps.decode_s(1, 0)
    assert steps.decode_s(4096, 0) > 10 * steps.decode_s(1, 0)


def test_a_mixture_reads_the_experts_that_its_tokens_go_to() -> None:
    steps = _ideal("mixtral-8x7b", "h200_sxm", 2)

    one, many = steps.decode_s(1, 0), steps.decode_s(64, 0)

    assert one == pytest.approx((13e9 - 32000 * 4096) * 2 / (2 * 4800e9), rel=0.01)
    assert many == pytest.approx((46.7e9 - 32000 * 4096) * 2 / (2 * 4800e9), rel=0.01)


def test_a_window_ends_what_a_longer_context_costs() -> None:
    steps = _ideal("gemma-3-27b", "h200_sxm")

    beyond = steps.decode_s(1, 20_000) - steps.decode_s(1, 10_000)
    within = steps.decode_s(1, 1000) - steps.decode_s(1, 0)

    assert within / 1000 == pytest.approx(6.2 * beyond / 10_000, rel=0.01)


def test_what_cannot_be_multiplied_narrow_is_multiplied_wide() -> None:
    assert peak_flops(ACCELERATORS["a100_80gb_sxm"], "fp8") == 312e12
    assert peak_flops(ACCELERATORS["h100_sxm"], "fp8") == 1979e12
    assert peak_flops(ACCELERATORS["h100_sxm"], "fp4") == 1979e12
    assert peak_flops(ACCELERATORS["t4"], "bf16") == 65e12


def _steps(name: str, count: int = 1, family: str = "vllm") -> Roofline:
    hardware = ACCELERATORS[name]
    efficiency = efficiency_of(fitted.VALUES, family, hardware, "bf16", False)
    memory = memory_of(LLAMA, hardware, count)
    found = roofline(LLAMA, hardware, count, BF16, memory, efficiency, family=family)
    assert found is not None
    return found


def test_cards_on_the_bus_lose_more_when_they_share_a_model() -> None:
    def gained(name: str) -> float:
        return _steps(name).prefill_s(4096, 0) / _steps(name, 2).prefill_s(4096, 0)

    assert is_linked(ACCELERATORS["h100_sxm"])
    assert not is_linked(ACCELERATORS["h100_pcie"])
    assert not is_linked(ACCELERATORS["h100_nvl"])
    assert gained("l40s") < gained("h100_sxm") < 2


def test_a_step_of_many_accelerators_is_held_up_by_their_waiting_for_one_another() -> None:
    one, eight = _steps("h100_sxm"), _steps("h100_sxm", 8)

    assert eight.step_s - one.step_s == pytest.approx(2 * 32 * fitted.VALUES["hop_s.linked"])
    assert one.token_s == 0 < eight.token_s


def test_the_less_power_for_its_peak_a_card_has_the_less_of_it_is_reached() -> None:
    def share(name: str) -> float:
        hardware = ACCELERATORS[name]
        return efficiency_of(fitted.VALUES, "llama.cpp", hardware, "bf16", False).compute

    assert share("l4") < share("l40s") < share("rtx_4090") < share("rtx_3090")
    unknown = replace(ACCELERATORS["l4"], power_w=None)
    told = efficiency_of(fitted.VALUES, "llama.cpp", unknown, "bf16", False).compute
    assert share("l4") < told < share("rtx_3090")


def test_geforce_cards_sum_up_twice_as_fast_in_16_bits() -> None:
    assert peak_flops(ACCELERATORS["rtx_4090"], "bf16", "llama.cpp") == 330.3e12
    assert peak_flops(ACCELERATORS["rtx_4090"], "bf16", "vllm") == 165.2e12
    assert peak_flops(ACCELERATORS["rtx_6000_ada"], "bf16", "llama.cpp") == 364.4e12


def test_short_prompts_in_one_step_share_the_reading_of_the_weights() -> None:
    steps = _steps("h100_sxm")

    assert steps.prompts_s(1, 128) == steps.prefill_s(128, 0)
    assert steps.prompts_s(64, 128) < 32 * steps.prefill_s(128, 0)


def test_some_of_the_reading_is_not_hidden_by_the_multiplying() -> None:
    steps = replace(_ideal(), apart=0.25)
    ideal = _ideal()

    reading, flops = ideal.decode_s(1, 0), ideal.prefill_s(4096, 0)

    assert steps.prefill_s(4096, 0) == pytest.approx(flops + 0.25 * reading)


def test_one_measurement_gives_hardware_that_says_the_same_again() -> None:
    hardware = Hardware(compute=2e12, bandwidth=40e9)
    truth = on_hardware(LLAMA, BF16, hardware, 100_000)
    read, made = 512 / truth.prefill_s(512, 0), 4 / truth.decode_s(4, 4 * 32)

    again = measured_hardware(LLAMA, BF16, read, made, streams=4, prompt=512, answer=64)

    assert again.compute == pytest.approx(2e12, rel=0.001)
    assert again.bandwidth == pytest.approx(40e9, rel=0.001)


@pytest.mark.slow
def test_the_fitted_values_are_what_the_facts_give_without_the_rows_for_acceptance() -> None:
    """Else: run bench/fit_throughput.py. Rows for acceptance move nothing, wrong as they are."""
    wrong = [replace(case, measured=case.measured * 10) for case in UNSEEN]
    found = fit([*CASES, *wrong], fitted.VALUES)

    assert fitted.VALUES.keys() == PRIORS.keys()
    for name, value in found.items():
        assert fitted.VALUES[name] == pytest.approx(value, rel=0.01), name


@pytest.mark.slow
def test_half_of_the_cases_say_what_the_other_half_measured() -> None:
    errors = held_out(CASES, halves(CASES, 1), fitted.VALUES)

    told = spread([off for each in errors.values() for off in each])

    assert told.count == len(CASES)
    assert told.median <= 0.2
    assert told.nine_in_ten <= 0.4


def test_measurements_that_no_fit_saw_are_said_about_as_well() -> None:
    told = spread([error(case, fitted.VALUES) for case in UNSEEN])

    assert told.count >= 200
    assert told.median <= 0.2
    assert told.nine_in_ten <= 0.4
    assert told.median == pytest.approx(fitted.MEDIAN_ERROR, abs=0.01)
    assert told.nine_in_ten == pytest.approx(fitted.NINE_IN_TEN_WITHIN, abs=0.01)


@pytest.mark.parametrize("kind", sorted({case.kind for case in UNSEEN}))
def test_each_kind_is_told_within_two_fifths(kind: str) -> None:
    told = spread([error(case, fitted.VALUES) for case in UNSEEN if case.kind == kind])

    assert told.count >= 14
    assert told.median <= 0.2
    assert told.nine_in_ten <= 0.4


def test_each_kind_has_rows_for_acceptance_that_were_drawn_by_hash() -> None:
    drawn: dict[str, list[Measured]] = {}
    for row in FACTS.measured:
        if row.id.startswith("p"):
            drawn.setdefault(row.kind, []).append(row)
    for kind, rows in drawn.items():
        rows.sort(key=lambda row: sha256(row.id.encode()).hexdigest())
        kept = max(24, (len(rows) + 1) // 2)
        assert [row.is_for_acceptance for row in rows] == [n < kept for n in range(len(rows))], kind
    assert {case.source.id for case in UNSEEN} <= {
        row.id for rows in drawn.values() for row in rows
    }
    assert {case.kind for case in UNSEEN} == {case.kind for case in CASES}


def test_matrix_units_multiply_whole_tiles_for_one_answer_and_kernels_of_vectors_do_not() -> None:
    def share(family: str, bits: float = 16.0) -> float:
        hardware = ACCELERATORS["h20"]
        told = efficiency_of(fitted.VALUES, family, hardware, "bf16", False, bits)
        return told.answer_ramp

    assert share("vllm") == fitted.VALUES["ramp"] == 4 * share("vllm", 4.16)
    assert share("llama.cpp") == 0
    few = replace(_ideal(accelerator="h20"), answer_ramp=64.0)
    assert few.decode_s(1, 0) == pytest.approx(64 * few.token_flops / few.compute)
    assert few.decode_s(64, 0) == few.decode_s(1, 0)


def test_cpus_of_mlperf_are_compared_where_their_copies_are_known() -> None:
    """How many share the machine, and in which memory."""
    of_cpus = [row for row in FACTS.measured if row.kind.startswith("cpu_mlperf")]

    left_out = {row.id for row in of_cpus} - {case.source.id for case in (*CASES, *UNSEEN)}

    assert left_out == {"m084"}


def test_a_copy_on_some_of_the_cores_has_its_share_of_what_they_give() -> None:
    xeon, memory = ACCELERATORS["cpu_xeon_6980p"], memory_of(LLAMA, ACCELERATORS["t4"])
    whole, sixth = (roofline(LLAMA, xeon, count, BF16, memory, IDEAL) for count in (1, 1 / 6))
    assert whole is not None
    assert sixth is not None

    assert sixth.bandwidth == pytest.approx(whole.bandwidth / 6)
    assert sixth.compute == pytest.approx(whole.compute / 6)


def test_packed_weights_are_read_more_slowly_but_where_they_are_multiplied_as_they_are() -> None:
    def share(computed_in: str, bits: float) -> float:
        hardware = ACCELERATORS["b200_sxm"]
        return efficiency_of(fitted.VALUES, "vllm", hardware, computed_in, False, bits).bandwidth

    assert share("bf16", 4.16) < share("bf16", 8.01) == share("bf16", 16)
    assert share("fp4", 4.5) == share("fp4", 16)


@pytest.mark.slow
def test_no_case_has_a_value_of_its_own() -> None:
    """A measurement that is wrong by ten cannot draw the figures after it."""
    wrong = [
        replace(case, measured=case.measured * 10) if case.id == "t31" else case
        for case in CASES
        if case.kind == "synthetic_max_load"
    ]
    values = fit(wrong, fitted.VALUES)
    case = next(each for each in wrong if each.id == "t31")

    assert computed(case, values) < case.measured / 4
