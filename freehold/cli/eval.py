"""`freehold eval`: how good the answers of a route are, and whether it may serve."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.options.with_default import WithDefault
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
from freehold.cli.words.evaluation import show as show_result
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.adapt.evaluate.suite import Suite

_Id = Annotated[str, typer.Argument(metavar="ID", help="As `freehold eval list` shows it.")]
_Html = Annotated[Path | None, typer.Option(help="Write it as a page, too, over what is there.")]


class _Default(WithDefault):
    default = "start"


app = typer.Typer(
    cls=_Default,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Ask a route the questions of a suite, and decide whether it may serve.",
)


@app.command()
def start(
    alias: Annotated[str, typer.Argument(help="The route whose answers are evaluated.")],
    suite: Annotated[
        Path | None, typer.Option(help="What is asked and checked, as a suite.yaml says it.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Or a dataset, by what it holds out, or a file of chats or pairs."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The route that serves now, asked the same. Default: the bare base."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A route that says which of two answers is better.")
    ] = None,
    passed_before: Annotated[
        Path | None,
        typer.Option(help="An earlier result (--json): what passed there must pass again."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="So many examples of --data.")] = 1000,
    few: Annotated[
        bool, typer.Option("--few", help="Also with fewer examples than tell anything.")
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="So many requests at once.")] = 4,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for its end.")] = False,
    here: Annotated[
        bool,
        typer.Option("--here", help="In this terminal, with your key; it decides nothing then."),
    ] = False,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="With --here: ask all again, after a run that was cut off."),
    ] = False,
    harness: Annotated[
        str | None,
        typer.Option(help="Or tasks of lm-evaluation-harness, as TASK,TASK; in this terminal."),
    ] = None,
    harness_tasks: Annotated[
        Path | None, typer.Option(help="With --harness: a folder with tasks of your own.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --harness: so many examples of each task.")
    ] = None,
    html: _Html = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Ask a route the questions of a suite beside the gateway, hold its answers against those of
    another, and decide whether it may serve. Ends with 1 where it may not."""
    from freehold.cli.evaluation.harness import check_alone, measured_here
    from freehold.cli.evaluation.harness import show as show_measured
    from freehold.cli.pages.file import check_place

    with errors_in_a_sentence(as_json):
        check_alone(
            harness,
            {
                "--suite": suite, "--data": data, "--against": against, "--judge": judge,
                "--passed-before": passed_before, "--few": few, "--no-wait": no_wait,
                "--anew": anew, "--html": html, "--tenant": tenant, "--env": environment,
            },
            {"--harness-tasks": harness_tasks, "--limit": limit},
        )  # fmt: skip
        if html is not None:
            check_place(html)
        if against == alias:
            raise UserError(
                Code.INVALID_VALUE, f"--against names {alias} itself: name another route."
            )
        before = [] if passed_before is None else sorted(_passed(passed_before))
        home, of = load.home(), Of(tenant, environment)
        gateway = reach.require_running(home)
        if harness is not None:
            measured = measured_here(
                home, gateway, alias, harness, harness_tasks, limit, at_once, as_json
            )
            print_json(measured) if as_json else show_measured(measured)
            return
        if here:
            found = _here(home, gateway, alias, suite, data, most, against, judge, before, few,
                          at_once, anew)  # fmt: skip
        else:
            asked = {
                "route": alias, "against": against, "judge": judge, "passed_before": before,
                "few": few, "at_once": at_once, **_asked(suite, data, most), **of.named(),
            }  # fmt: skip
            job = gateway.call(
                "POST", jobs.EVALUATIONS, {k: v for k, v in asked.items() if v is not None}
            )
            if no_wait:
                _say_begun(job, as_json)
                return
            found = _waited(home, gateway, job, of, as_json)
    _tell(found, html, as_json)


