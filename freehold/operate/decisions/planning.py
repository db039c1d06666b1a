"""Planning as jobs: plain values in, plain values out, so that a process of its own can do it
for a gateway, which answers requests meanwhile. It reads facts, stored models and what this
machine measured, and neither the database nor the settings' secrets.

`python -m freehold.operate.decisions.planning` does one: JSON on its standard input, JSON on its
output.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from freehold.catalog.facts import facts_digest, load_facts
from freehold.catalog.store import ModelStore
from freehold.config import load
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.config.workload import workload_from
from freehold.core.errors import Code, UserError
from freehold.core.facts import Facts
from freehold.core.names import like
from freehold.core.plan import Workload
from freehold.decide.compared.nearest import Nothing, nearest
from freehold.decide.compared.plain import plan_as_plain
from freehold.decide.compared.weighed import Weighed, weighed
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.outcome import record
from freehold.decide.outcome.again import alternatives, cost_again, judged_again, price_ratio
from freehold.decide.outcome.check import check
from freehold.decide.outcome.checked import Now
from freehold.decide.outcome.drift import LEAST_DAYS
from freehold.decide.outcome.measured import as_measured, read
from freehold.decide.ways.at_hand import AtHand
from freehold.decide.ways.options import canonical
from freehold.decide.ways.planner import Plan, Ranked, is_feasible, plan
from freehold.decide.ways.rehearsal import Corrected, Rehearsal
from freehold.decide.ways.sizing import Sizing
from freehold.deploy.measured import at_hand
from freehold.deploy.probe import read_machine

_NICE = 10  # whoever waits for an answer goes first


@dataclass(frozen=True, slots=True)
class Planned:
    workload: Workload
    facts: Facts
    assumptions: Assumptions
    sizing: Sizing
    at_hand: AtHand
    plan: Plan
    currency: str  # of the settings; the plan is in dollars but where the file says a rate


def planned(
    home: Path, workload: Workload, today: date, settings: Settings | None = None
) -> Planned:
    """Without `settings` they are read. Raises `UserError` with the field for a name that nobody
    knows: `MODEL_NOT_FOUND` for a model's."""
    settings = settings or load.settings(Home(home).settings)
    facts, here = _known(home, settings)
    check_names(workload, facts, here)
    return _planned_with(facts, here, workload, today, settings.currency)


def _known(home: Path, settings: Settings) -> tuple[Facts, AtHand]:
    facts = load_facts(home)
    return facts, _this_machine(home, settings, facts)


def _planned_with(
    facts: Facts, here: AtHand, workload: Workload, today: date, currency: str
) -> Planned:
    assumptions, sizing = Assumptions().of(workload), Sizing(facts, here)
    found = plan(
        workload, facts, sizing, start=today, assumptions=assumptions, at_hand=here,
        simulates=Rehearsal(sizing),
    )  # fmt: skip
    return Planned(workload, facts, assumptions, sizing, here, found, currency)


def nearest_to(found: Planned, today: date) -> Nothing | None:
    """What would do where nothing does; None where something does."""
    if found.plan.ranked:
        return None
    facts, sizing, here = found.facts, found.sizing, found.at_hand
    return nearest(
        found.workload,
        lambda work: plan(work, facts, sizing, start=today, at_hand=here),
        lambda work: is_feasible(work, facts, sizing, start=today, at_hand=here),
    )


def weigh(found: Planned, today: date) -> Weighed:
    """With what the simulation said of some, at every volume."""
    return weighed(
        found.plan,
        found.workload,
        found.facts,
        Corrected(found.sizing, found.plan, found.workload),
        start=today,
        assumptions=found.assumptions,
        at_hand=found.at_hand,
    )


def _this_machine(home: Path, settings: Settings, facts: Facts) -> AtHand:
    return at_hand(ModelStore(home), Home(home).cache, read_machine(), settings, facts)


def check_names(workload: Workload, facts: Facts, here: AtHand) -> None:
    stored = (model.id for model in here.models)
    known = {*facts.models, *(api.model for api in facts.apis), *stored}
    names = set(map(canonical, known))
    for name in workload.models:
        if canonical(name) not in names:
            raise UserError(
                Code.MODEL_NOT_FOUND,
                f"No model {name[:80]!r} is in the facts, of weights or of an API"
                f"{like(name, sorted(known))}.",
                param="models",
            )
    embedder = workload.embedding and workload.embedding.model
    embedders = sorted({*facts.embedders, *(each.model for each in facts.embeddings)})
    if embedder and embedder not in embedders:
        raise UserError(
            Code.MODEL_NOT_FOUND,
            f"No embedding model {embedder[:80]!r} is in the facts; there are "
            f"{', '.join(embedders)}.",
            param="embeddings.model",
        )
    for figure, _ in workload.assumptions:
        card = figure.removeprefix("price.")
        if card != figure and card not in facts.accelerators:
            raise UserError(
                Code.INVALID_VALUE,
                f"No accelerator {card[:80]!r} is in the facts"
                f"{like(card, sorted(facts.accelerators))}.",
                param=f"assumptions.{figure}",
            )


