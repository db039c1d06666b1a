"""What all options of a decision share: who may embed, and what training is rented on."""

from datetime import date
from decimal import Decimal

from freehold.core.facts import Accelerator, EmbeddingPrice, Facts, ModelFacts, RentPrice
from freehold.core.plan import Embedding, Way, Workload
from freehold.decide.money import embedding, machines, training
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Surroundings
from freehold.decide.money.embedding import Host
from freehold.decide.money.machines import SCALED_TO_ZERO
from freehold.decide.money.money import MONTH_HOURS
from freehold.decide.rules.compliance import judge_by_name, passes
from freehold.decide.rules.licence import judge_licence
from freehold.decide.ways import options

# A run takes hours: nothing that binds for a year, or is taken away in the middle of it.
_BY_THE_HOUR = frozenset({"on_demand", SCALED_TO_ZERO})


def surroundings(
    workload: Workload, facts: Facts, assumptions: Assumptions, start: date
) -> Surroundings:
    embedder = _embedder(workload, facts)
    return Surroundings(
        assumptions,
        start,
        embedding=_embedding(workload, facts),
        training=_training(workload, facts, assumptions),
        embedder=embedder,
        embedding_host=_host(embedder, workload, facts) if embedder else None,
    )


def _embedder(workload: Workload, facts: Facts) -> ModelFacts | None:
    """The first of the facts that may be used, or the one that is named."""
    if workload.embedding is None:
        return None
    named = workload.embedding.model
    for model in facts.embedders.values():
        if named in {None, model.id} and passes(judge_licence(model, workload)):
            return model
    return None


def _host(embedder: ModelFacts, workload: Workload, facts: Facts) -> Host | None:
    """The cheapest machine that the rules allow and that holds it and is quick enough."""
    found: list[tuple[float, int, Host]] = []
    for rent in facts.rents:
        if rent.term not in _BY_THE_HOUR or options.why_no_offer(rent, facts, workload):
            continue
        run = embedding.run(embedder, workload.embedding or Embedding(), _card(rent, facts))
        if run is not None and run.hours_a_month <= MONTH_HOURS and _may_be(rent, workload, facts):
            found.append((rent.usd_per_hour, len(found), Host(run, rent)))
    return min(found)[2] if found else None


def _may_be(rent: RentPrice, workload: Workload, facts: Facts) -> bool:
    way = machines.way(rent)
    return passes(judge_by_name(way, rent.provider, rent.region or None, workload.rules, facts))


def _card(rent: RentPrice, facts: Facts) -> Accelerator:
    return facts.accelerators[rent.accelerator]


def _embedding(workload: Workload, facts: Facts) -> EmbeddingPrice | None:
    if workload.embedding is None:
        return None
    allowed = [
        price
        for price in facts.embeddings
        if workload.embedding.model in {None, price.model}
        and passes(judge_by_name(Way.API, price.provider, None, workload.rules, facts))
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
