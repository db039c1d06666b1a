"""What all options of a decision share: who may embed, and what training is rented on."""

from datetime import date
from decimal import Decimal

from freehold.core.facts import Accelerator, EmbeddingPrice, Facts, RentPrice
from freehold.core.plan import Way, Workload
from freehold.decide import options, training
from freehold.decide.assumptions import Assumptions
from freehold.decide.compliance import judge_by_name, passes
from freehold.decide.cost import Surroundings
from freehold.decide.machines import SCALED_TO_ZERO

# A run takes hours: nothing that binds for a year, or is taken away in the middle of it.
_BY_THE_HOUR = frozenset({"on_demand", SCALED_TO_ZERO})


def surroundings(
    workload: Workload, facts: Facts, assumptions: Assumptions, start: date
) -> Surroundings:
    return Surroundings(
        assumptions,
        start,
        embedding=_embedding(workload, facts),
        training=_training(workload, facts, assumptions),
    )


def _embedding(workload: Workload, facts: Facts) -> EmbeddingPrice | None:
    if workload.embedding is None:
        return None
    allowed = [
        price
        for price in facts.embeddings
        if passes(judge_by_name(Way.API, price.provider, None, workload.rules, facts))
    ]
    return min(allowed, key=lambda each: each.usd, default=None)


def _training(
    workload: Workload, facts: Facts, assumptions: Assumptions
) -> tuple[Accelerator, RentPrice] | None:
    """The machine that the rules allow and a run is cheapest on."""
    tuning = workload.tuning
    models = [m for m in facts.models.values() if options.is_wanted(m.id, workload)]
    if tuning is None or not models:
        return None
    largest = max(models, key=lambda each: each.params_b)
    found: list[tuple[Decimal, int, Accelerator, RentPrice]] = []
    for rent in facts.rents:
        if rent.term not in _BY_THE_HOUR or options.why_no_offer(rent, facts, workload):
            continue
        accelerator = facts.accelerators[rent.accelerator]
        run = training.run(largest, tuning, accelerator, assumptions)
        if run and passes(
            judge_by_name(Way.RENTED, rent.provider, rent.region, workload.rules, facts)
        ):
            usd = run.accelerator_hours * Decimal(str(rent.usd_per_hour)) / rent.count
            found.append((usd, len(found), accelerator, rent))
    return min(found)[2:] if found else None
