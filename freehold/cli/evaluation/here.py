"""An evaluation in the terminal, with one's own key: it decides nothing."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import stderr
from freehold.config import load

if TYPE_CHECKING:
    from freehold.adapt.evaluate.run import Tell, Wanted


def evaluated(
    gateway: reach.RunningGateway, wanted: "Wanted", at_once: int, anew: bool
) -> dict[str, Any]:
    from freehold.adapt.evaluate.kept import kept

    folder = load.home().path / "evals" / _name(gateway, wanted)
    with kept(folder, anew=anew) as answers, _progress() as tell:
        if answers.answers:
            stderr.print(
                f"Going on with {len(answers.answers):,} answers of the run that was cut off."
            )
        try:
            found = asyncio.run(_run(gateway, wanted, at_once, answers, tell))
        except KeyboardInterrupt:
            stderr.print("Stopped: the same command goes on where it was.")
            raise
        answers.end(found)
    return {**found, "kept": str(folder / "result.json")}


async def _run(
    gateway: reach.RunningGateway, wanted: "Wanted", at_once: int, answers: Any, tell: "Tell"
) -> dict[str, Any]:
    from freehold.adapt.evaluate.asking import Gateway
    from freehold.adapt.evaluate.run import evaluate

    async with Gateway(gateway.url, gateway.key, gateway.verify, at_once) as asked:
        return await evaluate(asked, wanted, answers, tell)


def _name(gateway: reach.RunningGateway, wanted: "Wanted") -> str:
    """The same for the same evaluation, so that one that was cut off is found."""
    elsewhere = gateway.url if gateway.pid is None else ""
    told = [elsewhere, wanted.candidate, wanted.incumbent, wanted.judge, wanted.suite.digest]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


@contextmanager
def _progress() -> Iterator["Tell"]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeLeft(),
    )
    with Progress(*columns, console=stderr, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            name = what.partition(" (")[0]
            if name not in tasks:
                tasks[name] = bars.add_task(what, total=total, completed=done)
            bars.update(tasks[name], description=what, completed=done, total=total)

        yield tell
