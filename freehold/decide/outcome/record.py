"""What is kept of a decision: the option that was chosen, what was predicted of it, and what
all that rests on, in plain values that no later version has to understand to show."""

from collections.abc import Iterable
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from freehold.core.facts import Source
from freehold.core.plan import Way, Workload
from freehold.decide.compared.plain import ranked_as_plain
from freehold.decide.money import cost, demand, machines
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Offer, Sized
from freehold.decide.money.money import MILLION, MONTH_HOURS, exact, whole
from freehold.decide.money.money import a_month as monthly
from freehold.decide.money.money import once as at_once
from freehold.decide.ways.options import context_needed
from freehold.decide.ways.planner import Plan, Ranked
from freehold.decide.ways.sizing import Sizing

VERSION = 1


def content(
    chosen: Ranked, found: Plan, workload: Workload, assumptions: Assumptions, sizing: Sizing
) -> dict[str, Any]:
    """Of one of the plan's options. Whoever keeps it adds the workload as it was written and
    which facts it was planned with."""
    told, sized = ranked_as_plain(chosen), chosen.sized
    told_before = predicted(chosen, workload, assumptions, sizing)
    return {
        "v": VERSION,
        **{name: told[name] for name in ("option", "days_to_deliver", "parts", "rules", "notes")},
        "rank": found.ranked.index(chosen) + 1,
        "options": len(found.ranked),
        "sized": sized and asdict(sized),
        "accelerator": _accelerator(chosen.offer),
        "context": context_needed(workload),
        "horizon_months": workload.horizon_months,
        "predicted": told_before,
        "runners_up": [_runner_up(each, workload) for each in runners_up(chosen, found)],
        "prices": list(_prices(chosen.offer, assumptions)),
        "machine": _machine(chosen, workload, assumptions, told_before["utilization_busy"]),
        "assumptions": {
            name: {"value": float(each.value), "unit": each.unit, "assumed": each.assumed}
            for name, each in sorted(assumptions.figures.items())
        },
    }


def runners_up(chosen: Ranked, found: Plan) -> tuple[Ranked, ...]:
    """The cheapest of each way beside the one that was chosen."""
    best: dict[Way, Ranked] = {}
    for each in found.ranked:
        if each.option.id != chosen.option.id:
            best.setdefault(each.option.way, each)
    return tuple(best.values())


def predicted(
    each: Ranked, workload: Workload, assumptions: Assumptions, sizing: Sizing
) -> dict[str, Any]:
    """Volumes are those of the first month, which `growth_a_month` raises; costs for a million
    tokens, read and written, are those of the whole horizon. `reserved` counts what machines
    cost alone, which they do whether they are busy or not."""
    months = workload.horizon_months
    tokens = tokens_a_month(workload)
    hosted = machines_a_month(each, workload, assumptions)
    return {
        "requests_a_day": workload.requests_a_day,
        "growth_a_month": workload.growth_a_month,
        "prompt_tokens": float(demand.mean(workload.prompt)),
        "answer_tokens": float(demand.mean(workload.answer)),
        "tokens_a_month": float(tokens),
        "a_month": float(monthly(each.cost.parts)),
        "once": float(at_once(each.cost.parts)),
        "over_horizon": float(each.over_horizon),
        "machines_a_month": None if hosted is None else float(hosted),
        "per_million": per_million(each.over_horizon / months, tokens),
        "per_million_reserved": None if hosted is None else per_million(hosted, tokens),
        **_speeds(each, workload, sizing),
    }


def tokens_a_month(workload: Workload) -> Decimal:
    """Of the mean month of the horizon: requests × (prompt + answer)."""
    length = demand.mean(workload.prompt) + demand.mean(workload.answer)
    return demand.requests_a_month(workload) * length


def per_million(a_month: Decimal | float, tokens: Decimal | float) -> float | None:
    """None where there are no tokens to share it out among."""
    return float(round(exact(a_month) / exact(tokens) * MILLION, 6)) if tokens else None


def machines_a_month(each: Ranked, workload: Workload, assumptions: Assumptions) -> Decimal | None:
    """What is bought at once is shared out over the horizon; None where nothing is hosted."""
    if each.sized is None:
        return None
    parts = cost.hosted(each.offer, workload, assumptions, each.sized)
    return whole(parts, workload.horizon_months) / workload.horizon_months


def _speeds(each: Ranked, workload: Workload, sizing: Sizing) -> dict[str, Any]:
    """Tokens of answers a second: what the busiest hour asks for, and what the replicas that
    are there make when there is always another request. Waits are at the 95th percentile, in
    the busiest hour of the last month, which the replicas are for."""
    answer = float(demand.mean(workload.answer))
    busy, full = float(demand.peak(workload)) * answer / 3600, None
    sized, told = each.sized, each.predicted
    replica = None if sized is None else sizing.replica(each.option, workload)
    if sized is not None and replica is not None:
        times, batching = replica
        prompt = float(demand.mean(workload.prompt))
        _, of_one = times.full_load(prompt, answer, batching.sequences)
        full = of_one * sized.replicas
    return {
        "tokens_a_second_busy": busy,
        "tokens_a_second_full": full,
        "utilization_busy": full and busy / full,
        "ttft_p95_ms": told and told.ttft_ms,
        "tpot_p95_ms": told and told.tpot_ms,
        "basis": told and told.basis.value,
    }


