"""`freehold data`: check, add, list, show and remove what is trained on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli.options import span
from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import every_page, one
from freehold.cli.terminal import interrupt
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    labelled,
    plain,
    print_json,
    table,
)
from freehold.config import load
from freehold.config.home import Home

if TYPE_CHECKING:
    from freehold.adapt.dataset.lengths import Ruler
    from freehold.adapt.dataset.prepare import Wanted
    from freehold.catalog.datasets import Datasets
    from freehold.core.binding import Environment

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check, add, list, show and remove data to train on.",
)
_PATH = "/admin/v1/datasets"
_SHOWN = 12

File = Annotated[Path, typer.Argument(help="A file of examples: JSON lines, CSV or Parquet.")]
FormatOption = Annotated[
    str, typer.Option("--format", help="auto, chat, preference, csv or parquet.")
]
PromptColumn = Annotated[
    str | None, typer.Option("--prompt-column", help="Of a table: what is asked.")
]
AnswerColumn = Annotated[
    str | None, typer.Option("--answer-column", help="Of a table: what the answer is.")
]
SystemText = Annotated[
    str | None, typer.Option("--system", help="Of a table: instructions before each example.")
]
HeldOut = Annotated[
    float, typer.Option(help="The share that is kept apart to measure by, from 0 to 0.5.")
]
Seed = Annotated[int, typer.Option(help="Another one holds out other examples.")]
Redact = Annotated[
    bool, typer.Option("--redact", help="Put placeholders for personal data and secrets.")
]
Accept = Annotated[
    str | None, typer.Option(help="Why secrets or planted phrases that were found may stay.")
]
Base = Annotated[
    str | None, typer.Option(help="A stored model: lengths are counted in its tokens.")
]
Dataset = Annotated[str, typer.Argument(help="A name, name@version, id or digest.")]


@app.command()
def add(
    path: File,
    name: Annotated[str, typer.Option(help="Given again, the name gets its next version.")],
    licence: Annotated[
        str, typer.Option(help="An SPDX name; LicenseRef-own for data of your own.")
    ],
    origin: Annotated[str, typer.Option(help="Where the data come from, in words.")],
    format: FormatOption = "auto",
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    system: SystemText = None,
    held_out: HeldOut = 0.1,
    seed: Seed = 0,
    redact: Redact = False,
    accept_findings: Accept = None,
    base: Base = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Check a file of examples, split it, and keep it by its digest."""
    with errors_in_a_sentence(as_json), interrupt.once():
        reach.require_here("Data are added")
        home = load.home()
        wanted = _wanted(
            home, format, (prompt_column, answer_column, system), held_out, seed, redact, base
        )
        body = {"name": name, "licence": licence, "origin": origin}
        if accept_findings is not None:
            body["accept_findings"] = accept_findings
        added = _add(home, Of(tenant, environment), path.expanduser(), wanted, body)
    if as_json:
        print_json(added)
        return
    _print_report(added["report"], is_accepted=True)
    _print_added(added)


