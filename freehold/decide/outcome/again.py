"""A recorded option, looked at again with the facts of today."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from freehold.core.facts import Facts, ModelFacts, RentPrice
from freehold.core.plan import Judged, Precision, Way, Workload
from freehold.decide.money import cost
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Offer, Sized
from freehold.decide.money.money import a_month as monthly
from freehold.decide.money.money import once as at_once
from freehold.decide.outcome.checked import Alternative
from freehold.decide.rules.compliance import judge_by_name
from freehold.decide.rules.licence import judge_licence
from freehold.decide.rules.quality import judge_quality
from freehold.decide.ways import options
from freehold.decide.ways.options import canonical
from freehold.decide.ways.planner import Plan
from freehold.decide.ways.sizing import Sizing
from freehold.decide.ways.surroundings import surroundings


def judged_again(
    option: Mapping[str, Any], workload: Workload, facts: Facts, stored: Sequence[ModelFacts] = ()
) -> tuple[Judged, ...]:
    """As the planner judges each way: the model's licence and quality, and the provider; of a
    mix both sides. `stored` are models of this machine that are not among the facts."""
    way, provider, rules = Way(option["way"]), option["provider"], workload.rules
    judged: list[Judged] = []
    if way in (Way.API, Way.MIXED):
        bought = option["model"] if way is Way.API else option["details"]["peaks"]
        model = _of_api(bought, facts)
        judged += judge_licence(model, workload) if model else ()
        judged += judge_quality(model, bought, rules, facts, None)
        judged += judge_by_name(Way.API, provider, None, rules, facts)
    hosted = None if way is Way.API else _hosted(option["model"], facts, stored)
    if hosted is not None:
        native = hosted.native_quantization is not None
        precision = None if native else Precision(option["precision"])
        judged += judge_licence(hosted, workload)
        judged += judge_quality(hosted, hosted.id, rules, facts, precision)
        if way in (Way.RENTED, Way.MANAGED):
            judged += judge_by_name(Way.RENTED, provider, option["region"], rules, facts)
        else:
            judged += judge_by_name(Way.OWNED, None, workload.region, rules, facts)
    return tuple(judged)


def price_ratio(
    content: Mapping[str, Any], facts: Facts, stored: Sequence[ModelFacts] = ()
) -> float | None:
    """Today's price of rented machines to the recorded one, 1 for what is not paid by the
    hour; None where the option is among the facts no more."""
    option = content["option"]
    way = Way(option["way"])
    if way in (Way.RENTED, Way.MANAGED):
        rent = _rent(option, facts)
        return None if rent is None else rent.usd_per_hour / content["prices"][0]["usd"]
    if way in (Way.API, Way.MIXED):
        name = option["model"] if way is Way.API else option["details"]["peaks"]
        if not any((e.provider, e.model) == (option["provider"], name) for e in facts.apis):
            return None
    return 1.0 if way is Way.API or _hosted(option["model"], facts, stored) else None


def cost_again(
    content: Mapping[str, Any],
    workload: Workload,
    facts: Facts,
    assumptions: Assumptions,
    start: date,
) -> float | None:
    """What it costs a month where tokens are bought; None where none are, or nobody sells
    them any more."""
    option = content["option"]
    way = Way(option["way"])
    if way not in (Way.API, Way.MIXED):
        return None
    name = option["model"] if way is Way.API else option["details"]["peaks"]
    wanted = f"api/{option['provider']}/{name}"
    offered = (o for o in options.apis(facts, workload, assumptions) if o.option.id == wanted)
    offer, sized = next(offered, None), None
    if offer is None:
        return None
    if way is Way.MIXED:
        mixed = _mixed(content, offer, workload, facts)
        if mixed is None:
            return float(content["predicted"]["a_month"])
        offer, sized = mixed
    around = surroundings(workload, facts, assumptions, start)
    return float(monthly(cost.cost(offer, workload, around, sized).parts))


def alternatives(found: Plan, option_id: str) -> tuple[Alternative, ...]:
    """The best of each way today, but for the option itself."""
    best: dict[Way, Alternative] = {}
    for each in found.ranked:
        way, parts = each.option.way, each.cost.parts
        if each.option.id != option_id and way not in best:
            best[way] = Alternative(
                way, each.option.id, float(monthly(parts)), float(at_once(parts))
            )
    return tuple(best.values())


def _hosted(name: str, facts: Facts, stored: Sequence[ModelFacts]) -> ModelFacts | None:
    return facts.models.get(name) or next((each for each in stored if each.id == name), None)


def _of_api(name: str, facts: Facts) -> ModelFacts | None:
    wanted = canonical(name)
    return next((each for each in facts.models.values() if canonical(each.id) == wanted), None)


def _rent(option: Mapping[str, Any], facts: Facts) -> RentPrice | None:
    asked = (option["provider"], option["instance"], option["region"] or "", option["term"])
    for each in facts.rents:
        named = (each.provider, each.instance, each.region or "", each.term)
        if named == asked and each.accelerator == option["accelerator"]:
            return each
    return None


def _mixed(
    content: Mapping[str, Any], peaks: Offer, workload: Workload, facts: Facts
) -> tuple[Offer, Sized] | None:
    """With the replicas that are there, however many are needed now."""
    option = content["option"]
    model = facts.models.get(option["model"])
    accelerator = facts.accelerators.get(option["accelerator"])
    if model is None or accelerator is None:
        return None
    base = options.on_own(
        Way(option["details"]["base"]), model, Precision(option["precision"]), accelerator,
        option["accelerators_a_replica"], option["region"],
    )  # fmt: skip
    there = int(option["details"]["replicas"])
    needed = Sizing(facts)(base.option, workload)
    at_peak = max(there, needed.replicas if needed else content["sized"]["at_peak"])
    return options.mixed(base, there, peaks), Sized(at_peak, there)
