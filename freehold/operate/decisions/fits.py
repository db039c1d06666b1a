"""Whether a model fits, on what, with how much context, and how fast it is: of the facts, and of
this machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from freehold.catalog.facts import load_facts
from freehold.catalog.shape import facts_of
from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.errors import Code, UserError
from freehold.core.facts import Accelerator, Facts, ModelFacts
from freehold.core.model import ModelCard
from freehold.core.names import like
from freehold.core.plan import Precision
from freehold.decide.speed import fitted, memory
from freehold.decide.speed.fit import Fit, fit, fit_here, precisions_for

if TYPE_CHECKING:
    from freehold.deploy.measured import Here

_COUNTS = (1, 2, 4, 8)
THIS = "this"


@dataclass(frozen=True, slots=True)
class Asked:
    """`on` and `precision` name several with commas between; without a precision all are
    tried that the accelerator has."""

    model: str
    on: str = THIS
    context: int | None = None  # 4096, or what the model reads
    precision: str | None = None
    streams: int = 1
    cache_bits: int = 16
    adapters: int = 0
    rank: int = 16


@dataclass(frozen=True, slots=True)
class Fits:
    shape: ModelFacts
    context: int
    rows: list[Fit]


def fits(home: Home, settings: Settings, asked: Asked) -> Fits:
    """Raises `UserError`: `MODEL_NOT_FOUND`, `INVALID_VALUE`."""
    facts, store = load_facts(home.path), ModelStore(home.path)
    shape, card = _model(asked.model, facts, store)
    accelerators = [each for name in _names(asked.on, "on") for each in _accelerators(name, facts)]
    length = asked.context or min(4096, shape.context_length or 4096)
    wanted = (
        None
        if asked.precision is None
        else [_precision(each) for each in _names(asked.precision, "precision")]
    )
    named = [each for each in accelerators if each is not None]
    beside = asked.adapters, asked.rank
    rows = [*_on_facts(shape, named, wanted, length, asked.cache_bits, *beside)]
    if None in accelerators:
        rows += _on_this(home, settings, store, shape, card, length, *beside)
    return Fits(shape, length, rows)


def as_plain(found: Fits, streams: int) -> dict[str, Any]:
    return _as_json(found.shape, found.context, streams, found.rows)


def _names(told: str, option: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in told.split(",") if name.strip()))
    if not names:
        raise UserError(
            Code.INVALID_VALUE, f"`--{option}` names nothing: name one or more.", param=option
        )
    return names


def _model(name: str, facts: Facts, store: ModelStore) -> tuple[ModelFacts, ModelCard | None]:
    """A stored model goes before one of the facts, as its own files tell most."""
    card = store.find(name)
    if card is not None:
        return facts_of(card, store), card
    if name in facts.models:
        if not memory.has_shape(facts.models[name]):
            raise UserError(
                Code.INVALID_VALUE,
                f"The shape of {name} is not in the facts: put its layers, hidden_size, heads, "
                f"kv_heads and head_dim into a file `facts/models.yaml` of your home.",
            )
        return facts.models[name], None
    known = [*facts.models, *(each.name for each in store.list())]
    raise UserError(
        Code.MODEL_NOT_FOUND,
        f"No model {name[:80]!r} is in the facts or stored here{like(name, known)}.",
    )


def _accelerators(name: str, facts: Facts) -> list[Accelerator | None]:
    """Of the name of several, as `a100`, all. None: this machine."""
    if name == THIS:
        return [None]
    if name in facts.accelerators:
        return [facts.accelerators[name]]
    kinds = [each for key, each in facts.accelerators.items() if key.startswith(f"{name}_")]
    if kinds:
        return list(kinds)
    raise UserError(
        Code.INVALID_VALUE,
        f"No accelerator {name[:80]!r} is in the facts{like(name, [*facts.accelerators, THIS])}.",
        param="on",
    )


def _precision(name: str) -> Precision:
    try:
        return Precision(name)
    except ValueError:
        raise UserError(
            Code.INVALID_VALUE,
            f"No precision is {name[:40]!r}: there are {', '.join(Precision)}.",
            param="precision",
        ) from None


def _on_facts(
    shape: ModelFacts,
    accelerators: Iterable[Accelerator],
    wanted: list[Precision] | None,
    context: int,
    cache_bits: int,
    adapters: int,
    rank: int,
) -> Iterator[Fit]:
    for accelerator in accelerators:
        for precision in wanted or precisions_for(accelerator):
            for count in _COUNTS if accelerator.kind == "gpu" else (1,):
                found = fit(
                    shape,
                    accelerator,
                    count,
                    precision,
                    context,
                    kv_bytes=cache_bits / 8,
                    adapters=adapters,
                    rank=rank,
                )
                if found is not None:
                    yield found


def _on_this(
    home: Home,
    told_settings: Settings,
    store: ModelStore,
    shape: ModelFacts,
    card: ModelCard | None,
    context: int,
    adapters: int,
    rank: int,
) -> Iterator[Fit]:
    """In the formats that engines here would keep it in; by the measurement of this very model,
    else by the newest of another."""
    from freehold.deploy.measured import (
        Measurements,
        cached_bytes,
        format_of,
        stored_format,
        this_machine,
    )
    from freehold.deploy.probe import read_machine

    settings = told_settings.engines
    probed = read_machine()
    machine = this_machine(probed)
    told = Measurements(store, home.cache, probed, settings).find()
    own = [each for each in told if card is not None and each.card.digest == card.digest]
    kept = [("llama_cpp", memory.Q8_0), ("llama_cpp", memory.Q4_K_M)]
    if card is not None:
        kept = [("llama_cpp", stored_format(card))] if card.format == "gguf" else []
        kept.append(("openvino", format_of(card, "openvino", settings)))
    for engine, each in kept:
        same = [here for here in told if here.engine == engine]
        used = next(iter([here for here in same if here in own] or same or told), None)
        is_own = used is not None and used in own and used.engine == engine
        yield fit_here(
            shape,
            machine,
            each,
            context,
            used.hardware if used else None,
            _rests_on(used, is_own),
            cached_bytes(shape, engine, settings),
            adapters,
            rank,
        )


def _rests_on(used: "Here | None", is_own: bool) -> str | None:
    if used is None:
        return None
    return used.card.name if is_own else f"{used.card.name} on {used.engine}"


def _as_json(shape: ModelFacts, context: int, streams: int, found: list[Fit]) -> dict[str, Any]:
    return {
        "model": shape.id,
        "context_tokens": context,
        "streams": streams,
        "computed_speeds_are_off_by": {
            "median": fitted.MEDIAN_ERROR,
            "nine_in_ten_within": fitted.NINE_IN_TEN_WITHIN,
        },
        "rows": [_row(each, streams) for each in found],
    }


def _row(each: Fit, streams: int) -> dict[str, Any]:
    held, ttft = each.memory, each.ttft_s
    return {
        "accelerator": each.accelerator.id,
        "count": each.count,
        "format": each.kept.name,
        "fits": held.streams >= streams,
        "why_not": held.why_not,
        "bytes_of_each_accelerator": {
            "capacity": round(held.capacity),
            "weights": round(held.weights),
            "adapters": round(held.adapters),
            "activations": round(held.activations),
            "reserve": round(held.reserve),
            "free": round(max(held.free, 0)),
            "cache_of_a_stream": round(held.kv_sequence),
        },
        "longest_context_tokens": each.longest_context,
        "speed": None if each.steps is None else "measured" if each.is_measured else "computed",
        "computed_from": None if each.is_measured else each.measured_with,
        "ttft_ms_of_1000_tokens": None if ttft is None else round(ttft * 1000, 1),
        "tokens_per_s_of_one": _rate(each, 1),
        "tokens_per_s_of_streams": _rate(each, streams),
        "streams_that_fit": held.streams,
        "streams_at_once": each.at_once,
        "tokens_per_s_of_all": _rate(each, each.at_once),
    }


def _rate(each: Fit, streams: int) -> float | None:
    found = each.tokens_per_s(streams)
    return None if found is None else round(found, 1)
