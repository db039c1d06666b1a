"""A plan in plain values, as machines are told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from freehold.core.facts import Facts
from freehold.core.plan import Judged, Workload
from freehold.decide.compared.nearest import Near, Nothing
from freehold.decide.money.money import a_month
from freehold.decide.ways.planner import Plan, Ranked
from freehold.decide.ways.reasons import is_llm, unsaid


def plan_as_plain(
    found: Plan, workload: Workload, facts: Facts, top: int, nothing: Nothing | None = None
) -> dict[str, Any]:
    """`nothing` is what is nearest where no option is left."""

    def told(each: Ranked) -> dict[str, Any]:
        return {**ranked_as_plain(each), "is_llm": asdict(is_llm(each.offer, facts))}

    return {
        "workload": workload.name,
        "options": len(found.ranked),
        "horizon_months": workload.horizon_months,
        "conflict": nothing.conflict if nothing else None,
        "nearest": [_near(each, told(each.best)) for each in nothing.near] if nothing else [],
        "unsaid": list(unsaid(workload)),
        "ranked": [told(each) for each in found.ranked[:top]],
        "best_of_each_way": {way: told(each) for way, each in best_of_each_way(found).items()},
        "rejected": [
            {"what": each.what, "why": each.why, "judged": judged_as_plain(each.judged)}
            for each in found.rejected
        ],
    }


def _near(each: Near, option: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fields": list(each.fields),
        "instead": list(each.instead),
        "sentence": each.sentence,
        "option": option,
    }


def best_of_each_way(found: Plan) -> Mapping[str, Ranked]:
    best: dict[str, Ranked] = {}
    for each in found.ranked:
        best.setdefault(each.option.way.value, each)
    return best


def ranked_as_plain(each: Ranked) -> dict[str, Any]:
    option = asdict(each.option)
    return {
        "option": {**option, "details": dict(each.option.details)},
        "replicas": each.sized and each.sized.replicas,
        "a_month": float(a_month(each.cost.parts)),
        "over_horizon": float(each.over_horizon),
        "days_to_deliver": each.delivery.days,
        "predicted": each.predicted and asdict(each.predicted),
        "emitted": _emission(each),
        "parts": [asdict(part) for part in each.cost.parts],
        "rules": judged_as_plain(each.judged),
        "notes": list(each.notes),
    }


def _emission(each: Ranked) -> dict[str, Any] | None:
    told = each.cost.emitted
    if told is None:
        return None
    return {"kg_a_month": float(told.kilograms_a_month), "formula": told.formula}


def judged_as_plain(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    return [asdict(each) for each in judged]
