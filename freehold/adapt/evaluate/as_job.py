"""An evaluation in a process of its own, which asks the gateway of its home as any client does."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from freehold.adapt.evaluate.asking import Gateway
from freehold.adapt.evaluate.gate import verdicts
from freehold.adapt.evaluate.kept import Kept, kept
from freehold.adapt.evaluate.located import located
from freehold.adapt.evaluate.probing import Probing
from freehold.adapt.evaluate.run import Wanted, evaluate
from freehold.adapt.evaluate.suite import check_size
from freehold.adapt.evaluate.suite_file import suite_of_content
from freehold.adapt.job import Tell
from freehold.config.home import Home, write_private
from freehold.config.trust import Where, gateway_here
from freehold.core.errors import Code, UserError

# What the row of the job has of the result: all that holds no answer.
_TOLD = (
    "suite", "candidate", "incumbent", "summary", "measures", "notes", "tokens_in", "tokens_out",
    "requests", "seconds", "errors",
)  # fmt: skip
_LOOK_S = 0.2


def run(spec: Mapping[str, Any], work: Path, home: Path, tell: Tell) -> Mapping[str, Any] | None:
    """`spec` as `operate/jobs/evaluating.py` writes it, with the `key` to ask with. Leaves the
    whole result in `result.json`."""
    wanted = _wanted(spec, work)
    with kept(work / "answers") as answers:
        try:
            found = asyncio.run(_evaluated(spec, wanted, answers, home, tell))
        except UserError as error:
            if error.code is not Code.GATEWAY_NOT_RUNNING:
                raise
            tell.log("No gateway runs any more: the next one goes on with this.")
            return None
    if found is None:
        return None
    decided = verdicts(wanted.suite.gate, wanted.suite.least, found)
    told = {"verdicts": [asdict(each) for each in decided]}
    write_private(work / "result.json", json.dumps(found | told).encode())
    return {name: found[name] for name in _TOLD} | told


def _wanted(spec: Mapping[str, Any], work: Path) -> Wanted:
    given = json.loads((work / "suite.json").read_bytes())
    suite = suite_of_content(given["suite"])
    train = spec.get("train")
    probing = Probing(tuple(spec["phrases"]), located(Path(train)) if train else ())
    return Wanted(
        suite, spec["alias"], spec["against"], spec["judge"], frozenset(given["passed_before"]),
        (*check_size(suite, few=True), *spec["notes"]), spec["bare"], probing,
    )  # fmt: skip


async def _evaluated(
    spec: Mapping[str, Any], wanted: Wanted, answers: Kept, home: Path, tell: Tell
) -> dict[str, Any] | None:
    def told(what: str, done: int, total: int) -> None:
        tell.progress(what=what, step=done, steps=total)

    def where() -> Where:
        return gateway_here(Home(home))

    url, verify = where()
    async with Gateway(url, spec["key"], verify, spec["at_once"], where) as gateway:
        doing = asyncio.create_task(evaluate(gateway, wanted, answers, told, may_look=False))
        while not doing.done():
            if tell.must_end():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
                return None
            await asyncio.wait({doing}, timeout=_LOOK_S)
        return doing.result()
