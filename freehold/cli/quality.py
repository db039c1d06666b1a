"""`freehold model measure`, and how its results are shown."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from freehold.catalog.fetched import Progress as Tell
from freehold.catalog.store import ModelStore
from freehold.cli.terminal import interrupt
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    print_json,
    stderr,
    table,
)
from freehold.config import load
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard, Quality, QualityTrial, Task
from freehold.core.words import size


def measure(
    name: Annotated[str, typer.Argument(help="A stored model's name or digest.")],
    tokens: Annotated[
        int | None,
        typer.Option(min=128, help="A quick look at so many tokens; without it all of the text."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what the openvino engine's weights and kv_cache formats lose."""
    from freehold.deploy.quality import measure_quality

    with errors_in_a_sentence(as_json):
        store = ModelStore(load.home().path)
        card = store.get(name)
        if card.task is not Task.CHAT:
            raise UserError(
                Code.UNSUPPORTED_ENDPOINT,
                f"{card.name} makes no text: measure a model whose task is chat.",
            )
        with interrupt.once(), _progress(stderr) as tell:
            tell("Checking the files", 0, 0)
            store.verify(card)
            quality = measure_quality(store.files(card), tokens, tell)
        card = store.record(card, quality)
    if as_json:
        print_json(dataclasses.asdict(quality))
    else:
        print_quality(card)


def print_quality(card: ModelCard) -> None:
    """Also for a model whose formats nobody measured: the choice is not made silently."""
    quality = card.quality
    if quality is None:
        if card.task is Task.CHAT:
            console.print(
                "\nFormats of the openvino engine: not measured; "
                f"`freehold model measure {card.name}` does.",
                markup=False,
            )
        return
    when = datetime.fromtimestamp(quality.measured_at_us / 1e6, UTC).strftime("%Y-%m-%d")
    console.print(
        f"\nFormats of the {quality.engine} engine, measured on {quality.machine} on {when}, "
        f"over {quality.scored_tokens:,} tokens:",
        markup=False,
    )
    table(
        [
            "weights", "kv_cache", "perplexity", "mean KL", "p99 KL", "same top token",
            "size", "KV a token", "tok/s, 1 stream", "8 streams", "",
        ],
        [_row(trial, quality) for trial in quality.trials],
        "",
    )  # fmt: skip
    console.print(_verdict(quality), markup=False, soft_wrap=True)


def _row(trial: QualityTrial, quality: Quality) -> list[object]:
    return [
        trial.weights,
        trial.kv_cache,
        f"{trial.perplexity:.2f}",
        f"{trial.mean_kl_nats:.4f}",
        f"{trial.p99_kl_nats:.3f}",
        f"{trial.top1_agreement:.1%}",
        size(trial.weights_bytes),
        size(trial.kv_bytes_per_token),
        trial.decode_tokens_per_s,
        trial.decode_tokens_per_s_of_8,
        f"loses more than {quality.quality_bound_kl_nats} nats" if trial.exceeds_bound else "",
    ]


def _verdict(quality: Quality) -> str:
    told = (
        f"The bound is {quality.quality_bound_kl_nats} nats of mean KL from "
        f"{quality.trials[0].weights}, which computes with this file's weights in full precision; "
        "speeds differ by some percent between runs."
    )
    beyond = [
        f"{each.weights} with {each.kv_cache}" for each in quality.trials if each.exceeds_bound
    ]
    if beyond:
        told += f"\nWarning: beyond the bound: {', '.join(beyond)}."
    return told


@contextmanager
def _progress(told: Console) -> Iterator[Tell]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=told, transient=True) as bars:
        task = bars.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bars.console.print(f"  {what}", markup=False)
            bars.update(task, description=what, completed=done, total=total or None)

        yield tell