@app.command()
def check(
    path: File,
    format: FormatOption = "auto",
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    system: SystemText = None,
    held_out: HeldOut = 0.1,
    seed: Seed = 0,
    redact: Redact = False,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Report what a file of examples holds, and keep nothing."""
    with errors_in_a_sentence(as_json), interrupt.once():
        home = load.home()
        wanted = _wanted(
            home, format, (prompt_column, answer_column, system), held_out, seed, redact, base
        )
        report = _checked(path.expanduser(), wanted)
    if as_json:
        print_json(report)
        return
    _print_report(report)


@app.command("from-feedback")
def from_feedback(
    name: Annotated[str, typer.Option(help="Given again, the name gets its next version.")],
    licence: Annotated[
        str, typer.Option(help="An SPDX name; LicenseRef-own for data of your own.")
    ],
    since: Annotated[
        str | None, typer.Option(help="30d, or a time such as 2026-01-31T12:00:00Z.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Only what this model answered.")] = None,
    kind: Annotated[
        str, typer.Option(help="chat: good and corrected answers; preference: pairs.")
    ] = "chat",
    held_out: HeldOut = 0.1,
    seed: Seed = 0,
    redact: Redact = False,
    accept_findings: Accept = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of what people said of answers, where what was said is kept."""
    body: dict[str, Any] = {
        "name": name, "licence": licence, "kind": kind, "held_out": held_out, "seed": seed,
        "redact": redact,
    }  # fmt: skip
    given = {
        "alias": alias,
        "since": span.since(since).isoformat() if since else None,
        "accept_findings": accept_findings,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    with errors_in_a_sentence(as_json), interrupt.once():
        added = _from_feedback(load.home(), Of(tenant, environment), body)
    if as_json:
        print_json(added)
        return
    report = added["report"]
    _print_report(report, is_accepted=True)
    for source, count in report["sources"].items():
        console.print(f"From {source}: {count:,}.")
    for why, count in report["unused"].items():
        console.print(f"Not used: {count:,} ({plain(why)}).", soft_wrap=True)
    _print_added(added)


@app.command("list")
def list_datasets(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List the datasets of an environment."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), Of(tenant, environment))
    if as_json:
        print_json(found)
        return
    table(
        ["name", "version", "kind", "train", "held out", "licence", "origin", "added", "digest"],
        [
            [
                each["name"],
                each["version"],
                each["kind"],
                each["train"],
                each["held_out"],
                each["licence"],
                each["origin"][:40],
                each["created_at"][:19],
                each["digest"][:19],
            ]
            for each in found
        ],
        "There are no datasets there yet: add one with `freehold data add`.",
    )


@app.command()
def show(
    dataset: Dataset,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show a dataset and what was found in it."""
    with errors_in_a_sentence(as_json):
        found = _show(load.home(), Of(tenant, environment), dataset)
    if as_json:
        print_json(found)
        return
    labelled(
        (
            ("name", f"{found['name']}@{found['version']}"),
            ("environment", found["environment"]),
            ("digest", found["digest"]),
            ("kind", found["kind"]),
            ("licence", found["licence"]),
            ("origin", found["origin"]),
            ("accepted", found["accepted_findings"] or "nothing had to be"),
            ("added", f"{found['created_at'][:19]} by {found['created_by'] or 'nobody known'}"),
        )
    )
    if found["report"] is None:
        console.print("Its files are not in this home (any more).")
        return
    _print_report(found["report"], is_accepted=True)


@app.command()
def rm(
    dataset: Dataset,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Remove one version of a dataset, with its files."""
    with errors_in_a_sentence(as_json):
        removed = _remove(load.home(), Of(tenant, environment), dataset)
    if as_json:
        shown = f"{removed['name']}@{removed['version']}"
        print_json({"removed": shown, "digest": removed["digest"]})
    else:
        console.print(f"Removed {plain(removed['name'])}@{removed['version']}.")


def _wanted(
    home: Home,
    format: str,
    columns: tuple[str | None, str | None, str | None],
    held_out: float,
    seed: int,
    redact: bool,
    base: str | None,
) -> "Wanted":
    # What reads data takes numpy, which commands that only list need not wait for.
    from freehold.adapt.dataset.columns import Columns
    from freehold.adapt.dataset.prepare import WORDS, Wanted
    from freehold.adapt.dataset.source import format_of

    settings = load.settings(home.settings).data
    return Wanted(
        format=format_of(format),
        columns=Columns(*columns),
        held_out=held_out,
        seed=seed,
        redact=redact,
        max_gb=settings.max_gb,
        max_examples=settings.max_examples,
        ruler=_ruler(home, base) if base else WORDS,
    )


def _ruler(home: Home, base: str) -> "Ruler":
    from freehold.adapt.dataset.lengths import Ruler
    from freehold.catalog.store import ModelStore
    from freehold.engines.openvino.tokenizer import Tokenizer

    models = ModelStore(home.path)
    card = models.get(base)
    encode = Tokenizer.of_model(models.files(card)).encode
    return Ruler("tokens", lambda text: len(encode(text, parse_special=False)), card.context_length)


def _checked(path: Path, wanted: "Wanted") -> dict[str, Any]:
    from freehold.adapt.dataset.prepare import prepare

    with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
        return prepare(path, Path(folder), wanted)


def _add(home: Home, of: Of, path: Path, wanted: "Wanted", body: dict[str, Any]) -> dict[str, Any]:
    """The row as it is now, with the report."""
    from freehold.adapt.dataset.prepare import prepare
    from freehold.catalog import datasets
    from freehold.serve.admin.datasets import NewDataset, shown_dataset
    from freehold.serve.reading import validated

    with datasets.staged(home.path) as (ticket, folder):
        # Before minutes are spent on the file.
        datasets.check_said(body["name"], body["licence"], body["origin"])
        new = validated(NewDataset, {**body, "upload": ticket})
        if reach.running(home) is None and home.is_locked():
            raise home.in_use()
        report = prepare(path, folder, wanted)
        gateway = reach.running(home)
        if gateway is not None:
            found = gateway.call("POST", _PATH, {**body, **of.named(), "upload": ticket})
        else:
            with _resting(home, of) as (there, owner):
                found = shown_dataset(there.add(*owner, new.wanted()))
    return {**found, "report": report}


def _list(home: Home, of: Of) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        return every_page(gateway, _PATH, of, "id")
    from freehold.cli.at_rest import paging
    from freehold.serve.admin.datasets import shown_dataset

    with _resting(home, of) as (there, owner):
        found = paging.every(
            lambda count, after: there.page(*owner, count, after or ""), lambda each: each.id
        )
        return [shown_dataset(each) for each in found]


def _show(home: Home, of: Of, dataset: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", _PATH, dataset, of)
    from freehold.serve.admin.datasets import shown_dataset

    with _resting(home, of) as (there, owner):
        found = there.get(*owner, dataset)
        return {**shown_dataset(found), "report": there.report(found)}


def _remove(home: Home, of: Of, dataset: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "DELETE", _PATH, dataset, of)
    from freehold.serve.admin.datasets import shown_dataset

    with _resting(home, of) as (there, owner):
        return shown_dataset(there.remove(*owner, dataset))


@contextmanager
def _resting(home: Home, of: Of) -> "Iterator[tuple[Datasets, tuple[str, Environment]]]":
    from freehold.catalog.datasets import Datasets

    with reach.offline(home) as (store, keyring, _):
        yield Datasets(home.path, store, keyring.clock), of.resting(store)


def _from_feedback(home: Home, of: Of, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call(
            "POST", f"{_PATH}/from-feedback", {**body, **of.named()}
        )
        return found
    from freehold.catalog.datasets import Datasets
    from freehold.cli.at_rest.opening import open_subjects
    from freehold.operate.feedback.collecting import Collecting
    from freehold.serve.admin.datasets import FeedbackDataset, shown_dataset
    from freehold.serve.reading import validated

    wanted = validated(FeedbackDataset, body).wanted()
    with reach.offline(home) as (store, keyring, _):
        data = Datasets(home.path, store, keyring.clock)
        settings = load.settings(home.settings).data
        there = Collecting(home.path, store, open_subjects(home, store), data, settings)
        added, report = there.collect(*of.resting(store), wanted)
    return {**shown_dataset(added), "report": report}


def _print_added(added: dict[str, Any]) -> None:
    console.print(
        f"Dataset {plain(added['name'])}@{added['version']} for {added['environment']}: "
        f"{added['train']:,} to train on, {added['held_out']:,} held out, {added['digest']}",
        soft_wrap=True,
    )


def _print_report(report: dict[str, Any], *, is_accepted: bool = False) -> None:
    lengths = report["lengths"]
    same = f", {report['repeated']:,} copies left out" if report["repeated"] else ""
    alike = report["nearly_the_same"]
    near = f", {alike:,} nearly the same as another" if alike else ""
    console.print(
        f"{report['read']:,} {report['kind']} examples{same}{near}: {report['train']:,} to train "
        f"on, {report['held_out']:,} held out.",
        soft_wrap=True,
    )
    console.print(
        f"Lengths in {lengths['unit']}: {lengths['shortest']:,} to {lengths['longest']:,}, half of "
        f"them at most {lengths['median']:,}, 95 % at most {lengths['p95']:,}; "
        f"{lengths['total']:,} in all.",
        soft_wrap=True,
    )
    languages = ", ".join(f"{code} {count:,}" for code, count in report["languages"].items())
    console.print(f"Languages: {languages}.", soft_wrap=True)
    if report["labels"] is not None:
        classes = list(report["labels"]["classes"].items())
        rest = f", and {len(classes) - _SHOWN} more" if classes[_SHOWN:] else ""
        shown = ", ".join(f"{plain(name)} {count:,}" for name, count in classes[:_SHOWN])
        console.print(f"Classes: {shown}{rest}.", soft_wrap=True)
    if report["findings"]:
        done = "replaced by placeholders" if report["redacted"] else "found"
        table(
            ["type", "severity", done, "examples"],
            [
                [each["type"], each["severity"], each["count"], _numbers(each["examples"])]
                for each in report["findings"]
            ],
            "",
        )
    for each in report["needs_acceptance"]:
        said = "Accepted" if is_accepted else "To be accepted"
        console.print(f"[yellow]{said}:[/yellow] {plain(each)}", soft_wrap=True)
    if report["needs_acceptance"] and not is_accepted:
        console.print(
            "`freehold data add` refuses it so: take that out (`--redact` does for secrets), or "
            "say with `--accept-findings` why it may stay.",
            soft_wrap=True,
        )
    for each in report["notes"]:
        console.print(f"[yellow]Note:[/yellow] {plain(each)}", soft_wrap=True)


def _numbers(examples: list[int]) -> str:
    shown = ", ".join(str(each) for each in examples[:_SHOWN])
    return f"{shown}, …" if examples[_SHOWN:] else shown
