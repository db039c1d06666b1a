"""`freehold fit`: whether a model fits, on what, with how much context, and how fast it is."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.catalog.facts import load_facts
from freehold.catalog.shape import facts_of
from freehold.catalog.store import ModelStore
from freehold.cli.output import Json, console, errors_in_a_sentence, print_json, table
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError
from freehold.core.facts import Accelerator, Facts, ModelFacts
from freehold.core.model import ModelCard
from freehold.core.names import like
from freehold.core.plan import Precision
from freehold.decide import fitted, memory
from freehold.decide.fit import Fit, fit, fit_here, precisions_for

if TYPE_CHECKING:
    from freehold.deploy.measured import Here

_COUNTS = (1, 2, 4, 8)
_THIS = "this"


def fit_(
    model: Annotated[str, typer.Argument(help="A model of the facts, or a stored one.")],
    on: Annotated[
        str,
        typer.Option(help="Accelerators, with commas between; `this` is this machine."),
    ] = _THIS,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of each stream; else 4096, or what it reads.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of bf16, fp8, int8, int4, with commas between.")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Streams that must fit at once.")] = 1,
    cache_bits: Annotated[
        int, typer.Option(min=4, max=32, help="Of each cached key and value, on accelerators.")
    ] = 16,
    adapters: Annotated[int, typer.Option(min=0, help="LoRA adapters held beside it.")] = 0,
    rank: Annotated[int, typer.Option(min=1, max=512, help="The rank of each.")] = 16,
    as_json: Json = False,
) -> None:
    """Show whether a model fits, what memory it takes, how much context fits, and how fast it
    is."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        facts, store = load_facts(home.path), ModelStore(home.path)
        shape, card = _model(model, facts, store)
        accelerators = [_accelerator(name, facts) for name in _names(on, "on")]
        length = context or min(4096, shape.context_length or 4096)
        wanted = (
            None
            if precision is None
            else [_precision(each) for each in _names(precision, "precision")]
        )
        named = [each for each in accelerators if each is not None]
        this: Iterable[Fit] = ()
        if None in accelerators:
            this = _on_this(home, store, shape, card, length, adapters, rank)
        found = [
            *_on_facts(shape, named, wanted, length, cache_bits, adapters, rank),
            *this,
        ]
        if as_json:
            print_json(_as_json(shape, length, streams, found))
        else:
            _show(shape, length, streams, found)


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


def _accelerator(name: str, facts: Facts) -> Accelerator | None:
    """None: this machine."""
    if name == _THIS:
        return None
    if name in facts.accelerators:
        return facts.accelerators[name]
    raise UserError(
        Code.INVALID_VALUE,
        f"No accelerator {name[:80]!r} is in the facts{like(name, [*facts.accelerators, _THIS])}.",
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

    settings = load.settings(home.settings).engines
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


def _show(shape: ModelFacts, context: int, streams: int, found: list[Fit]) -> None:
    at = "one stream" if streams == 1 else f"{streams:,} streams"
    console.print(f"{shape.name}, {at} of {context:,} tokens; GB are of each accelerator")
    rows = [_cells(each, streams) for each in found]
    columns = (
        "accelerator", "format", "fits", "weights GB", "cache GB", "other GB", "free GB",
        "longest context", "TTFT ms", "tokens/s", "streams", "tokens/s of all", "",
    )  # fmt: skip
    table(columns, rows, "No engine here has such a format on such an accelerator.")
    if any(each.steps is not None and each.measured_with is None for each in found):
        console.print(
            "Speeds are computed: on published measurements that were held out they were off by "
            f"{fitted.MEDIAN_ERROR:.0%} in the median, and nine in ten by "
            f"{fitted.NINE_IN_TEN_WITHIN:.0%} at most.",
            soft_wrap=True,
        )
    if any(each.accelerator.id == _THIS and each.steps is None for each in found):
        console.print(
            "Nothing was measured on this machine yet: `freehold bench --autotune` does, on any "
            "stored model.",
            soft_wrap=True,
        )


def _cells(each: Fit, streams: int) -> tuple[Any, ...]:
    held = each.memory
    name = each.accelerator.id if each.count == 1 else f"{each.count} x {each.accelerator.id}"
    fits = held.streams >= streams
    if held.why_not or not fits:
        why = held.why_not or _too_little(each, streams)
        sizes = ("", "", "", "") if held.why_not else _sizes(each, streams)
        return (name, each.kept.name, False, *sizes, "", "", "", "", "", why)
    ttft = each.ttft_s
    return (
        name,
        each.kept.name,
        fits,
        *_sizes(each, streams),
        f"{each.longest_context:,}",
        None if ttft is None else f"{ttft * 1000:,.0f}",
        _told(each.tokens_per_s(streams)),
        f"{each.at_once:,}",
        _told(each.tokens_per_s(each.at_once)),
        "measured" if each.is_measured else _from(each),
    )


def _from(each: Fit) -> str:
    return f"computed from {each.measured_with}" if each.measured_with else ""


def _sizes(each: Fit, streams: int) -> tuple[str, str, str, str]:
    held = each.memory
    other = held.adapters + held.activations + held.reserve
    cache = held.kv_sequence * streams
    told = (held.weights, cache, other, max(held.free - cache, 0))
    return tuple(f"{size / 1e9:.1f}" for size in told)  # type: ignore[return-value]


def _too_little(each: Fit, streams: int) -> str:
    lacking = each.memory.kv_sequence * streams - each.memory.free
    return f"{lacking / 1e9:,.1f} GB too little"


def _told(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
