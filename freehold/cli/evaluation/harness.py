"""`freehold eval --harness`: the tasks of lm-evaluation-harness, in the terminal."""

import asyncio
import hashlib
import json
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import console, plain, stderr, table
from freehold.config.home import Home
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.adapt.evaluate.harness import Harness


def check_alone(harness: str | None, others: dict[str, Any], own: dict[str, Any]) -> None:
    """Raises `UserError` for options of which one means nothing beside the other."""
    if harness is not None:
        given = [name for name, value in others.items() if value]
        if given:
            raise UserError(
                Code.INVALID_VALUE, f"--harness and {given[0]} exclude each other: leave one out."
            )
        return
    given = [name for name, value in own.items() if value is not None]
    if given:
        raise UserError(Code.INVALID_VALUE, f"{given[0]} belongs to --harness: name tasks by that.")


def measured_here(
    home: Home,
    gateway: reach.RunningGateway,
    alias: str,
    tasks: str,
    folder: Path | None,
    limit: int | None,
    at_once: int,
    as_json: bool,
) -> dict[str, Any]:
    from freehold.adapt.evaluate.harness import Harness

    named = tuple(name.strip() for name in tasks.split(",") if name.strip())
    if not named:
        raise UserError(Code.INVALID_VALUE, "--harness names no task: give one, such as gsm8k.")
    if folder is not None and not folder.is_dir():
        raise UserError(
            Code.FILE_INVALID, f"{folder} is no folder: name the one with the YAML of your tasks."
        )
    if gateway.pid is not None and gateway.url.startswith("https:"):
        raise UserError(
            Code.CONFIG_INVALID,
            "lm-evaluation-harness believes only a certificate for the name that it calls: give "
            "`freehold --url https://NAME eval …`, with a key in FREEHOLD_API_KEY.",
        )
    asked = Harness(named, folder and folder.resolve(), limit, at_once)
    shown = nullcontext() if as_json else stderr.status(f"{plain(tasks)}: asking {plain(alias)}…")
    try:
        with shown:
            return asyncio.run(_run(home, gateway, alias, asked))
    except (KeyboardInterrupt, asyncio.CancelledError):
        stderr.print("Stopped: nothing is kept of it.")
        raise KeyboardInterrupt from None


async def _run(
    home: Home, gateway: reach.RunningGateway, alias: str, asked: "Harness"
) -> dict[str, Any]:
    from freehold.adapt.evaluate.asking import Gateway
    from freehold.adapt.evaluate.harness import measured

    # The library has no terminal whose end would end it, and must not ask on for nobody.
    if (running := asyncio.current_task()) is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    elsewhere = gateway.url if gateway.pid is None else ""
    told = [elsewhere, alias, asked.tasks, str(asked.folder), asked.limit]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    kept = home.path / "evals" / f"harness-{name}"
    async with Gateway(gateway.url, gateway.key, gateway.verify, 1) as asking:
        return await measured(asking, gateway.url, gateway.key, alias, asked, kept)


def show(found: dict[str, Any]) -> None:
    rows = [
        [
            task["name"], task["version"], task["shots"], task["samples"],
            _named(metric), f"{metric['value']:.4f}", _spread(metric["stderr"]),
        ]
        for task in found["tasks"]
        for metric in task["metrics"]
    ]  # fmt: skip
    table(
        ["task", "version", "shots", "samples", "metric", "value", "±"],
        [[None if cell is None else str(cell) for cell in row] for row in rows],
        "These tasks measured nothing.",
    )
    candidate = found["candidate"]
    parts = [candidate["model_digest"], candidate["adapter_digest"]]
    made_by = " + ".join(part for part in parts if part) or "an upstream"
    console.print(
        f"\n{plain(candidate['alias'])} ({plain(made_by)}), by lm-evaluation-harness "
        f"{plain(found['harness'])}. {plain(found['kept'])} has it all.",
        soft_wrap=True,
    )


def _named(metric: dict[str, Any]) -> str:
    told = (
        metric["name"] if metric["filter"] == "none" else f"{metric['name']} ({metric['filter']})"
    )
    return f"{told}{' (lower is better)' if metric['higher_is_better'] is False else ''}"


def _spread(stderr_: float | None) -> str | None:
    return None if stderr_ is None else f"{stderr_:.4f}"
