"""Jobs of a running gateway, as `freehold tune` and `freehold eval` ask about theirs."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from freehold.cli.options.owner import Of
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import every_page, one
from freehold.cli.terminal.output import console, plain, print_json
from freehold.config.home import Home
from freehold.core.errors import Code, UserError

PATH = "/admin/v1/jobs"
_LOOK_S = 1.0
_GONE = "The gateway does not answer. The job goes on; waiting until it does."
OVER = ("done", "failed", "cancelled")


def every(gateway: reach.RunningGateway, of: Of, kind: str) -> list[dict[str, Any]]:
    """The newest first."""
    return every_page(gateway, PATH, of, "id", "before", kind=kind)


def log(gateway: reach.RunningGateway, of: Of, job_id: str) -> list[dict[str, Any]]:
    path = f"{PATH}/{reach.quoted(job_id)}/log"
    found: list[dict[str, Any]] = gateway.call("GET", path, query=of.named())["data"]
    return found


def change(gateway: reach.RunningGateway, of: Of, job_id: str, how: str) -> dict[str, Any]:
    """`how`: cancel or resume."""
    path = f"{PATH}/{reach.quoted(job_id)}/{how}"
    found: dict[str, Any] = gateway.call("POST", path, query=of.named())
    return found


def waited(
    home: Home,
    gateway: reach.RunningGateway,
    job_id: str,
    of: Of,
    progress: Callable[[dict[str, Any]], str],
    as_json: bool,
) -> dict[str, Any]:
    """The job as it is at its end, whatever becomes of the gateway meanwhile."""
    job: dict[str, Any] | None = None
    is_there = True
    with nullcontext() if as_json else console.status("Waiting…") as shown:
        while job is None or job["state"] not in OVER:
            if job is not None or not is_there:
                time.sleep(_LOOK_S)
            try:
                job, is_there = one(gateway, "GET", PATH, job_id, of), True
                told = progress(job["progress"]) or job["state"]
            except UserError as error:
                gateway = _next(home, gateway, error)
                told = "Waiting for the gateway…"
                if is_there and not as_json:
                    console.print(_GONE)
                is_there = False
            if shown is not None:
                shown.update(plain(told))
    return job


def _next(home: Home, gateway: reach.RunningGateway, error: UserError) -> reach.RunningGateway:
    """Who is to be asked after this one failed: one that was started again has another key for
    us, so that the key of before is one that it does not know."""
    if error.code not in (Code.GATEWAY_NOT_RUNNING, Code.INVALID_API_KEY):
        raise error
    found = reach.running(home)
    is_same = found is not None and found.operator == gateway.operator
    if error.code is Code.INVALID_API_KEY and is_same:
        raise error
    return found or gateway


def show_log(
    lines: list[dict[str, Any]], progress: Callable[[dict[str, Any]], str], as_json: bool
) -> None:
    if as_json:
        print_json(lines)
        return
    for line in lines:
        text = line.get("log")
        console.print(plain(text if text is not None else progress(line["progress"])))
