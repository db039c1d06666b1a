"""A plain estimate of how many replicas a workload needs: the hardware's bandwidth and compute at
the usual efficiencies, batches as large as memory and targets allow. It stands in for the fitted
times and the simulation, so that a planner can be tried without them."""

from math import ceil

from freehold.core.facts import Accelerator, Facts, ModelFacts
from freehold.core.plan import Option, Precision, Workload
from freehold.decide import demand
from freehold.decide.options import context_needed

_BYTES = {Precision.BF16: 2.0, Precision.FP8: 1.05, Precision.INT8: 1.05, Precision.INT4: 0.55}
_OF_BANDWIDTH, _OF_COMPUTE, _OF_MEMORY = 0.7, 0.5, 0.9
_STEP_S = 0.003  # what a step takes however little it does
_LARGEST_BATCH = 256


class Estimate:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def __call__(self, option: Option, workload: Workload) -> int | None:
        model = self._facts.models[option.model]
        accelerator = self._facts.accelerators[option.accelerator or ""]
        seconds = _seconds_a_request(option, model, accelerator, workload)
        if seconds is None:
            return None
        grown = float(demand.growth(workload)[-1])
        a_second = float(demand.peak(workload)) * grown / 3600
        return max(1, ceil(a_second * seconds / workload.economics.utilization_ceiling))


def _kv_bytes(model: ModelFacts) -> float | None:
    if model.layers is None:
        return None
    if model.kv_lora_rank is not None:
        return 2.0 * model.layers * (model.kv_lora_rank + (model.rope_head_dim or 64))
    if model.kv_heads is None or model.head_dim is None:
        return None
    return 2.0 * 2 * model.layers * model.kv_heads * model.head_dim


def _seconds_a_request(
    option: Option, model: ModelFacts, accelerator: Accelerator, workload: Workload
) -> float | None:
    """Of one replica, at the largest batch that meets the targets."""
    kv, memory, bandwidth = _kv_bytes(model), accelerator.memory_gb, accelerator.bandwidth_gb_s
    compute = accelerator.bf16_tflops or accelerator.fp16_tflops
    if kv is None or memory is None or bandwidth is None or compute is None:
        return None
    count, size = option.accelerators_a_replica, _BYTES[option.precision or Precision.BF16]
    room = memory * count * _OF_MEMORY - model.params_b * size
    prompt, answer = float(demand.mean(workload.prompt)), float(demand.mean(workload.answer))
    if room * 1e9 < kv * context_needed(workload):
        return None
    if option.precision is Precision.FP8:
        compute = accelerator.fp8_tflops or compute
    read = prompt * (1 - workload.cached_share)
    prefill = 2e9 * model.active_params_b * read / (compute * count * 1e12 * _OF_COMPUTE)
    held = prompt + answer / 2
    largest = min(_LARGEST_BATCH, int(room * 1e9 / (kv * (prompt + answer))))
    for batch in sorted({max(1, largest >> shift) for shift in range(9)}, reverse=True):
        weights = min(model.params_b, model.active_params_b * batch) * size
        moved = weights * 1e9 + batch * held * kv
        step = moved / (bandwidth * count * 1e9 * _OF_BANDWIDTH) + _STEP_S
        # Prompts are read between the steps of those that write.
        whole = prefill + answer * step / batch
        waiting = prefill * 2 + step
        if _meets(workload, waiting, answer, step * (1 + prefill * batch / (answer * step))):
            return whole
    return None


def _meets(workload: Workload, ttft_s: float, answer: float, tpot_s: float) -> bool:
    targets = workload.targets
    return (
        (targets.ttft_ms is None or ttft_s * 1000 <= targets.ttft_ms)
        and (targets.tpot_ms is None or tpot_s * 1000 <= targets.tpot_ms)
        and (targets.whole_s is None or ttft_s + answer * tpot_s <= targets.whole_s)
    )
