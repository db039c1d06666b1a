"""`freehold decide FILE`: every way to do the work of a file, ranked, with what it costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli.output import (
    Json,
    console,
    errors_in_a_sentence,
    like,
    plain,
    print_json,
    table,
)
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.core.facts import Facts
    from freehold.core.plan import Judged, Part, Workload
    from freehold.decide.planner import Plan, Ranked, Rejected

_REASONS = 8  # of those that keep most options out


def plan_(
    file: Annotated[Path, typer.Argument(help="As `freehold decide init` wrote it.")],
    top: Annotated[int, typer.Option(min=1, help="So many options.")] = 10,
    as_json: Json = False,
) -> None:
    """Rank every way to serve a workload, with what it costs, and say why others are left out."""
    from freehold.catalog.facts import load_facts
    from freehold.config import load
    from freehold.config.workload import read_workload
    from freehold.decide.planner import plan
    from freehold.decide.sizing import Sizing
    from freehold.decide.weighed import weighed

    with errors_in_a_sentence(as_json):
        workload, facts = read_workload(file), load_facts(load.home().path)
        _check_models(workload, facts)
        sizing, start = Sizing(facts), datetime.now(UTC).date()
        found = plan(workload, facts, sizing, start=start)
    if as_json:
        more = weighed(found, workload, facts, sizing, start=start).as_plain()
        print_json(_as_json(found, workload, top) | more)
    else:
        _show(found, workload, top)


def _check_models(workload: "Workload", facts: "Facts") -> None:
    from freehold.decide.options import canonical

    known = {*facts.models, *(api.model for api in facts.apis)}
    names = set(map(canonical, known))
    for name in workload.models:
        if canonical(name) not in names:
            raise UserError(
                Code.MODEL_NOT_FOUND,
                f"No model {name[:80]!r} is in the facts, of weights or of an API"
                f"{like(name, sorted(known))}.",
                param="models",
            )


def _show(found: "Plan", workload: "Workload", top: int) -> None:
    if not found.ranked:
        console.print(f"{plain(workload.name)}: nothing passes. What keeps options out:")
        _show_reasons(found.rejected)
        return
    best, months = found.ranked[0], workload.horizon_months
    console.print(f"{plain(workload.name)}: {plain(_told(best))}.", soft_wrap=True)
    for note in best.notes:
        console.print(f"  {plain(note)}", soft_wrap=True)
    console.print()
    table(
        ["way", "model", "on", "a month", f"{months} months", "days to deliver"],
        [
            [
                each.option.way.value,
                _model(each),
                _on(each),
                f"{_a_month(each.cost.parts):,.0f}",
                f"{each.over_horizon:,.0f}",
                each.delivery.days,
            ]
            for each in found.ranked[:top]
        ],
        "",
    )
    console.print(f"\nWhat the first costs, of {len(found.ranked):,} that are possible:")
    for part in best.cost.parts:
        console.print(f"  {_cost(part)} {plain(part.name)}: {plain(part.formula)}", soft_wrap=True)
    if workload.carbon is not None:
        console.print(f"  {plain(_emitted(best))}", soft_wrap=True)
    console.print()
    _show_reasons(found.rejected)


def _emitted(best: "Ranked") -> str:
    told = best.cost.emitted
    if told is None:
        return "What it emits is not known: nobody says where it is computed."
    return f"{told.kilograms_a_month:,.0f} kg CO2e a month: {told.formula}."


def _show_reasons(rejected: "Sequence[Rejected]") -> None:
    counts = Counter(_why(each) for each in rejected)
    for why, count in counts.most_common(_REASONS):
        console.print(f"  left out {count:,} times: {plain(why)}", soft_wrap=True)


def _why(each: "Rejected") -> str:
    """The first rule that it does not pass, or what was said of it."""
    judged = next((judged for judged in each.judged if judged.verdict != "pass"), None)
    return each.why if judged is None else f"{judged.rule}: {judged.why}"


def _told(best: "Ranked") -> str:
    verb = {
        "api": "buy",
        "managed": "use an endpoint in your cloud for",
        "rented": "rent machines for",
        "owned": "buy machines for",
        "at_hand": "host here",
        "mixed": "host the base load, and buy the peaks of",
    }[best.option.way.value]
    return f"{verb} {_model(best)}, {_on(best)}"


def _model(each: "Ranked") -> str:
    option = each.option
    return option.model + (f" in {option.precision.value}" if option.precision else "")


def _on(each: "Ranked") -> str:
    option = each.option
    where = [option.provider, option.region, option.term]
    if option.accelerator is not None and each.sized is not None:
        count = each.sized.replicas * option.accelerators_a_replica
        where.insert(0, f"{count} x {option.accelerator}")
    return " ".join(word for word in where if word) or "this machine"


def _a_month(parts: "Sequence[Part]") -> float:
    return float(sum(part.a_month for part in parts))


def _cost(part: "Part") -> str:
    once = f" and {part.once:,.0f} once" if part.once else ""
    return f"{part.a_month:,.2f} a month{once},"


def _as_json(found: "Plan", workload: "Workload", top: int) -> dict[str, Any]:
    return {
        "workload": workload.name,
        "options": len(found.ranked),
        "horizon_months": workload.horizon_months,
        "ranked": [_ranked(each) for each in found.ranked[:top]],
        "rejected": [
            {"what": each.what, "why": each.why, "judged": _judged(each.judged)}
            for each in found.rejected
        ],
    }


def _ranked(each: "Ranked") -> dict[str, Any]:
    option = asdict(each.option)
    return {
        "option": {**option, "details": dict(each.option.details)},
        "replicas": each.sized and each.sized.replicas,
        "a_month": _a_month(each.cost.parts),
        "over_horizon": float(each.over_horizon),
        "days_to_deliver": each.delivery.days,
        "predicted": each.predicted and asdict(each.predicted),
        "emitted": _emission(each),
        "parts": [asdict(part) for part in each.cost.parts],
        "rules": _judged(each.judged),
        "notes": list(each.notes),
    }


def _emission(each: "Ranked") -> dict[str, Any] | None:
    told = each.cost.emitted
    if told is None:
        return None
    return {"kg_a_month": float(told.kilograms_a_month), "formula": told.formula}


def _judged(judged: "Sequence[Judged]") -> list[dict[str, Any]]:
    return [asdict(each) for each in judged]
