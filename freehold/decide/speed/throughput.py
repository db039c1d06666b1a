"""How long an engine takes on some hardware: a roofline (Williams, Waterman, Patterson 2009), with
the shares of compute and of bandwidth that engines reach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from freehold.core.facts import Accelerator, ModelFacts
from freehold.decide.speed.memory import (
    Format,
    Memory,
    kv_sequence_bytes,
    table_params,
    weight_bytes,
)

# A core's dense operations a second where no figure of the whole is published: AMX does 2,048 in
# 16 bits a cycle, AVX-512 and AVX2 some 32 (Intel's optimization manual), near 2 GHz under load.
_AMX_CORE_FLOPS, _CORE_FLOPS = 4e12, 6e10
# Of 8-bit integers (llama.cpp's blocks) twice as many: a vector holds four times the values of
# 32-bit floats, and adding up takes one instruction more (Intel's manual, VNNI).
_NARROW = 2
# Weights below this many bits are unpacked as they are read, which no unit does for nothing.
_UNPACKED_BELOW_BITS = 6.0
# What is measured of a memory's bandwidth with a tool for that, of what it has on paper.
_MEASURED_SHARE = 0.8
_STEP_TOKENS = 8192  # of prompts that are read in a step: vLLM's default
_PLAIN_BITS = 16.0  # below them weights are widened before they are multiplied in 16 bits
# Apple's GPUs have some 0.034 TFLOPS for each GB/s (M1 Ultra: 21 to 800, M2 Ultra: 27 to 800).
_SOC_FLOPS_A_BYTE = 34.0
# GDDR against HBM: the slowest card with HBM has 933 GB/s (A30), the fastest with GDDR 1,792.
_SMALL_BELOW_GB_S, _SMALL_NAMES = 1100.0, ("rtx",)
_ON_THE_BUS = ("pcie", "_nvl")  # NVL cards have bridges between two or four, where anybody put them
# What an accelerator takes whose maker does not say it.
_USUAL_TFLOPS_A_WATT = 1.0

# Those that multiply few rows without matrix units (llama.cpp's kernels of matrix and vector).
_BY_VECTOR = ("llama.cpp",)
# Sequences that engines take at once.
MOST_AT_ONCE = {"tensorrt": 2048, "vllm": 1024, "pytorch": 256}
BLOCKS = "blocks"  # products of 8-bit integers with a scale a block: llama.cpp's, on CPUs


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a family of engines reaches on a class of hardware: shares of the published compute
    and bandwidth, and what a step costs beside."""

    compute: float
    bandwidth: float
    step_s: float
    sequence_s: float  # for each sequence of a step
    apart: float = 0.0  # of reading and multiplying, what of the shorter is not hidden by the other
    ramp: float = 0.0  # rows more that a prompt's products take as long as
    answer_ramp: float = 0.0  # and those of a step of answers
    layer_s: float = 0.0  # a step costs for each layer
    hop_s: float = 0.0  # accelerators that share a model wait for each other, twice a layer
    link: float = math.inf  # bytes a second between them


@dataclass(frozen=True, slots=True)
class Hardware:
    """What it gives in effect: operations and bytes a second of all accelerators, losses off."""

    compute: float
    bandwidth: float
    step_s: float = 0.0
    sequence_s: float = 0.0
    apart: float = 0.0
    token_s: float = 0.0  # what accelerators tell each other for a token
    ramp: float = 0.0
    answer_ramp: float = 0.0


