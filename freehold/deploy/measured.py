"""What this machine gave when a model ran on it, as hardware that other models can be put on."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from freehold.catalog.shape import facts_of
from freehold.catalog.store import ModelStore
from freehold.config.schema import EngineSettings, Settings
from freehold.core.errors import UserError
from freehold.core.facts import Accelerator, Facts, ModelFacts
from freehold.core.model import ModelCard, Task
from freehold.decide.money.machines import UNTOLD, Costs
from freehold.decide.speed import memory
from freehold.decide.speed.throughput import Hardware, measured_hardware
from freehold.decide.ways.at_hand import THIS, AtHand, Measurement
from freehold.decide.ways.options import canonical
from freehold.deploy.autotune import Record, Records, Trial, Workload
from freehold.deploy.probe import Machine
from freehold.deploy.speed import ANSWER_TOKENS, PROMPT_TOKENS, Speeds

_ENGINES = ("openvino", "llama_cpp")


@dataclass(frozen=True, slots=True)
class Here:
    """`card` is the model that ran."""

    card: ModelCard
    engine: str
    hardware: Hardware
    measured_at_us: int


def this_machine(machine: Machine) -> Accelerator:
    return Accelerator(
        id=THIS, name=str(machine), vendor="", kind="cpu", memory_gb=machine.memory_bytes / 1e9,
        bandwidth_gb_s=None, fp16_tflops=None, bf16_tflops=None, int8_tops=None, fp8_tflops=None,
        power_w=None, released=None, sources=(), cores=machine.cores,
    )  # fmt: skip


def stored_format(card: ModelCard) -> memory.Format:
    bits = card.size_bytes * 8 / max(card.parameters, 1)
    return memory.Format(f"{card.quantization} as stored", bits, bits)


def format_of(card: ModelCard, engine: str, settings: EngineSettings) -> memory.Format:
    """What an engine here keeps a model's weights in."""
    if engine != "openvino":
        return stored_format(card)
    is_four = settings.openvino.weights == "int4"
    return memory.OPENVINO_INT4 if is_four else memory.OPENVINO_INT8


def cached_bytes(shape: ModelFacts, engine: str, settings: EngineSettings) -> float:
    """Of a value in its cache."""
    if engine != "openvino" or settings.openvino.kv_cache != "u8" or not shape.head_dim:
        return 2.0
    return memory.openvino_u8_bytes(shape.head_dim)


class Measurements:
    """Of this machine, under `cache/`: what a gateway measured for its prices, and what
    `bench --autotune` did."""

    def __init__(
        self, store: ModelStore, cache: Path, machine: Machine, settings: EngineSettings
    ) -> None:
        self._store, self._machine, self._settings = store, machine, settings
        self._speeds, self._records = Speeds(cache, machine), Records(cache)

    def find(self) -> list[Here]:
        """Of all stored models whose files tell their shape, the newest first."""
        found = [here for card, shape in self.shapes() for here in self._of(card, shape)]
        return sorted(found, key=lambda here: -here.measured_at_us)

    def shapes(self) -> Iterator[tuple[ModelCard, ModelFacts]]:
        """Of stored models that write, where their files tell it."""
        for card in self._store.list():
            if card.task is not Task.CHAT:
                continue
            try:
                yield card, facts_of(card, self._store)
            except (UserError, OSError):
                continue  # nothing follows from its speed

    def _of(self, card: ModelCard, shape: ModelFacts) -> Iterator[Here]:
        for engine in _ENGINES:
            speed = self._speeds.find(card, engine)
            if speed is None or not speed.made_per_s:
                continue
            kept = format_of(card, engine, self._settings)
            hardware = measured_hardware(
                shape,
                kept,
                speed.read_per_s,
                speed.made_per_s,
                speed.streams,
                PROMPT_TOKENS,
                ANSWER_TOKENS,
                cached_bytes(shape, engine, self._settings),
            )
            yield Here(card, engine, hardware, speed.measured_at_us)
        record = self._records.find(card, self._machine)
        if record is None:
            return
        for trial in _best(record):
            kept = format_of(card, trial.candidate.engine, self._settings)
            values = cached_bytes(shape, trial.candidate.engine, self._settings)
            told = _from_trial(shape, kept, trial, record.workload, values)
            if told is not None:
                yield Here(card, trial.candidate.engine, told, record.measured_at_us)


def _best(record: Record) -> Iterator[Trial]:
    """Of each engine."""
    for engine in _ENGINES:
        sound = [
            each
            for each in record.trials
            if each.candidate.engine == engine and each.refused_because is None
        ]
        if sound:
            yield max(sound, key=lambda trial: trial.tokens_per_s)


def _from_trial(
    shape: ModelFacts,
    kept: memory.Format,
    trial: Trial,
    load: Workload,
    kv_bytes: float,
) -> Hardware | None:
    """All streams begin at once, and engines here read prompts together as far as a step goes: the
    middle one's first token comes when all are read, and answers are made in what is left."""
    if not trial.ttft_ms or not trial.tokens_per_s:
        return None
    reading_s = trial.ttft_ms / 1000
    read_per_s = load.streams * load.prompt_tokens / reading_s
    made = load.streams * load.answer_tokens
    making_s = made / trial.tokens_per_s - reading_s
    if making_s <= 0:
        return None
    return measured_hardware(
        shape,
        kept,
        read_per_s,
        made / making_s,
        load.streams,
        load.prompt_tokens,
        load.answer_tokens,
        kv_bytes,
    )


def at_hand(
    store: ModelStore, cache: Path, machine: Machine, settings: Settings, facts: Facts
) -> AtHand:
    """This machine as a decision sees it: what it measured, what is stored, and what it costs."""
    told = Measurements(store, cache, machine, settings.engines)
    known = {canonical(name) for name in facts.models}
    return AtHand(
        this_machine(machine),
        measured=tuple(_measurement(each, settings.engines) for each in told.find()),
        models=tuple(shape for _, shape in told.shapes() if canonical(shape.id) not in known),
        costs=_costs(settings),
    )


def _measurement(here: Here, settings: EngineSettings) -> Measurement:
    kept = format_of(here.card, here.engine, settings)
    caches_bytes = here.engine == "openvino" and settings.openvino.kv_cache == "u8"
    return Measurement(here.card.name, here.engine, kept, here.hardware, caches_bytes)


def _costs(settings: Settings) -> Costs:
    """Published prices are in dollars; where nobody says what a dollar is, nothing is told."""
    own = settings.prices.machine
    dollar = settings.prices.for_a_dollar or (Decimal(1) if settings.currency == "USD" else None)
    if dollar is None:
        return UNTOLD
    return Costs(
        None if own.per_hour is None else own.per_hour / dollar,
        None if own.purchase is None else own.purchase / dollar,
        max(round(own.lifetime_years * 12), 1),
        Decimal(str(own.watts)),
        own.per_kwh / dollar,
        own.per_month / dollar,
    )
