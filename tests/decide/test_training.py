from dataclasses import replace
from decimal import Decimal
from statistics import geometric_mean

import pytest

from freehold.core.plan import Tuning
from freehold.decide.money import training
from freehold.decide.money.assumptions import Assumptions
from tests.decide.offers import BOARD, MODEL, RENT

_ASSUMED = Assumptions().given({"training_mfu": 0.4, "activations_share": 0.0})
_RUN = Tuning(runs_a_month=2, tokens=10_000_000, method="full")


def test_a_full_run_takes_six_operations_a_parameter_and_token():
    # 6 × 8e9 × 1e7 = 4.8e17. It needs 8 × 16 = 128 GB, so two of 80 GB.
    # 4.8e17 ÷ (2 × 1,000e12 × 0.4) = 600 s = 1/6 hour.
    one = training.run(MODEL, _RUN, BOARD, _ASSUMED)
    assert one is not None
    assert one.accelerators == 2
    assert round(one.hours, 6) == Decimal("0.166667")
    # Twice a month 1/3 accelerator-hours at 3 USD: 2.00.
    assert training.training(one, _RUN, replace(RENT, usd_per_hour=3.0), _ASSUMED).a_month == 2


def test_lora_takes_what_was_published_of_a_full_run():
    full = training.flops(MODEL, _RUN)
    lora = training.flops(MODEL, replace(_RUN, method="lora"))
    qlora = training.flops(MODEL, replace(_RUN, method="qlora"))
    assert round(lora / full, 4) == Decimal("0.7541")  # 32.5 ÷ 43.1
    assert round(qlora / lora, 4) == Decimal("1.3462")  # 7.0 ÷ 5.2


def test_lora_needs_the_weights_and_little_more():
    # 8 × 2 = 16 GB, and 16 × 32 × 4096 × 21.5 = 45.1 M parameters of 16 bytes: 0.72 GB.
    lora = training.gigabytes(MODEL, replace(_RUN, method="lora"), _ASSUMED)
    assert round(lora, 2) == Decimal("16.72")
    # 8 × 4.127 ÷ 8 = 4.127 GB and the same adapter.
    qlora = training.gigabytes(MODEL, replace(_RUN, method="qlora"), _ASSUMED)
    assert round(qlora, 2) == Decimal("4.85")


def test_the_share_of_peak_is_near_the_geometric_mean_of_those_that_were_measured():
    """Qwen-7B (7.7 B) on an A100 of 312 TFLOPS: 16,384 tokens in 5.2 s; Llamas of 3.21 and
    8.03 B on an H200 of 989: 8,192 in 0.689 and 1.280 s. All LoRA."""
    shares = []
    for billions, tokens, seconds, tflops in (
        (7.7, 16_384, "5.2", 312), (3.21, 8192, "0.689", 989), (8.03, 8192, "1.280", 989)
    ):  # fmt: skip
        work = training.flops(
            replace(MODEL, active_params_b=billions), Tuning(1, tokens, method="lora")
        )
        shares.append(float(work / Decimal(seconds) / (tflops * 10**12)))
    assert abs(geometric_mean(shares) - float(Assumptions().value("training_mfu"))) < 0.01


def test_of_a_mixture_only_the_experts_that_take_part_are_counted():
    sparse = replace(MODEL, params_b=80.0)
    assert training.flops(sparse, _RUN) == training.flops(MODEL, _RUN)
    assert training.gigabytes(sparse, _RUN, _ASSUMED) == 1280


@pytest.mark.parametrize(
    "accelerator",
    [replace(BOARD, bf16_tflops=None, fp16_tflops=None), replace(BOARD, memory_gb=1.9)],
)
def test_what_is_not_known_or_does_not_hold_it_is_no_way_to_train(accelerator):
    assert training.run(MODEL, _RUN, accelerator, _ASSUMED) is None