def _runner_up(each: Ranked, workload: Workload) -> dict[str, Any]:
    option, months = each.option, workload.horizon_months
    return {
        "way": option.way.value,
        "id": option.id,
        "model": option.model,
        "a_month": float(monthly(each.cost.parts)),
        "over_horizon": float(each.over_horizon),
        "per_million": per_million(each.over_horizon / months, tokens_a_month(workload)),
    }


def _prices(offer: Offer, assumptions: Assumptions) -> Iterable[dict[str, Any]]:
    """Those of what was chosen, in dollars, each with where it is from."""
    if offer.rent is not None:
        rent = offer.rent
        yield _price(f"{rent.instance} at {rent.provider}", rent.usd_per_hour, "hour", rent.source)
    if offer.api is not None:
        api = offer.api
        for what, value in (
            ("prompts", api.input_usd),
            ("cached prompts", api.cached_usd),
            ("answers", api.output_usd),
        ):
            if value is not None:
                name = f"{what} of {api.model} at {api.provider}"
                yield _price(name, value, "million tokens", api.source)
    if offer.accelerator is not None and offer.rent is None:
        figure = assumptions.price(offer.accelerator.id)
        if figure is not None:
            why = Source("assumed" if figure.assumed else "yours", None, figure.why)
            yield _price(offer.accelerator.id, float(figure.value), "accelerator", why)


def _price(what: str, value: float, each: str, source: Source) -> dict[str, Any]:
    at = source.at.isoformat() if source.at else None
    return {"what": what, "usd": value, "each": each, "source": source.where, "at": at}


def _machine(
    chosen: Ranked, workload: Workload, assumptions: Assumptions, busiest: float | None
) -> dict[str, Any] | None:
    """What the machines cost, as `prices.machine` of the settings has it; None where there
    are none. `busy` is the share of what they can that is asked of them, on the average of a
    week; `busiest` that of its busiest hour."""
    sized, offer, option = chosen.sized, chosen.offer, chosen.option
    if sized is None or offer.accelerator is None:
        return None
    dollar, economics = assumptions.value("for_a_dollar"), workload.economics
    made: dict[str, Any] = {"busy": _busy(sized, workload, busiest)}
    if offer.rent is not None:
        parts = cost.hosted(offer, workload, assumptions, sized)
        return made | {"per_hour": float(round(monthly(parts) / MONTH_HOURS, 6))}
    if cost.is_at_hand(option):
        return made | _own_costs(offer.costs, dollar)
    kit = machines.bought(offer.accelerator.id, sized.replicas * option.accelerators_a_replica)
    price = assumptions.price(offer.accelerator.id)
    server = assumptions.value(f"{kit.server}_price")
    whole_price = (kit.accelerators * price.value + kit.servers * server) * dollar if price else 0
    drawn = machines.kilowatt_hours(option, offer.accelerator, sized.replicas, assumptions)
    at_plug = exact(economics.power_per_kwh) * exact(economics.power_usage_effectiveness)
    hosting = next((each.a_month for each in chosen.cost.parts if each.name == "Hosting"), 0.0)
    return made | {
        "purchase": float(whole_price),
        "lifetime_years": round(economics.amortization_months / 12, 4),
        "watts": float(round(drawn / MONTH_HOURS * 1000, 1)) if offer.accelerator.power_w else 0.0,
        "per_kwh": float(at_plug),
        "per_month": hosting,
    }


def _own_costs(costs: machines.Costs, dollar: Decimal) -> dict[str, Any]:
    """Of the machine at hand, as its owner has told; {} where nothing was."""
    if costs.per_hour is not None:
        return {"per_hour": float(costs.per_hour * dollar)}
    if costs == machines.UNTOLD:
        return {}
    return {
        "purchase": float((costs.purchase or 0) * dollar),
        "lifetime_years": round(costs.lifetime_months / 12, 4),
        "watts": float(costs.watts),
        "per_kwh": float(costs.per_kwh * dollar),
        "per_month": float(costs.a_month * dollar),
    }


def _busy(sized: Sized, workload: Workload, busiest: float | None) -> float:
    hours = demand.hourly(workload)
    mean = float(sum(hours) / (max(hours) * len(hours)))
    if busiest is None:
        busiest = workload.economics.utilization_ceiling * sized.at_peak / sized.replicas
    return round(min(max(mean * busiest, 0.0001), 1.0), 4)


def _accelerator(offer: Offer) -> dict[str, Any] | None:
    found = offer.accelerator
    if found is None:
        return None
    return {"kind": found.kind, "has_bf16": found.bf16_tflops is not None}
