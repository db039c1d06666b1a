"""`freehold tune`: train an adapter from a dataset, and follow jobs."""

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.options.with_default import WithDefault
from freehold.cli.pages.file import check_place, write_page
from freehold.cli.reaching import jobs, reach
from freehold.cli.reaching.resources import one
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    labelled,
    plain,
    print_json,
    table,
)
from freehold.cli.words.job import name_of, named
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError
from freehold.core.words import counted, lasting, size

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\Z")
_TIMES = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"MB": 1e6, "GB": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}
_Id = Annotated[str, typer.Argument(metavar="ID", help="As `freehold tune list` shows it.")]


class _Default(WithDefault):
    default = "start"


app = typer.Typer(
    cls=_Default,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train an adapter from a dataset.",
)


@app.command()
def start(
    dataset: Annotated[str, typer.Argument(help="A dataset's name, name@version or digest.")],
    base: Annotated[str, typer.Option(help="The stored model to train on.")],
    name: Annotated[
        str | None, typer.Option(help="Of the adapter. Default: the dataset's and its version.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="lora or qlora.")] = None,
    bits: Annotated[
        int | None, typer.Option(help="Of the base while training: 8 or 4. Default: 16.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="sft or dpo. Default: what the dataset is for.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: by its examples.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=512, help="Default: 16.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: by the base.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=8, help="Longer examples are left out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: 0.")] = None,
    max_time: Annotated[str | None, typer.Option(help="As 2h, 90m or 600s.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="As 8GB or 800MB.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="In the currency of the settings, as 5 or 0.50.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="freehold or trl. Default: trl for what freehold cannot.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would take.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for its end.")] = False,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Say what training an adapter takes, then train it beside the gateway."""
    with errors_in_a_sentence(as_json):
        of = Of(tenant, environment)
        asked = {
            "dataset": dataset, "base": base, "name": name, "method": method, "bits": bits,
            "objective": objective, "epochs": epochs, "rank": rank,
            "learning_rate": learning_rate, "max_tokens": max_tokens, "seed": seed,
            "max_seconds": _in(max_time, _TIMES, "--max-time", "2h or 90m"),
            "max_memory_bytes": _whole(_in(max_memory, _SIZES, "--max-memory", "8GB")),
            "max_cost": max_cost, "trainer": trainer,
        }  # fmt: skip
        body = {key: value for key, value in asked.items() if value is not None} | of.named()
        gateway = reach.running(load.home())
        if gateway is None:
            _here(load.home(), of, body, estimate, yes, as_json)
            return
        told = gateway.call("POST", f"{jobs.PATH}/estimate", body)
        if estimate and as_json:
            print_json(told)
            return
        if not as_json:
            _say(told)
        if estimate:
            return
        _ask(yes)
        job = gateway.call("POST", jobs.PATH, body)
        if follow or (sys.stdout.isatty() and not as_json):
            job = _followed(gateway, job, of, as_json)
        if as_json:
            print_json(job)
        else:
            _outcome(job)


@app.command("list")
def list_jobs(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List the training jobs of an environment, newest first."""
    with errors_in_a_sentence(as_json):
        found = jobs.every(load.home(), Of(tenant, environment), "tune")
    if as_json:
        print_json(found)
        return
    table(
        ["id", "makes", "state", "progress", "created", "by"],
        [
            [
                each["id"], each["name"], each["state"],
                _progress(each["progress"]) if each["progress"] else "",
                each["created_at"][:16], each["created_by"],
            ]
            for each in found
        ],
        "There are no jobs there yet: `freehold tune DATASET --base MODEL` starts one.",
    )  # fmt: skip


@app.command()
def show(
    job_id: _Id,
    html: Annotated[
        Path | None, typer.Option(help="Write it as one page, with how the loss went.")
    ] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show a job: how far it is, or what came of it."""
    with errors_in_a_sentence(as_json):
        home, of = load.home(), Of(tenant, environment)
        if html is not None:
            check_place(html)
        found = jobs.found(home, of, job_id)
        if html is not None:
            from freehold.cli.pages.training import page

            write_page(html, page(found, jobs.log(home, of, job_id)))
    if as_json:
        print_json(found)
        return
    spec, result = found["spec"], found["result"] or {}
    known = (
        ("id", found["id"]), ("kind", found["kind"]), ("makes", found["name"]),
        ("state", found["state"] + (" (to be cancelled)" if _is_ending(found) else "")),
        ("progress", _progress(found["progress"]) if found["progress"] else "none yet"),
        ("base", named(spec, "base")), ("dataset", named(spec, "dataset")),
        ("loss", _losses(result)), ("adapter", result.get("adapter")),
        ("created", f"{found['created_at'][:19]} by {found['created_by']}"),
        ("started", (found["started_at"] or "")[:19]), ("ended", (found["ended_at"] or "")[:19]),
        ("error", (found["error"] or {}).get("message")),
    )  # fmt: skip
    labelled((label, value) for label, value in known if value)


@app.command()
def logs(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show what a job's process said."""
    with errors_in_a_sentence(as_json):
        found = jobs.log(load.home(), Of(tenant, environment), job_id)
    jobs.show_log(found, _progress, as_json)


@app.command()
def cancel(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Let a job end at its next checkpoint."""
    with errors_in_a_sentence(as_json):
        found = jobs.changed(load.home(), Of(tenant, environment), job_id, "cancel")
    if as_json:
        print_json(found)
    else:
        ends = "ends at its next checkpoint" if found["state"] == "running" else found["state"]
        console.print(f"{found['id']}: {ends}.")


@app.command()
def resume(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Let a job that failed or was cancelled go on from its last checkpoint."""
    with errors_in_a_sentence(as_json):
        home, of = load.home(), Of(tenant, environment)
        found = jobs.changed(home, of, job_id, "resume")
        if reach.running(home) is None:
            found = _finish_here(home, of, found["id"], as_json)
    if as_json:
        print_json(found)
    else:
        _outcome(found)


@app.command("rm")
def remove(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Remove a job that has ended, with what it said; the adapter that it made stays."""
    with errors_in_a_sentence(as_json):
        found = jobs.removed(load.home(), Of(tenant, environment), job_id)
    if as_json:
        print_json(found)
    else:
        console.print(f"{found['id']} is removed.")


# with a gateway


def _followed(
    gateway: reach.RunningGateway, job: dict[str, Any], of: Of, as_json: bool
) -> dict[str, Any]:
    """Until its end, or Ctrl-C, which it does not hear of."""
    if not as_json:
        console.print(
            f"{job['id']} makes {plain(job['name'])}: Ctrl-C ends the looking alone.",
            soft_wrap=True,
        )
    try:
        return jobs.waited(load.home(), gateway, job["id"], of, _progress, as_json)
    except KeyboardInterrupt:
        return one(reach.running(load.home()) or gateway, "GET", jobs.PATH, job["id"], of)


# without one


def _here(
    home: Home, of: Of, body: dict[str, Any], estimate: bool, yes: bool, as_json: bool
) -> None:
    """In the foreground, on the home's lock: Ctrl-C leaves it to be gone on with."""
    from freehold.cli.at_rest.jobs import opened

    reach.require_here("Without a gateway jobs run")
    with opened(home, of) as rest:
        prepared = rest.prepared(body)
        if estimate and as_json:
            print_json(prepared.plain())
            return
        if not as_json:
            _say(prepared.plain())
        if estimate:
            return
        _ask(yes)
        job_id = rest.added(prepared)
    job = _finish_here(home, of, job_id, as_json)
    if as_json:
        print_json(job)
    else:
        _outcome(job)


def _finish_here(home: Home, of: Of, job_id: str, as_json: bool) -> dict[str, Any]:
    from freehold.cli.at_rest.jobs import opened

    if not as_json:
        console.print(
            f"{job_id} runs here, as no gateway does. Ctrl-C ends it at its next checkpoint; the "
            f"next `freehold up` goes on with it, or `freehold tune resume {job_id}`."
        )
    with (
        opened(home, of) as rest,
        nullcontext() if as_json else console.status("Starting…") as shown,
    ):

        def on_look(job: Any) -> None:
            if shown is not None:
                shown.update(plain(_progress(job.progress) or job.state))

        return rest.finished(job_id, on_look)


# as it is told


def _say(told: dict[str, Any]) -> None:
    cost = "unknown" if told["cost"] is None else f"{told['cost'] / 1e6:,.2f} {told['currency']}"
    bits = f"{told['bits']} bits" if told["bits"] else "16 bits"
    epochs = counted(told["epochs"], "epoch")
    console.print(
        f"{plain(told['name'])}: {told['objective']}, base in {bits}, {epochs}, "
        f"about {told['tokens']:,} tokens.",
        soft_wrap=True,
    )
    console.print(
        f"It takes about {lasting(told['seconds'])}, {size(told['memory_bytes'])} of memory, and "
        f"costs {cost} ({plain(told['rests_on'])}; longer while the gateway is busy).",
        soft_wrap=True,
    )
    for each in told["notes"]:
        console.print(f"[yellow]Note:[/yellow] {plain(each)}", soft_wrap=True)


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(Code.INVALID_VALUE, "There is nobody to ask: say --yes, or --estimate.")
    if not typer.confirm("Start?", default=True):
        raise typer.Exit(1)


def _outcome(job: dict[str, Any]) -> None:
    if job["state"] == "done":
        result = job["result"] or {}
        console.print(f"{job['id']} is done: {plain(_losses(result) or 'no loss was told')}.")
        if result.get("adapter"):
            console.print(
                f"Serve it with `freehold route set ALIAS --base {name_of(job['spec'], 'base')} "
                f"--adapter {plain(result['adapter'])}`.",
                soft_wrap=True,
            )
    elif job["state"] in ("failed", "cancelled"):
        why = (job["error"] or {}).get("message", "somebody asked for its end.")
        console.print(f"{job['id']} {job['state']}: {plain(why)}", soft_wrap=True)
        if job["state"] == "failed":
            raise typer.Exit(1)
    else:
        console.print(
            f"{job['id']} is {job['state']}: it makes {plain(job['name'])}. See it with "
            f"`freehold tune show {job['id']}`.",
            soft_wrap=True,
        )


def _progress(told: Any) -> str:
    parts = []
    if told.get("steps"):
        parts.append(f"step {told.get('step', 0):,} of {told['steps']:,}")
    if told.get("loss") is not None:
        parts.append(f"loss {told['loss']:.3f}")
    if told.get("held_out_loss") is not None:
        parts.append(f"held-out {told['held_out_loss']:.3f}")
    if told.get("tokens_per_s"):
        parts.append(f"{told['tokens_per_s']:,.0f} tokens/s")
    if told.get("seconds_left"):
        parts.append(f"{lasting(told['seconds_left'])} left")
    return ", ".join(parts)


def _losses(result: dict[str, Any]) -> str | None:
    after, before = result.get("held_out_loss"), result.get("held_out_loss_before")
    if after is None:
        return None
    return f"held-out loss {after:.3f}" + ("" if before is None else f", was {before:.3f}")


def _is_ending(job: dict[str, Any]) -> bool:
    return job["state"] == "running" and bool(job["is_cancelled"])


def _in(text: str | None, units: dict[str, float], option: str, example: str) -> float | None:
    if text is None:
        return None
    found = _WRITTEN.match(text.strip())
    if found is None or found[2] not in units or float(found[1]) <= 0:
        raise UserError(
            Code.INVALID_VALUE,
            f"{option}: {text[:40]!r} is no such quantity: write it as {example}.",
        )
    return float(found[1]) * units[found[2]]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
