"""The machine that is there already: accelerators that the facts know, or a machine whose speed
was measured with some model."""

from dataclasses import dataclass

from freehold.core.facts import Accelerator, ModelFacts
from freehold.core.plan import Precision
from freehold.decide.load.replica import Batching
from freehold.decide.money.machines import UNTOLD, Costs
from freehold.decide.speed import memory
from freehold.decide.speed.memory import Format, Memory
from freehold.decide.speed.throughput import Hardware, Roofline, on_hardware
from freehold.decide.ways.options import canonical

THIS, THIS_MACHINE = "this", "this machine"  # as an accelerator, and in words
NOTHING_MEASURED = (
    "Nothing was measured on this machine yet: `freehold bench MODEL --autotune` does, with any "
    "model that is stored here."
)
# What engines on processors take at once, and read in a step, before all others write again.
_BATCHING = Batching(sequences=32, step_tokens=256, mixes=False)
_OTHERS = {Precision.INT8: memory.Q8_0, Precision.INT4: memory.Q4_K_M}
_BITS = {Precision.INT4: 6.0, Precision.INT8: 10.0, Precision.BF16: 40.0}  # at most


@dataclass(frozen=True, slots=True)
class Measurement:
    """Of one model with one engine. `caches_bytes` keeps its cache in 8 bits."""

    model: str
    engine: str
    kept: Format
    hardware: Hardware
    caches_bytes: bool = False

    @property
    def precision(self) -> Precision:
        return next(each for each, most in _BITS.items() if self.kept.bits <= most)


@dataclass(frozen=True, slots=True)
class AtHand:
    """Where nothing is told of `measured`, the facts know the accelerator, and its speed is
    computed. `models` are those that are stored there and not among the facts."""

    accelerator: Accelerator
    count: int = 1
    measured: tuple[Measurement, ...] | None = None  # the newest first
    models: tuple[ModelFacts, ...] = ()
    costs: Costs = UNTOLD

    def is_measured(self, accelerator: str | None) -> bool:
        return self.measured is not None and accelerator == self.accelerator.id

    @property
    def batching(self) -> Batching:
        return _BATCHING

    def times(
        self, model: ModelFacts, precision: Precision, context: int, adapters: int, rank: int
    ) -> Roofline | None:
        """By the measurement of this very model, else of another; None where it doesn't fit."""
        used = self._used(model, precision)
        if used is None:
            return None
        kept = used.kept if _is_of(used, model, precision) else _OTHERS.get(precision)
        if kept is None:
            return None
        values = 2.0
        if used.caches_bytes and model.head_dim:
            values = memory.openvino_u8_bytes(model.head_dim)
        held = self._memory(model, kept, values, context, adapters, rank)
        if not held.fits:
            return None
        return on_hardware(model, kept, used.hardware, held.kv_tokens, values)

    def rests_on(self, model: ModelFacts, precision: Precision) -> str | None:
        """What a speed of it is taken from, in a sentence."""
        used = self._used(model, precision)
        if used is None:
            return None
        if _is_of(used, model, precision):
            return f"Its step times were measured on this machine, with {used.engine}."
        if canonical(used.model) == canonical(model.id):
            return (
                f"Its step times are computed from those that were measured on this machine in "
                f"{used.precision}, with {used.engine}."
            )
        return (
            f"Its step times are computed from those of {used.model} with {used.engine}, measured "
            "on this machine: pull it, then `freehold bench MODEL --autotune` measures its own."
        )

    def _used(self, model: ModelFacts, precision: Precision) -> Measurement | None:
        """Its own in this format, else another's in it, else any: the newest of those."""
        told = self.measured or ()
        own = [each for each in told if _is_of(each, model, precision)]
        alike = [each for each in told if each.precision is precision]
        return next(iter(own or alike or told), None)

    def _memory(
        self,
        model: ModelFacts,
        kept: Format,
        values: float,
        context: int,
        adapters: int,
        rank: int,
    ) -> Memory:
        return memory.memory_of(
            model, self.accelerator, 1, kept, values, context, adapters=adapters, rank=rank
        )


def _is_of(measurement: Measurement, model: ModelFacts, precision: Precision) -> bool:
    is_same = canonical(measurement.model) == canonical(model.id)
    return is_same and measurement.precision is precision
