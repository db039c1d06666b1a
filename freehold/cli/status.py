"""`freehold status`: the running gateway's replicas, queue, speed and memory."""

import time
from typing import Any

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    print_json,
    rate,
    table,
)
from freehold.config import load
from freehold.core.words import size

_INTERVAL_S = 1.0


def status(as_json: Json = False) -> None:
    """Show replicas, queue, tokens/s and memory of the running gateway."""
    with errors_in_a_sentence(as_json):
        gateway = reach.require_running(load.home())
        before = gateway.call("GET", "/admin/v1/status")
        time.sleep(_INTERVAL_S)
        now = gateway.call("GET", "/admin/v1/status")
    now["tokens_per_s"] = (now["tokens_out"] - before["tokens_out"]) / _INTERVAL_S
    if as_json:
        print_json(now)
        return
    _show(now)


def _show(now: dict[str, Any]) -> None:
    state = "draining" if now["draining"] else "serving"
    console.print(
        f"Freehold {now['version']} {state} at {now['url']} (pid {now['pid']}), "
        f"{size(now['rss_bytes'])} of memory"
    )
    console.print(
        f"{now['in_flight']} in flight, {rate(now['tokens_per_s'])} in the last second, "
        f"{now['tokens_out']:,} tokens since the start"
    )
    if not now["ledger_writable"]:
        console.print("[red]Usage cannot be recorded: no request is served.[/red]")
    for pool in now["pools"]:
        if pool["refused_adapters"]:
            console.print(
                f"[red]{pool['name']} refused {pool['refused_adapters']} adapters that routes "
                "name; the log says which and why. Add them again, then set their routes.[/red]"
            )
    rows = [
        [
            pool["name"],
            replica["name"],
            replica["state"],
            str(replica["pid"] or ""),
            replica["in_flight"],
            pool["queued"],
            replica["restarts"],
            size(replica["rss_bytes"] or 0),
            replica["last_error"],
        ]
        for pool in now["pools"]
        for replica in pool["replicas"]
    ]
    table(
        ["pool", "replica", "state", "pid", "in flight", "queued", "restarts", "memory", "error"],
        rows,
        "No model is served.",
    )