def _planned_of(home: Path, asked: Mapping[str, Any]) -> Planned:
    """Of a gateway the settings are told, as the environment that they may come from is not."""
    workload = workload_from(asked["workload"], asked["name"])
    return planned(home, workload, date.fromisoformat(asked["today"]), _settings_of(asked))


def _settings_of(asked: Mapping[str, Any]) -> Settings | None:
    told = asked.get("settings")
    return None if told is None else Settings.model_validate(told)


def plan_job(home: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    found, today = _planned_of(home, asked), date.fromisoformat(asked["today"])
    nothing = nearest_to(found, today)
    told = plan_as_plain(found.plan, found.workload, found.facts, asked["top"], nothing)
    return told | weigh(found, today).as_plain()


def record_job(home: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a decision: of the option that is asked for, by its rank or its id."""
    found = _planned_of(home, asked)
    return recorded(home, found, asked)


def recorded(home: Path, found: Planned, asked: Mapping[str, Any]) -> dict[str, Any]:
    chosen = _chosen(found.plan, asked.get("option"))
    made = record.content(chosen, found.plan, found.workload, found.assumptions, found.sizing)
    compiled = {part: at.isoformat() for part, at in sorted(found.facts.compiled.items())}
    return {
        **made,
        "workload": {"name": found.workload.name, "written": asked["workload"]},
        "aliases": asked.get("aliases") or None,
        "planned_at": asked["today"],
        "facts": {"digest": facts_digest(home), "compiled": compiled},
    }


def check_job(home: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A decision beside what was measured, and what would be decided today: with what came,
    where enough was watched to tell, else with what was planned."""
    content, today = asked["content"], date.fromisoformat(asked["today"])
    written, found = content["workload"], read(asked["measured"])
    workload = workload_from(written["written"], written["name"])
    is_enough = found.requests > 0 and found.days >= LEAST_DAYS
    came = as_measured(workload, found) if is_enough else workload
    settings = _settings_of(asked) or load.settings(Home(home).settings)
    facts, here = _known(home, settings)
    # What was decided for is there: nothing has to be delivered in time any more.
    again = _planned_with(facts, here, replace(came, deadline_days=None), today, settings.currency)
    now = Now(
        judged_again(content["option"], workload, facts, here.models),
        alternatives(again.plan, content["option"]["id"]),
        price_ratio(content, facts, here.models),
        cost_again(content, came, facts, again.assumptions, today),
        {part: (today - at).days for part, at in facts.compiled.items()},
    )
    wanted = {"ttft_ms": workload.targets.ttft_ms, "tpot_ms": workload.targets.tpot_ms}
    ceiling, months = workload.economics.utilization_ceiling, asked["months"]
    checked = check(asked["id"], content, found, months, now, wanted, ceiling)
    return asdict(checked)


def _chosen(found: Plan, option: str | None) -> Ranked:
    """Raises `UserError`: `CONFLICT` where nothing passes, `NOT_FOUND` for no option of it."""
    if not found.ranked:
        raise UserError(
            Code.CONFLICT,
            "Nothing passes, so that there is nothing to decide for: `freehold decide FILE` says "
            "what keeps options out.",
        )
    if option is None:
        return found.ranked[0]
    if option.isdecimal():
        number = int(option)
        if 1 <= number <= len(found.ranked):
            return found.ranked[number - 1]
        raise UserError(
            Code.NOT_FOUND,
            f"There is no option {number}: {len(found.ranked):,} are possible, 1 is the first.",
            param="option",
        )
    for each in found.ranked:
        if each.option.id == option:
            return each
    why = next((each.why for each in found.rejected if each.what == option), None)
    raise UserError(
        Code.NOT_FOUND,
        f"No possible option has the id {option[:120]!r}"
        f"{f' ({why})' if why else ''}: name one that `freehold decide FILE --json` lists, or "
        "its rank.",
        param="option",
    )


JOBS: Mapping[str, Callable[[Path, Mapping[str, Any]], dict[str, Any]]] = {
    "plan": plan_job,
    "record": record_job,
    "check": check_job,
}


def main() -> None:
    os.nice(_NICE)
    told = json.loads(sys.stdin.buffer.read())
    try:
        answer = {"done": JOBS[told["job"]](Path(told["home"]), told["asked"])}
    except UserError as error:
        answer = {
            "refused": {
                "code": error.code.value, "message": error.message, "param": error.param,
            }
        }  # fmt: skip
    sys.stdout.buffer.write(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