@app.command("list")
def list_evaluations(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List the evaluations of an environment, newest first."""
    with errors_in_a_sentence(as_json):
        found = jobs.every(load.home(), Of(tenant, environment), "eval")
    if as_json:
        print_json(found)
        return
    table(
        ["id", "what", "state", "passed", "progress", "created", "by"],
        [
            [
                each["id"], each["name"], each["state"], _passed_in_words(each["result"]),
                _progress(each["progress"]), each["created_at"][:16], each["created_by"],
            ]
            for each in found
        ],
        "There are none there yet: `freehold eval ALIAS --data DATASET` makes one.",
    )  # fmt: skip


@app.command()
def show(
    job_id: _Id,
    html: _Html = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show an evaluation: how far it is, or what it found and decided."""
    from freehold.cli.pages.file import check_place

    with errors_in_a_sentence(as_json):
        if html is not None:
            check_place(html)
        found = jobs.evaluation(load.home(), Of(tenant, environment), job_id)
        if html is not None and found["result"] is None:
            raise UserError(
                Code.NOT_FOUND, f"{job_id} has no result to show: it is {found['job']['state']}."
            )
        if html is not None:
            _write(found["result"], html)
    if as_json:
        print_json(found)
        return
    _show_job(found["job"])
    if found["result"] is not None:
        console.print()
        show_result(found["result"])


@app.command()
def logs(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show what an evaluation's process said."""
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
    """Let an evaluation end; what was answered is kept for `resume`."""
    _change(job_id, "cancel", Of(tenant, environment), as_json)


@app.command()
def resume(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Let an evaluation that failed or was cancelled go on."""
    _change(job_id, "resume", Of(tenant, environment), as_json)


@app.command("rm")
def remove(
    job_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Remove an evaluation that has ended, with its answers; the gate that came of it stays."""
    with errors_in_a_sentence(as_json):
        found = jobs.removed(load.home(), Of(tenant, environment), job_id)
    if as_json:
        print_json(found)
    else:
        console.print(f"{found['id']} is removed.")


def _change(job_id: str, how: str, of: Of, as_json: bool) -> None:
    with errors_in_a_sentence(as_json):
        found = jobs.changed(load.home(), of, job_id, how)
    if as_json:
        print_json(found)
    else:
        console.print(f"{found['id']} is {found['state']}.")


# what is asked


def _asked(suite: Path | None, data: str | None, most: int) -> dict[str, Any]:
    """Files beside this command are read here, and travel whole."""
    from freehold.adapt.evaluate.suite_file import whole_data, whole_suite
    from freehold.cli.evaluation.data import is_file

    _check_one(suite, data)
    if suite is not None:
        return {"suite": whole_suite(suite)}
    name = data or ""
    if is_file(name):
        path = Path(name).expanduser()
        return {"suite": whole_data(path, path.stem, most)}
    return {"dataset": name, "most": most}


def _check_one(suite: Path | None, data: str | None) -> None:
    if suite is not None and data is not None:
        raise UserError(
            Code.INVALID_VALUE, "--suite and --data exclude each other: name `data` in the suite."
        )
    if suite is None and data is None:
        raise UserError(
            Code.INVALID_VALUE, "Say what is asked: --suite suite.yaml, or --data DATASET."
        )


def _passed(file: Path) -> frozenset[str]:
    try:
        examples = json.loads(file.read_text("utf-8"))["examples"]
        return frozenset(e["fingerprint"] for e in examples if e["candidate"]["passed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            Code.FILE_INVALID,
            f"{file} is no result of an evaluation: name what `freehold eval --json` printed.",
        ) from None


def _here(
    home: Home,
    gateway: reach.RunningGateway,
    alias: str,
    suite: Path | None,
    data: str | None,
    most: int,
    against: str | None,
    judge: str | None,
    before: list[str],
    few: bool,
    at_once: int,
    anew: bool,
) -> dict[str, Any]:
    from freehold.adapt.evaluate.run import Wanted
    from freehold.adapt.evaluate.suite import check_size
    from freehold.cli.evaluation.here import evaluated

    asked = _suite(home.path, gateway, suite, data, most)
    notes = tuple(check_size(asked, few=few))
    wanted = Wanted(asked, alias, against, judge, frozenset(before), notes)
    return evaluated(gateway, wanted, at_once, anew)


def _suite(
    home: Path, gateway: reach.RunningGateway, suite: Path | None, data: str | None, most: int
) -> "Suite":
    from freehold.adapt.evaluate.suite_file import read_suite
    from freehold.cli.evaluation.data import suite_of

    _check_one(suite, data)
    return read_suite(suite) if suite is not None else suite_of(home, gateway, data or "", most)


# until its end


def _waited(
    home: Home, gateway: reach.RunningGateway, job: dict[str, Any], of: Of, as_json: bool
) -> dict[str, Any]:
    """The result, whatever becomes of the gateway meanwhile. Ctrl-C ends the waiting alone."""
    job_id = job["id"]
    if not as_json:
        console.print(f"{job_id} asks: Ctrl-C ends the waiting alone.")
    try:
        job = jobs.waited(home, gateway, job_id, of, _progress, as_json)
    except KeyboardInterrupt:
        console.print(f"It goes on: see `freehold eval show {job_id}`.")
        raise typer.Exit(1) from None
    gateway = reach.running(home) or gateway  # it may have been started again
    if job["state"] != "done":
        why = (job["error"] or {}).get("message", "somebody asked for its end.")
        raise UserError(Code.CONFLICT, f"{job_id} {job['state']}: {why}")
    found = one(gateway, "GET", jobs.EVALUATIONS, job_id, of)["result"]
    if found is None:
        raise UserError(
            Code.NOT_FOUND, f"Another gateway has the result: `freehold eval show {job_id}` there."
        )
    return {**found, "job": job_id}


# as it is told


def _say_begun(job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        console.print(f"{job['id']} is queued: see it with `freehold eval show {job['id']}`.")


def _tell(found: dict[str, Any], html: Path | None, as_json: bool) -> None:
    with errors_in_a_sentence(as_json):
        if html is not None:
            _write(found, html)
    if as_json:
        print_json(found)
    else:
        show_result(found)
        if found.get("gate"):
            passed = "passed" if found["passed"] else "NOT PASSED"
            console.print(f"\nGate {found['gate']}: {passed}.")
        if html is not None:
            console.print(f"\n{plain(html)} has all of it, to be opened in a browser.")
    is_refused = found.get("passed") is False
    if is_refused or found["regression"]["failed"]:
        raise typer.Exit(1)


def _write(found: dict[str, Any], html: Path) -> None:
    from freehold.cli.pages.evaluation import page
    from freehold.cli.pages.file import write_page

    write_page(html, page(found))


def _show_job(job: dict[str, Any]) -> None:
    result = job["result"] or {}
    known = (
        ("id", job["id"]), ("what", job["name"]), ("state", job["state"]),
        ("progress", _progress(job["progress"])), ("gate", result.get("gate")),
        ("passed", _passed_in_words(job["result"])),
        ("created", f"{job['created_at'][:19]} by {job['created_by']}"),
        ("ended", (job["ended_at"] or "")[:19]), ("error", (job["error"] or {}).get("message")),
    )  # fmt: skip
    labelled((label, value) for label, value in known if value)


def _progress(told: dict[str, Any]) -> str:
    if not told.get("steps"):
        return ""
    return f"{told.get('what', 'step')}: {told.get('step', 0):,} of {told['steps']:,}"


def _passed_in_words(result: dict[str, Any] | None) -> str:
    if not result or result.get("passed") is None:
        return ""
    return "yes" if result["passed"] else "no"
