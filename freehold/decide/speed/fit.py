"""Whether a model fits on some accelerators in a format, what it takes there, and how fast."""

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.core.facts import Accelerator, ModelFacts
from freehold.core.plan import Precision
from freehold.decide.speed import fitted
from freehold.decide.speed.memory import (
    FORMATS,
    MXFP4,
    Q4_K_M,
    Q8_0,
    Format,
    Memory,
    longest_context,
    memory_of,
)
from freehold.decide.speed.throughput import (
    BLOCKS,
    MOST_AT_ONCE,
    Hardware,
    Roofline,
    efficiency_of,
    on_hardware,
    roofline,
)

_GGUF = {Precision.BF16: FORMATS[Precision.BF16], Precision.INT8: Q8_0, Precision.INT4: Q4_K_M}
_PROMPT = 1000
# What llama.cpp and the shared-base engine are given at once here at most.
_MOST_ON_CPU = 32


@dataclass(frozen=True, slots=True)
class Fit:
    """`steps` is None where nothing is known to compute a speed from. `measured_with` is the
    model that was measured on this very hardware, where the speed rests on that."""

    model: ModelFacts
    accelerator: Accelerator
    count: int
    kept: Format
    family: str
    memory: Memory
    longest_context: int
    steps: Roofline | None
    measured_with: str | None = None

    @property
    def is_measured(self) -> bool:
        return self.measured_with == self.model.id

    @property
    def ttft_s(self) -> float | None:
        """Of a prompt of 1,000 tokens, alone."""
        return self.steps.prefill_s(_PROMPT, 0) if self.steps and self.memory.fits else None

    @property
    def at_once(self) -> int:
        """Streams that fit, and that engines take at once."""
        return min(self.memory.streams, MOST_AT_ONCE.get(self.family, _MOST_ON_CPU))

    def tokens_per_s(self, streams: int) -> float | None:
        """Of all together, with half of their context there; None where they do not fit."""
        if self.steps is None or not 0 < streams <= self.memory.streams:
            return None
        return streams / self.steps.decode_s(streams, streams * self.memory.context // 2)


def family_for(accelerator: Accelerator) -> str:
    """What serves it here: vLLM on GPUs, llama.cpp elsewhere."""
    return "vllm" if accelerator.kind == "gpu" else "llama.cpp"


def format_for(model: ModelFacts, accelerator: Accelerator, precision: Precision) -> Format | None:
    """None where no engine here has it: fp8 needs a GPU."""
    if precision is Precision.INT4 and model.native_quantization == "mxfp4":
        return MXFP4
    if accelerator.kind == "gpu":
        return FORMATS[precision]
    return _GGUF.get(precision)


def precisions_for(accelerator: Accelerator) -> tuple[Precision, ...]:
    """Those worth a look: fp8 where it is multiplied as such, else int8."""
    eight = Precision.FP8 if accelerator.fp8_tflops else Precision.INT8
    return (Precision.BF16, eight, Precision.INT4)


def fit(
    model: ModelFacts,
    accelerator: Accelerator,
    count: int,
    precision: Precision,
    context: int,
    *,
    kv_bytes: float = 2.0,
    adapters: int = 0,
    rank: int = 16,
    values: Mapping[str, float] = fitted.VALUES,
) -> Fit | None:
    """By the published figures of the accelerator; None where no engine has the format there."""
    kept = format_for(model, accelerator, precision)
    if kept is None:
        return None
    family = family_for(accelerator)
    memory = memory_of(model, accelerator, count, kept, kv_bytes, context, adapters, rank)
    computed_in = _computed_in(accelerator, family, precision)
    efficiency = efficiency_of(
        values, family, accelerator, computed_in, bool(model.experts), kept.bits
    )
    steps = None
    if not memory.why_not:
        steps = roofline(
            model, accelerator, count, kept, memory, efficiency, kv_bytes, computed_in, family
        )
    longest = longest_context(model, memory, kv_bytes)
    return Fit(model, accelerator, count, kept, family, memory, longest, steps)


def fit_here(
    model: ModelFacts,
    machine: Accelerator,
    kept: Format,
    context: int,
    hardware: Hardware | None,
    measured_with: str | None,
    kv_bytes: float = 2.0,
    adapters: int = 0,
    rank: int = 16,
) -> Fit:
    """On a machine that was measured: `hardware` is what it gave then, with `measured_with`."""
    memory = memory_of(model, machine, 1, kept, kv_bytes, context, adapters, rank)
    longest = longest_context(model, memory, kv_bytes)
    steps = None
    if hardware is not None and not memory.why_not:
        steps = on_hardware(model, kept, hardware, memory.kv_tokens, kv_bytes)
    return Fit(model, machine, 1, kept, "llama.cpp", memory, longest, steps, measured_with)


def _computed_in(accelerator: Accelerator, family: str, precision: Precision) -> str:
    """Products are narrow where weights and activations both are: in fp8 and int8 on GPUs that
    multiply them, and of GGUF's blocks on CPUs; else weights of four bits are widened first."""
    if accelerator.kind == "cpu" and family == "llama.cpp" and precision is not Precision.BF16:
        return BLOCKS
    if accelerator.kind == "gpu" and precision in (Precision.FP8, Precision.INT8):
        return str(precision)
    return "bf16"
