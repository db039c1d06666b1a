"""What it costs to train: how long so many accelerators take, and how many a run needs."""

from dataclasses import dataclass
from decimal import Decimal

from freehold.core.facts import Accelerator, ModelFacts, RentPrice
from freehold.core.plan import Part, Tuning
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.money import exact, part, shown

METHODS = ("full", "lora", "qlora")
# Tokens a second of full tuning and of LoRA on GPT-3 175B (Hu et al. 2021, arXiv:2106.09685,
# footnote 5): the gradients of frozen weights are not computed.
_LORA = Decimal("32.5") / Decimal("43.1")
# Seconds a step of Q-LoRA and of LoRA on Qwen-7B, an A100 80 GB, 2,048 tokens (the table
# "Profiling of Memory and Speed" in the README of QwenLM/Qwen): weights are unpacked each time.
_QLORA = Decimal("7.0") / Decimal("5.2")
_OF_FULL = {"full": Decimal(1), "lora": _LORA, "qlora": _LORA * _QLORA}
_METHOD_WORDS = {
    "full": "",
    "lora": " × 32.5/43.1 (LoRA, arXiv:2106.09685)",
    "qlora": " × 32.5/43.1 × 7.0/5.2 (Q-LoRA, README of QwenLM/Qwen)",
}
# Bytes a parameter. Mixed precision with Adam: weights and gradients in 16 bits, and weights,
# mean and variance in 32 (ZeRO, arXiv:1910.02054, section 3.1). Q-LoRA: 4 bits and 0.127 for the
# constants (arXiv:2305.14314, section 3).
_TRAINED_BYTES = Decimal(16)
_FROZEN_BYTES = {"lora": Decimal(2), "qlora": Decimal("4.127") / 8}
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Run:
    """One run: accelerators, and the hours that they all take."""

    accelerators: int
    hours: Decimal
    formula: str

    @property
    def accelerator_hours(self) -> Decimal:
        return self.hours * self.accelerators


def flops(model: ModelFacts, tuning: Tuning) -> Decimal:
    """6·N·D for N parameters that take part in a token and D tokens: two forward, four backward
    (Kaplan et al. 2020, arXiv:2001.08361, section 2.1); what LoRA saves of it as measured."""
    parameters = exact(model.active_params_b) * 10**9
    return 6 * parameters * tuning.tokens * _OF_FULL[tuning.method]


def gigabytes(model: ModelFacts, tuning: Tuning, assumptions: Assumptions) -> Decimal:
    """Weights, gradients and the optimizer's state, and activations as a share of them."""
    parameters = exact(model.params_b)
    if tuning.method == "full":
        kept = parameters * _TRAINED_BYTES
    else:
        kept = parameters * _FROZEN_BYTES[tuning.method]
        kept += _adapter_params_b(model, tuning.rank) * _TRAINED_BYTES
    return kept * (1 + assumptions.value("activations_share"))


def run(
    model: ModelFacts, tuning: Tuning, accelerator: Accelerator, assumptions: Assumptions
) -> Run | None:
    """hours = FLOPs ÷ (accelerators × peak × MFU). None where its peak or memory is unknown or
    64 do not hold the model."""
    peak = accelerator.bf16_tflops or accelerator.fp16_tflops
    if peak is None or accelerator.memory_gb is None:
        return None
    memory = gigabytes(model, tuning, assumptions)
    held = exact(accelerator.memory_gb)
    count = next((each for each in _COUNTS if each * held >= memory), None)
    if count is None:
        return None
    mfu = assumptions["training_mfu"]
    work = flops(model, tuning)
    hours = work / (exact(peak) * 10**12 * mfu.value * count) / 3600
    return Run(
        count,
        hours,
        f"6 × {shown(model.active_params_b)} B parameters × {shown(tuning.tokens)} tokens"
        f"{_METHOD_WORDS[tuning.method]} ÷ ({count} × {shown(peak)} TFLOPS × {mfu}) ="
        f" {shown(hours, 4)} hours on {count} {accelerator.id} ({shown(memory)} GB)",
    )


def training(one: Run, tuning: Tuning, rent: RentPrice, assumptions: Assumptions) -> Part:
    """Runs a month × accelerator-hours × price. Who rents it out is said, as the option's rules
    are about who runs its model."""
    runs, usd = exact(tuning.runs_a_month), exact(rent.usd_per_hour) / rent.count
    return part(
        f"Training ({tuning.method})",
        f"{shown(runs)} runs a month × {one.accelerators} × {shown(usd, 6)} USD an hour"
        f" of {rent.provider}; a run: {one.formula}",
        a_month=runs * one.accelerator_hours * usd * assumptions.value("for_a_dollar"),
        source=rent.source.where,
    )


def _adapter_params_b(model: ModelFacts, rank: int) -> Decimal:
    """rank × (in + out) of each linear layer. Seven of them a block, four of hidden × hidden and
    three of hidden × about 3.5 hidden, are 21.5 × hidden; a hundredth of all where no shape is
    known."""
    if model.layers is None or model.hidden is None:
        return exact(model.params_b) / 100
    return Decimal(rank) * model.layers * model.hidden * Decimal("21.5") / 10**9
