"""Jobs, as `freehold tune` and `freehold eval` ask about theirs: of a running gateway, or of a home
at rest."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from freehold.cli.options.owner import Of
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import every_page, one
from freehold.cli.terminal.output import console, plain, print_json
from freehold.config.home import Home
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.cli.at_rest.jobs import Offline

PATH, EVALUATIONS = "/admin/v1/jobs", "/admin/v1/evaluations"
_LOOK_S = 1.0
_GONE = "The gateway does not answer. The job goes on; waiting until it does."
OVER = ("done", "failed", "cancelled")


def every(home: Home, of: Of, kind: str) -> list[dict[str, Any]]:
    """The newest first."""
    gateway = reach.running(home)
    if gateway is not None:
        return every_page(gateway, PATH, of, "id", "before", kind=kind)
    with _resting(home, of) as rest:
        return [each for each in rest.every() if each["kind"] == kind]


def found(home: Home, of: Of, job_id: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", PATH, job_id, of)
    with _resting(home, of) as rest:
        return rest.shown(rest.jobs.get(rest.owner, job_id))


def evaluation(home: Home, of: Of, job_id: str) -> dict[str, Any]:
    """With its result, and the answers in it."""
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", EVALUATIONS, job_id, of)
    with _resting(home, of) as rest:
        return rest.evaluation(job_id)


def log(home: Home, of: Of, job_id: str) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{PATH}/{reach.quoted(job_id)}/log"
        said: list[dict[str, Any]] = gateway.call("GET", path, query=of.named())["data"]
        return said
    with _resting(home, of) as rest:
        return rest.jobs.log(rest.jobs.get(rest.owner, job_id))


def changed(home: Home, of: Of, job_id: str, how: str) -> dict[str, Any]:
    """`how`: cancel or resume."""
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{PATH}/{reach.quoted(job_id)}/{how}"
        now: dict[str, Any] = gateway.call("POST", path, query=of.named())
        return now
    with _resting(home, of) as rest:
        change = rest.jobs.cancel_at_rest if how == "cancel" else rest.jobs.resume
        return rest.shown(change(rest.owner, job_id))


def removed(home: Home, of: Of, job_id: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "DELETE", PATH, job_id, of)
    with _resting(home, of) as rest:
        return rest.shown(rest.jobs.remove(rest.owner, job_id))


@contextmanager
def _resting(home: Home, of: Of) -> Iterator["Offline"]:
    # As in `reach.offline`: a running gateway answers before this is imported.
    from freehold.cli.at_rest.jobs import opened

    with opened(home, of) as rest:
        yield rest


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