@dataclass(frozen=True, slots=True)
class Roofline:
    """`core.plan.StepTimes`, as fields that a step's time is arithmetic of. `compute` is in
    operations and `bandwidth` in bytes a second, of all accelerators and with what is lost."""

    compute: float
    bandwidth: float
    step_s: float
    sequence_s: float
    token_flops: float
    attention_flops: float  # of a token and one that it sees, in layers that see everything
    window_flops: float
    window: float
    dense_bytes: float
    expert_bytes: float
    expert_share: float  # that a token goes to
    kv_token: float
    kv_window: float
    kv_state: float
    kv_tokens: int
    apart: float = 0.0
    token_s: float = 0.0
    ramp: float = 0.0
    answer_ramp: float = 0.0

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        """The linear layers do two operations a parameter and token, attention four a token that
        is seen and value of the heads (Kaplan et al. 2020, 2.1). Weights are read once at least.
        Products of few rows do not fill the units: each costs some rows more."""
        return self._reading_s(1, tokens, context_tokens + tokens / 2)

    def prompts_s(self, prompts: int, tokens: int) -> float:
        """So many prompts of `tokens` in one step."""
        return self._reading_s(prompts, tokens, tokens / 2)

    def _reading_s(self, prompts: int, tokens: int, seen: float) -> float:
        rows = prompts * tokens
        flops = (rows + self.ramp) * self.token_flops + rows * (
            self.attention_flops * seen + self.window_flops * min(seen, self.window)
        )
        return self._both(flops, self._weights(rows)) + self.step_s + rows * self.token_s

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """Reads the weights once and each sequence's cache (Pope et al. 2022, 3.2). Matrix units
        multiply whole tiles, however few rows are of use."""
        each = context_tokens / max(sequences, 1)
        within = min(each, self.window)
        read = self._weights(sequences) + sequences * (
            self.kv_token * each + self.kv_window * within + self.kv_state
        )
        flops = max(sequences, self.answer_ramp) * self.token_flops + sequences * (
            self.attention_flops * each + self.window_flops * within
        )
        return self._both(flops, read) + self.step_s + sequences * (self.sequence_s + self.token_s)

    def _both(self, flops: float, read: float) -> float:
        """Reading goes on beside multiplying, but for a part of the shorter of them."""
        times = flops / self.compute, read / self.bandwidth
        return max(times) + self.apart * min(times)

    def _weights(self, tokens: float) -> float:
        """Of the experts those that some token goes to, each by chance."""
        spared = math.pow(1 - self.expert_share, tokens)
        return self.dense_bytes + self.expert_bytes * (1 - spared)

    def full_load(self, prompt: float, answer: float, most: int = 4096) -> tuple[int, float]:
        """Sequences at once and answers' tokens a second when there is always another request:
        the batch that fits, each step a token of all of it, prompts read in between."""
        batch = max(1, min(most, int(self.kv_tokens // max(prompt + answer, 1))))
        step = self.decode_s(batch, int(batch * (prompt + answer / 2)))
        at_once = max(1, int(_STEP_TOKENS // max(prompt, 1)))
        reading = (self.prompts_s(at_once, round(prompt)) - self.step_s) / at_once
        return batch, answer / (reading + answer * step / batch)


def roofline(
    model: ModelFacts,
    accelerator: Accelerator,
    count: float,
    kept: Format,
    memory: Memory,
    efficiency: Efficiency,
    kv_bytes: float = 2.0,
    computed_in: str = "bf16",
    family: str = "",
) -> Roofline | None:
    """None where neither bandwidth nor compute is known. `computed_in` is what the products are
    of: fp8 where weights and activations are, bf16 where only the weights are smaller. A `count`
    below one is a copy on some of the cores."""
    bandwidth = accelerator.bandwidth_gb_s
    if accelerator.measured_bandwidth_gb_s:
        bandwidth = accelerator.measured_bandwidth_gb_s / _MEASURED_SHARE
    compute = peak_flops(accelerator, computed_in, family)
    if not bandwidth or not compute:
        return None
    layers = model.decoder_layers or model.layers or 1
    hops, told = (2 * layers, _told_a_token(model, count) * layers) if count > 1 else (0, 0.0)
    hardware = Hardware(
        compute=compute * count * efficiency.compute,
        bandwidth=bandwidth * 1e9 * count * efficiency.bandwidth,
        step_s=efficiency.step_s + layers * efficiency.layer_s + hops * efficiency.hop_s,
        sequence_s=efficiency.sequence_s,
        apart=efficiency.apart,
        ramp=efficiency.ramp,
        answer_ramp=efficiency.answer_ramp,
        token_s=told / efficiency.link,
    )
    return on_hardware(model, kept, hardware, memory.kv_tokens, kv_bytes)


def _told_a_token(model: ModelFacts, count: float) -> float:
    """Bytes of a layer that each accelerator sends: two sums of a token's vector in 16 bits, of
    which a ring sends twice the others' shares (Shoeybi et al. 2019, Patarasuk and Yuan 2009)."""
    return 2 * 2.0 * (model.hidden or 0) * 2 * (count - 1) / count


def on_hardware(
    model: ModelFacts, kept: Format, hardware: Hardware, kv_tokens: int, kv_bytes: float = 2.0
) -> Roofline:
    weights = weight_bytes(model, kept)
    experts = _expert_params(model)
    table = (model.vocabulary or 0) * (model.hidden or 0)
    is_tied = table_params(model) == table
    # A token's row of the embedding is looked up; only the head is multiplied, and read.
    expert_bytes = experts * kept.bits / 8
    looked_up = 0.0 if is_tied else table * kept.table_bits / 8
    window = float(model.sliding_window or 0)
    cached = kv_sequence_bytes
    a_token = cached(model, 2**20 + 1, kv_bytes) - cached(model, 2**20, kv_bytes)
    first = cached(model, 1, kv_bytes)
    state = 0.0 if window else first - a_token
    layers = model.decoder_layers or model.layers or 1
    every = model.full_attention_interval
    growing = layers // every if every else layers
    return Roofline(
        compute=hardware.compute,
        bandwidth=hardware.bandwidth,
        step_s=hardware.step_s,
        sequence_s=hardware.sequence_s,
        token_flops=2 * max(model.active_params_b * 1e9 - (0 if is_tied else table), 1.0),
        attention_flops=_attention_flops(model) * growing,
        window_flops=_attention_flops(model) * (layers - growing) if window else 0.0,
        window=window,
        dense_bytes=max(weights - expert_bytes - looked_up, 0.0),
        expert_bytes=expert_bytes,
        expert_share=(model.experts_per_token or 0) / model.experts if model.experts else 0.0,
        kv_token=a_token,
        kv_window=first - a_token if window else 0.0,
        kv_state=state,
        kv_tokens=kv_tokens,
        apart=hardware.apart,
        ramp=hardware.ramp,
        answer_ramp=hardware.answer_ramp,
        token_s=hardware.token_s,
    )


def measured_hardware(
    model: ModelFacts,
    kept: Format,
    read_per_s: float,
    made_per_s: float,
    streams: int,
    prompt: int,
    answer: int,
    kv_bytes: float = 2.0,
) -> Hardware:
    """What hardware gives in effect, from one measurement: prompts of `prompt` tokens read at
    `read_per_s`, and answers made by `streams` at once at `made_per_s` in all. Where compute held
    the answers back, the bandwidth is told too low, so that one stream looks slower than it is."""
    ideal = on_hardware(model, kept, Hardware(1.0, 1.0), 0, kv_bytes)
    flops = ideal.token_flops + ideal.attention_flops * prompt / 2
    read = replace(ideal, compute=math.inf).decode_s(streams, streams * answer // 2)
    return Hardware(compute=flops * read_per_s, bandwidth=read * made_per_s / streams)


def _expert_params(model: ModelFacts) -> float:
    """From all parameters and those that a token uses: what both have is always used."""
    if not model.experts or not model.experts_per_token:
        return 0.0
    unused = 1 - model.experts_per_token / model.experts
    return (model.params_b - model.active_params_b) * 1e9 / unused


def _attention_flops(model: ModelFacts) -> float:
    """Of a layer. MLA multiplies with the latent vectors themselves."""
    heads = model.heads or 0
    if model.kv_lora_rank:
        return 2.0 * heads * (2 * model.kv_lora_rank + (model.rope_head_dim or 0))
    return 4.0 * heads * (model.head_dim or 0)


def peak_flops(accelerator: Accelerator, computed_in: str, family: str = "") -> float | None:
    """A second. What an accelerator cannot multiply is multiplied in the next wider type.
    llama.cpp sums up in 16 bits (cuBLAS's COMPUTE_16F), which GeForce cards do twice as fast."""
    a = accelerator
    plain = a.bf16_tflops or a.fp16_tflops
    if family == "llama.cpp":
        plain = a.half_sum_tflops or plain
    published = {
        "fp4": a.fp4_tflops or a.fp8_tflops or plain,
        "fp8": a.fp8_tflops or plain,
        "int8": a.int8_tops or plain,
        BLOCKS: a.int8_tops,
    }.get(computed_in, plain)
    if published:
        return published * 1e12
    if a.kind == "cpu" and a.cores:
        has_amx = a.vendor == "Intel" and "xeon" in a.id
        has_amx = has_amx and computed_in != BLOCKS
        twice = _NARROW if computed_in == BLOCKS or (computed_in == "int8" and has_amx) else 1
        return a.cores * (_AMX_CORE_FLOPS if has_amx else _CORE_FLOPS) * twice
    if a.kind == "soc" and a.bandwidth_gb_s:
        return a.bandwidth_gb_s * 1e9 * _SOC_FLOPS_A_BYTE
    return None


def hardware_class(accelerator: Accelerator) -> str:
    """large (HBM), small (GDDR), cpu or soc."""
    if accelerator.kind != "gpu":
        return accelerator.kind
    bandwidth = accelerator.bandwidth_gb_s or 0.0
    is_large = bandwidth > _SMALL_BELOW_GB_S and not accelerator.id.startswith(_SMALL_NAMES)
    return "large" if is_large else "small"


def is_linked(accelerator: Accelerator) -> bool:
    """Whether several have links of their own (NVLink, Infinity Fabric), not the bus alone."""
    is_on_the_bus = any(each in accelerator.id for each in _ON_THE_BUS)
    return hardware_class(accelerator) != "small" and not is_on_the_bus


def efficiency_of(
    values: Mapping[str, float],
    family: str,
    accelerator: Accelerator,
    computed_in: str,
    has_experts: bool,
    bits: float = 16.0,
) -> Efficiency:
    """From fitted values; what a family or class has no value of its own for is one. `bits` are
    those of a weight."""

    def of(name: str, default: float = 1.0) -> float:
        return values.get(name, default)

    kind = hardware_class(accelerator)
    both = f"{family}.{kind}"
    bandwidth = of(f"bandwidth.{family}") * of(f"bandwidth.{kind}") * of(f"bandwidth.{both}")
    if bits < _UNPACKED_BELOW_BITS and computed_in != "fp4":
        bandwidth *= of("bandwidth.unpacked") * of(f"bandwidth.unpacked.{both}")
    is_amd = accelerator.vendor == "AMD" and kind == "large"
    compute = _reached(values, family, accelerator) * of(f"compute.{computed_in}")
    if bits < _PLAIN_BITS and computed_in == "bf16":
        compute *= of("compute.widened")
    link = "linked" if is_linked(accelerator) else "bus"
    if has_experts:
        compute *= of("compute.experts")
        bandwidth *= of("bandwidth.experts")
    shared = of("amd") if is_amd else 1.0
    ramp = of("ramp", 0.0) if accelerator.kind == "gpu" else 0.0
    return Efficiency(
        compute=compute * shared,
        bandwidth=bandwidth * shared,
        step_s=of(f"step_s.{family}"),
        sequence_s=of("sequence_s"),
        apart=of("apart"),
        ramp=ramp,
        answer_ramp=_answer_ramp(family, ramp, bits < _PLAIN_BITS and computed_in == "bf16"),
        layer_s=of(f"layer_s.{family}", 0.0) * of(f"layer_s.{both}"),
        hop_s=of(f"hop_s.{link}", 0.0),
        link=of(f"link.{link}", math.inf),
    )


def _answer_ramp(family: str, ramp: float, is_widened: bool) -> float:
    """Kernels that widen weights (Marlin, Frantar et al. 2024) multiply tiles of 16 rows, where
    Hopper's own instructions have 64 (wgmma)."""
    if family in _BY_VECTOR:
        return 0.0
    return ramp / 4 if is_widened else ramp


def _reached(values: Mapping[str, float], family: str, accelerator: Accelerator) -> float:
    """A share of the peak. What the kernels reach at most and what the power allows hold it back
    one after the other: 1 / (1 / kernels + (peak / W) / power)."""
    kind = hardware_class(accelerator)
    names = (f"compute.{family}", f"compute.{kind}", f"compute.{family}.{kind}")
    kernels = math.prod(values.get(name, 1.0) for name in names)
    power = values.get(f"power.{family}")
    if accelerator.kind != "gpu" or power is None:
        return kernels
    peak = (peak_flops(accelerator, "bf16", family) or 0.0) / 1e12
    watts = accelerator.power_w
    return 1 / (1 / kernels + (peak / watts if watts else _USUAL_TFLOPS_A_WATT) / power)
