"""What our figures say of a published measurement: which batch and lengths its kind means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from freehold.core.facts import Accelerator, Facts, Measured, ModelFacts
from freehold.core.plan import Economics, Lengths, Precision, Targets, Workload
from freehold.decide.load.replica import Batching
from freehold.decide.speed.memory import (
    FORMATS,
    MXFP4,
    NVFP4,
    Q4_0,
    Q4_K_M,
    Q8_0,
    Format,
    Memory,
    memory_of,
)
from freehold.decide.speed.throughput import (
    BLOCKS,
    MOST_AT_ONCE,
    Roofline,
    efficiency_of,
    roofline,
)
from freehold.decide.ways.sizing import most_a_second

# Of published precisions: how weights are kept, what products are of, bytes of a cached value.
# TensorRT-LLM and MLPerf submissions keep the cache in fp8 where weights are fp8 or fp4.
_FP16 = (FORMATS[Precision.BF16], "bf16", 2.0)
PRECISIONS: Mapping[str, tuple[Format, str, float]] = {
    "fp16": _FP16,
    "bf16": _FP16,
    "fp8": (FORMATS[Precision.FP8], "fp8", 1.0),
    "int8": (FORMATS[Precision.INT8], "int8", 2.0),
    "int4": (FORMATS[Precision.INT4], "bf16", 2.0),
    "w4a8": (FORMATS[Precision.INT4], "int8", 2.0),
    "fp4": (NVFP4, "fp4", 1.0),
    "mxfp4": (MXFP4, "bf16", 2.0),
    "q4_k_m": (Q4_K_M, "bf16", 2.0),
    "q4_0": (Q4_0, "bf16", 2.0),
    "q8_0": (Q8_0, "bf16", 2.0),
}
# Mean prompts of MLPerf's data sets, which the logs do not have. Of CNN/DailyMail, LongBench's mix
# and the reasoning set as MLCommons described the benchmarks; those of OpenOrca and of Mixtral's
# mix are assumed near their answers, which weighs little as prompts are read fast.
_PROMPTS = {
    "llama-2-70b": 290,
    "llama-3.1-70b": 290,
    "mixtral-8x7b": 260,
    "gpt-j-6b": 870,
    "llama-3.1-8b": 778,
    "llama-3.1-405b": 9400,
    "deepseek-r1": 800,
}
_BEAMS = {"gpt-j-6b": 4}  # MLPerf's rules for GPT-J: four beams, one of which counts
# Its answers have 30 to 128 tokens, by the same rules, 69 on the average: a deviation is a fifth of
# that range, as we assume.
_DEVIATIONS = {"gpt-j-6b": 20.0}
_ON_CPUS = "cpu_mlperf"
# A core draws some 12 GB/s at most, which is about twice its part of what a socket has.
_BUSY = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_TOGETHER = "end together"  # of batches, in a measurement's `concurrency`
# Milliseconds to the first token and for each other that MLPerf's scenarios allow at the 99th
# percentile: `ttft_latency` and `tpot_latency` in the logs of v4.1 and v5.1.
_IN_TIME = {
    "llama-2-70b": Targets(2000, 200),
    "llama-3.1-70b": Targets(2000, 200),
    "mixtral-8x7b": Targets(2000, 200),
    "llama-3.1-8b": Targets(2000, 100),
    "llama-3.1-405b": Targets(6000, 175),
    "deepseek-r1": Targets(2000, 80),
    "gpt-j-6b": Targets(whole_s=20),  # `target_latency` in the logs of v3.1 to v4.1
}
_INTERACTIVE = {
    "llama-2-70b": Targets(450, 40),
    "llama-3.1-8b": Targets(500, 30),
    "llama-3.1-405b": Targets(4500, 80),
}
_SIGMAS = 2.326  # the 99th percentile of a normal variable
# TensorRT-LLM before 0.8 read the keys that a group of heads shares for each head: its XQA kernels
# came then (its blog of December 2023: 2.4 times as fast with Llama 2 70B).
_WITHOUT_GROUPS = ("TensorRT-LLM 0.5", "TensorRT-LLM 0.6", "TensorRT-LLM 0.7")
# In 0.9 they were asked for: its page does for Llama 2 70B, and for no other model.
_GROUPS_ASKED_FOR, _ASKS = "TensorRT-LLM 0.9", ("llama-2-70b",)
PROMPT = "prompt"
_STEP_TOKENS = 8192  # of prompts that are read together


@dataclass(frozen=True, slots=True)
class Case:
    """One figure: tokens a second, of which kind, on what."""

    id: str
    kind: str
    accelerator: Accelerator
    model: ModelFacts
    family: str
    measured: float
    source: Measured


def cases_of(facts: Facts) -> tuple[Case, ...]:
    """All that can be compared: hardware, model and precision are known, of MLPerf on CPUs how many
    copies share the machine, and the engine is made for speed. A measurement that has prompts'
    speed beside is two."""
    found: list[Case] = []
    for each in facts.measured:
        accelerator, model = facts.accelerators.get(each.accelerator), facts.models.get(each.model)
        family = family_of(each.engine)
        if accelerator is None or model is None or not model.layers or family is None:
            continue
        if each.kind.startswith(_ON_CPUS) and not each.instances:
            continue
        if each.precision in PRECISIONS:
            found += [
                Case(name, kind, accelerator, model, family, rate, each)
                for name, kind, rate in _figures(each)
            ]
    return tuple(found)


def _figures(source: Measured) -> list[tuple[str, str, float]]:
    figures = []
    if source.prompt_tokens_per_s:
        figures.append((f"{source.id}p", PROMPT, source.prompt_tokens_per_s))
    if source.kind == "prefill_latency_b1" and source.ttft_ms and source.input_tokens:
        figures.append((source.id, PROMPT, source.input_tokens / source.ttft_ms * 1000))
    elif source.tokens_per_s:
        figures.append((source.id, source.kind, source.tokens_per_s))
    return figures


# SGLang and LMDeploy batch as vLLM does, with kernels of the same kind.
_FAMILIES = {
    "tensorrt": "tensorrt",
    "vllm": "vllm",
    "sglang": "vllm",
    "lmdeploy": "vllm",
    "llama.cpp": "llama.cpp",
    "intel": "pytorch",
}


def family_of(engine: str) -> str | None:
    name = engine.lower()
    return next((family for part, family in _FAMILIES.items() if part in name), None)


def computed(case: Case, values: Mapping[str, float]) -> float:
    """Tokens a second by our formulas."""
    if case.kind == PROMPT:
        tokens = case.source.prompt_tokens or case.source.input_tokens or 512
        return tokens / _roofline(case, values, case.source.count, 4096).prefill_s(int(tokens), 0)
    if case.kind == "single_stream_decode" and case.source.counted != "whole":
        answer = case.source.output_tokens or 128
        steps = _roofline(case, values, case.source.count, 4096)
        return 1 / steps.decode_s(1, int((case.source.input_tokens or 0) + answer / 2))
    if case.kind in ("static_batch", "single_stream_decode"):
        return _static(case, values)
    return _full_load(case, values)


def _static(case: Case, values: Mapping[str, float]) -> float:
    """A batch begins and ends together."""
    batch = int(case.source.concurrency or 1)
    prompt, answer = case.source.input_tokens or 0, case.source.output_tokens or 1
    steps = _roofline(case, values, case.source.count, int(prompt + answer))
    at_once = max(1, min(batch, int(_STEP_TOKENS // max(prompt, 1))))
    whole = batch / at_once * steps.prompts_s(at_once, int(prompt))
    whole += answer * steps.decode_s(batch, int(batch * (prompt + answer / 2)))
    return batch * answer / whole


def _full_load(case: Case, values: Mapping[str, float]) -> float:
    """MLPerf lets each submission lay its accelerators out; the others share one model."""
    source = case.source
    prompt = source.input_tokens or _PROMPTS.get(source.model, 512)
    answer = source.output_tokens or 128
    allowed, best = _allowed(source), 0.0
    for size in _sizes(case):
        steps = _roofline(case, values, size, int(prompt + answer))
        if steps.kv_tokens < prompt + answer:
            continue
        most = source.most_at_once or MOST_AT_ONCE[case.family]
        if allowed is not None:
            rate = _in_time(case, steps, prompt, answer, most, allowed)
        else:
            rate = _with_beams(case, steps, prompt, answer, most)
        best = max(best, rate * source.count / size)
    return best * (prompt + answer) / answer if source.counted == "total" else best


def _sizes(case: Case) -> Sequence[float]:
    """Accelerators that a copy of the model has: as the scripts say, or what can be chosen."""
    source = case.source
    if source.instances:
        return [source.count / source.instances]
    return [n for n in (1, 2, 4, 8) if n <= source.count] if _is_mlperf(case) else [source.count]


def _allowed(source: Measured) -> Targets | None:
    if "interactive" in source.kind:
        return _INTERACTIVE[source.model]
    return _IN_TIME[source.model] if "server" in source.kind else None


def _in_time(
    case: Case, steps: Roofline, prompt: float, answer: float, most: int, allowed: Targets
) -> float:
    """The most that requests which come one by one leave within what is allowed."""
    spread = _SIGMAS * _DEVIATIONS.get(case.source.model, 0.0)
    answers = Lengths((round(answer - spread), round(answer + spread)))
    work = Workload(
        "server", 1, Lengths((round(prompt),)), answers,
        targets=allowed, economics=Economics(utilization_ceiling=1.0),
    )  # fmt: skip
    copies, batching = case.source.instances or 1, Batching(most, _STEP_TOKENS)

    def rate(busy: float) -> float:
        """Where that share of the copies is at work at most, which have all the bandwidth."""
        own = replace(steps, bandwidth=steps.bandwidth / busy)
        times = own if _beams_of(case) == 1 else _Beams(own, case, prompt, answer)
        found = most_a_second(times, batching, work, _SIGMAS, copies) or 0.0
        if busy == 1:
            return found
        held = times.prefill_s(round(prompt), 0) + answer * times.decode_s(1, round(prompt))
        return min(found, busy / held)

    shares = _BUSY if case.accelerator.kind == "cpu" and copies > 1 else (1.0,)
    return max(rate(busy) for busy in shares) * answer


class _Beams:
    """`core.plan.StepTimes` of requests with several beams each. A beam decodes as a sequence of
    its own, over the same prompt, which is kept once. A CPU's core has a head's keys (870 x 256 x 2
    bytes of GPT-J) in its own cache for the beams that follow; on a GPU they are read at the same
    time by blocks that share none."""

    def __init__(self, steps: Roofline, case: Case, prompt: float, answer: float) -> None:
        self._steps, self._beams = steps, _beams_of(case)
        self._prompt, self._answer = prompt, answer
        self._read = 1 if case.accelerator.kind == "cpu" else self._beams
        held = (prompt + answer) / (prompt + answer * self._beams)
        self.kv_tokens = int(steps.kv_tokens * held)

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        return self._steps.prefill_s(tokens, context_tokens)

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        each = self._read * self._prompt + self._beams * self._answer / 2
        return self._steps.decode_s(sequences * self._beams, int(sequences * each))


def _beams_of(case: Case) -> int:
    return _BEAMS.get(case.source.model, 1) if _is_mlperf(case) else 1


def _with_beams(case: Case, steps: Roofline, prompt: float, answer: float, most: int) -> float:
    if _beams_of(case) == 1:
        return steps.full_load(prompt, answer, most)[1]
    times = _Beams(steps, case, prompt, answer)
    batch = max(1, min(most, int(times.kv_tokens // (prompt + answer))))
    a_request = steps.prefill_s(round(prompt), 0) - steps.step_s
    longest = answer
    if _TOGETHER in (case.source.concurrency or ""):
        deviations = NormalDist().inv_cdf(batch / (batch + 1))
        longest += deviations * _DEVIATIONS.get(case.source.model, 0.0)
    return answer / (a_request + longest * times.decode_s(batch, 0) / batch)


def _reads_ungrouped(case: Case) -> bool:
    engine = case.source.engine
    asked = engine.startswith(_GROUPS_ASKED_FOR) and case.model.id not in _ASKS
    return asked or engine.startswith(_WITHOUT_GROUPS)


def _is_mlperf(case: Case) -> bool:
    return "mlperf" in case.kind


def _roofline(case: Case, values: Mapping[str, float], count: float, context: int) -> Roofline:
    kept, computed_in, kv_bytes = PRECISIONS[case.source.precision]
    if case.family == "llama.cpp" and case.accelerator.kind == "cpu" and kept.bits < 16:
        computed_in = BLOCKS
    has_experts = case.model.experts is not None
    efficiency = efficiency_of(
        values, case.family, case.accelerator, computed_in, has_experts, kept.bits
    )
    # An accelerator without a figure of its memory had enough of it.
    whole = max(1, round(count))
    memory = memory_of(case.model, case.accelerator, whole, kept, kv_bytes, context)
    if case.accelerator.memory_gb is None:
        memory = Memory(whole, 1e12, 0, 0, 0, 0, memory.kv_sequence, context)
    found = roofline(
        case.model, case.accelerator, count, kept, memory, efficiency, kv_bytes, computed_in,
        case.family,
    )  # fmt: skip
    if found is None:
        raise ValueError(f"{case.accelerator.id} has no bandwidth")
    if _is_mlperf(case) and case.accelerator.kind == "gpu":
        tuned = values["tuned"]
        found = replace(found, compute=found.compute * tuned, bandwidth=found.bandwidth * tuned)
    if _reads_ungrouped(case):
        group = (case.model.heads or 1) / (case.model.kv_heads or 1)
        found = replace(found, kv_token=found.kv_token * group ** values["ungrouped"])
    return found
