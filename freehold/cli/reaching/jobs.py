"""Jobs of a running gateway, as `freehold tune` and `freehold eval` ask about theirs."""

from collections.abc import Callable
from typing import Any

from freehold.cli.options.owner import Of
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import console, plain, print_json

PATH = "/admin/v1/jobs"
OVER = ("done", "failed", "cancelled")
_PAGE = 1000


def every(gateway: reach.RunningGateway, of: Of, kind: str) -> list[dict[str, Any]]:
    """The newest first."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {**of.named(), "kind": kind, "limit": _PAGE}
    while True:
        page = gateway.call("GET", PATH, query=query)
        found += page["data"]
        if not page["has_more"]:
            return found
        query["before"] = found[-1]["id"]


def log(gateway: reach.RunningGateway, of: Of, job_id: str) -> list[dict[str, Any]]:
    path = f"{PATH}/{reach.quoted(job_id)}/log"
    found: list[dict[str, Any]] = gateway.call("GET", path, query=of.named())["data"]
    return found


def change(gateway: reach.RunningGateway, of: Of, job_id: str, how: str) -> dict[str, Any]:
    """`how`: cancel or resume."""
    path = f"{PATH}/{reach.quoted(job_id)}/{how}"
    found: dict[str, Any] = gateway.call("POST", path, query=of.named())
    return found


def remove(gateway: reach.RunningGateway, of: Of, job_id: str) -> dict[str, Any]:
    path = f"{PATH}/{reach.quoted(job_id)}"
    found: dict[str, Any] = gateway.call("DELETE", path, query=of.named())
    return found


def show_log(
    lines: list[dict[str, Any]], progress: Callable[[dict[str, Any]], str], as_json: bool
) -> None:
    if as_json:
        print_json(lines)
        return
    for line in lines:
        text = line.get("log")
        console.print(plain(text if text is not None else progress(line["progress"])))
