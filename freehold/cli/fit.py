"""`freehold fit`: whether a model fits, on what, with how much context, and how fast it is."""

from typing import Annotated, Any

import typer

from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, print_json, table
from freehold.config import load
from freehold.core.facts import ModelFacts
from freehold.decide.speed import fitted
from freehold.decide.speed.fit import Fit
from freehold.operate.decisions.fits import THIS, Asked, as_plain, fits


def fit_(
    model: Annotated[str, typer.Argument(help="A model of the facts, or a stored one.")],
    on: Annotated[
        str,
        typer.Option(
            help="With commas between: l4, a100 (all kinds of it), `this` (this machine)."
        ),
    ] = THIS,
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
    asked = Asked(model, on, context, precision, streams, cache_bits, adapters, rank)
    with errors_in_a_sentence(as_json):
        home = load.home()
        found = fits(home, load.settings(home.settings), asked)
        if as_json:
            print_json(as_plain(found, streams))
        else:
            _show(found.shape, found.context, streams, found.rows)


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
            "Speeds are computed: on published measurements that no fit saw they were off by "
            f"{fitted.MEDIAN_ERROR:.0%} in the median, and nine in ten by "
            f"{fitted.NINE_IN_TEN_WITHIN:.0%} at most.",
            soft_wrap=True,
        )
    if any(each.accelerator.id == THIS and each.steps is None for each in found):
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
