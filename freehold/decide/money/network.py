"""What it costs that data leaves a cloud, or goes between its zones."""

from decimal import Decimal

from freehold.core.facts import Egress
from freehold.core.plan import Part, Workload
from freehold.decide.money import demand
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.money import exact, part, shown


def egress(
    price: Egress | None, workload: Workload, assumptions: Assumptions, *, provider: str
) -> tuple[Part, ...]:
    """By steps, as clouds bill it: each GB at the price of the step that it falls into, what
    is free taken from the first."""
    gigabytes = demand.requests_a_month(workload) * exact(workload.economics.egress_gb_a_request)
    if not gigabytes:
        return ()
    name = f"Data out of {provider}"
    if price is None or not price.tiers or any(usd is None for _, usd in price.tiers):
        return (part(name, f"{shown(gigabytes)} GB a month, not counted: no price is published"),)
    cost, steps = _by_steps(price, gigabytes)
    return (
        part(
            name,
            f"{shown(gigabytes)} GB a month: " + " + ".join(steps),
            a_month=cost * assumptions.value("for_a_dollar"),
            source=price.source.where,
        ),
    )


def between_zones(
    price: Egress | None, workload: Workload, zones: int, assumptions: Assumptions
) -> tuple[Part, ...]:
    """Requests come in at any zone and are served in any: (z − 1) / z of them cross, and are
    billed where they leave and where they enter."""
    gigabytes = demand.requests_a_month(workload) * exact(workload.economics.egress_gb_a_request)
    if zones < 2 or not gigabytes or price is None or price.between_zones_usd_per_gb is None:
        return ()
    usd = exact(price.between_zones_usd_per_gb)
    crossing = gigabytes * (zones - 1) / zones
    return (
        part(
            "Data between zones",
            f"{shown(gigabytes)} GB a month × {zones - 1}/{zones} that cross × 2 (out and in)"
            f" × {shown(usd, 6)} USD",
            a_month=crossing * 2 * usd * assumptions.value("for_a_dollar"),
            source=price.source.where,
        ),
    )


def _by_steps(price: Egress, gigabytes: Decimal) -> tuple[Decimal, list[str]]:
    free = min(exact(price.free_gb), gigabytes)
    cost, reached = Decimal(0), free
    words = [f"{shown(free)} GB free"] if free else []
    for until, usd in price.tiers:
        end = gigabytes if until is None else min(gigabytes, exact(until))
        if end > reached:
            cost += (end - reached) * exact(usd)
            words.append(f"{shown(end - reached)} GB × {shown(usd, 6)} USD")
            reached = end
    return cost, words
