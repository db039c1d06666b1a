"""`freehold doctor`: what is wrong with this installation, and whether its tenants are apart."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    stderr,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError
from freehold.operate.doctor.findings import Finding, State

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Check this installation; `isolation` tries whether its tenants are apart.",
)
_COLOURS = {
    State.PASS: "green",
    State.WARNING: "yellow",
    State.FAIL: "red",
    State.NOT_APPLICABLE: "dim",
}
_ROUNDS = 40


@app.callback()
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check permissions, secrets, disk, database, records, clock, certificates, engines and
    settings. Changes nothing; fails when something is wrong."""
    if context.invoked_subcommand is not None:
        return
    from freehold.cli.at_rest.opening import database
    from freehold.operate.doctor.installation import Installation, checked

    with errors_in_a_sentence(as_json):
        home = load.home()
        settings = load.settings(home.settings)
        gateway = reach.running(home)
        status = None if gateway is None else gateway.call("GET", "/admin/v1/status")
        found = _shown(
            checked(Installation(home, settings, database(home, settings.database), status)),
            as_json,
        )
    _end(found, as_json)


@app.command()
def isolation(
    rounds: Annotated[
        int, typer.Option(min=30, max=10_000, help="How often a secret is guessed, by its time.")
    ] = _ROUNDS,
    as_json: Json = False,
) -> None:
    """Try on the running gateway whether tenants are apart: by two tenants that are made for
    it and removed in the end, with real prompts on the models that run. Their requests stay
    in the usage and the audit records. Takes an operator's rights; fails when something does."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        gateway = reach.require_running(home)
        with _alone(home), stderr.status("Making two tenants…") as shown:
            try:
                found = asyncio.run(_tried(gateway, rounds, as_json, shown.update))
            except asyncio.CancelledError:  # by SIGTERM, after the tenants were removed
                raise typer.Exit(128 + signal.SIGTERM) from None
    _end(found, as_json)


async def _tried(
    gateway: reach.RunningGateway, rounds: int, as_json: bool, tell: Callable[[str], None]
) -> list[Finding]:
    from freehold.operate.doctor.deployment import reached
    from freehold.operate.doctor.isolation import checked

    task = asyncio.current_task()
    if task is not None:  # a polite end removes the tenants too
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    found: list[Finding] = []
    async with (
        reached(gateway.url, gateway.operator, gateway.verify) as deployment,
        contextlib.aclosing(checked(deployment, rounds, tell)) as findings,
    ):
        async for finding in findings:
            found.append(finding)
            if not as_json:
                _show(finding)
    return found


def _shown(findings: Iterator[Finding], as_json: bool) -> list[Finding]:
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            _show(finding)
    return found


def _show(finding: Finding) -> None:
    colour = _COLOURS[finding.state]
    measured = f" ({plain(finding.measured)})" if finding.measured else ""
    console.print(
        f"[{colour}]{finding.state.value:>14}[/{colour}]  {plain(finding.check)}: "
        f"{plain(finding.said)}{measured}",
        soft_wrap=True,
    )


def _end(found: Sequence[Finding], as_json: bool) -> None:
    failed = [each for each in found if each.state is State.FAIL]
    if as_json:
        print_json({"findings": [_as_json(each) for each in found], "failed": len(failed)})
    else:
        counts = {state: sum(each.state is state for each in found) for state in State}
        said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
        console.print(f"{said}.")
    if failed:
        raise typer.Exit(1)


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "state": finding.state.value,
        "said": finding.said,
        "measured": finding.measured,
    }


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One at a time, so that tenants which are found are of none that runs."""
    handle = os.open(home.run / "doctor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                Code.CONFLICT, "`freehold doctor isolation` runs already: wait for its end."
            ) from None
        yield
    finally:
        os.close(handle)
