"""What an option costs, as a list of parts that each say how they came about."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from freehold.core.facts import (
    Accelerator,
    ApiPrice,
    Egress,
    EmbeddingPrice,
    ModelFacts,
    RentPrice,
)
from freehold.core.plan import Option, Part, Way, Workload
from freehold.decide.money import demand, embedding, machines, network, people, tokens, training
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.carbon import Emitted, carbon, emitted
from freehold.decide.money.embedding import Host
from freehold.decide.money.money import MONTH_HOURS, exact, part, shown, whole


@dataclass(frozen=True, slots=True)
class Offer:
    """An option with the facts that its names stand for. A mixed one has both an accelerator
    and an API."""

    option: Option
    model: ModelFacts | None
    accelerator: Accelerator | None = None
    rent: RentPrice | None = None
    api: ApiPrice | None = None
    surcharge: Decimal = Decimal(0)  # what the API's provider adds for the region
    costs: machines.Costs = machines.UNTOLD  # of the machine at hand


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all options of a decision, or follows from their provider."""

    assumptions: Assumptions
    start: date
    egress: Egress | None = None
    embedding: EmbeddingPrice | None = None
    # What an accelerator costs an hour for training, where the option has none that can.
    training: tuple[Accelerator, RentPrice] | None = None
    # What may embed, and the machine that is rented for it where the option has no room.
    embedder: ModelFacts | None = None
    embedding_host: Host | None = None


@dataclass(frozen=True, slots=True)
class Sized:
    """How much of a machine it takes. `at_peak` replicas meet the busiest hour; `replicas` are
    there, more of them for availability, or fewer where an API takes the peaks."""

    at_peak: int
    replicas: int
    zones: int = 1


@dataclass(frozen=True, slots=True)
class Cost:
    parts: tuple[Part, ...]
    emitted: Emitted | None = None

    def over(self, months: int) -> Decimal:
        return whole(self.parts, months)


def cost(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None = None
) -> Cost:
    """`sized` is needed for all but an API."""
    option, assumptions = offer.option, around.assumptions
    parts: list[Part] = []
    if offer.api is not None:
        parts += _bought(offer, offer.api, workload, around, sized)
    if sized is not None:
        parts += hosted(offer, workload, assumptions, sized)
        parts += network.between_zones(around.egress, workload, sized.zones, assumptions)
    if offer.rent is not None:
        parts += network.egress(around.egress, workload, assumptions, provider=offer.rent.provider)
    if workload.embedding is not None:
        parts += _embedded(offer, workload, around, sized)
    if workload.tuning is not None:
        parts += _trained(offer, workload, around, sized)
    parts += people.team(option.way, workload.economics, assumptions)
    parts += people.setup(option, assumptions)
    return _with_carbon(offer, workload, around, sized, parts)


def _bought(
    offer: Offer, price: ApiPrice, workload: Workload, around: Surroundings, sized: Sized | None
) -> tuple[Part, ...]:
    share = Decimal(1)
    if sized is not None:
        part_of = base_load(workload, sized).bought
        share = Decimal(part_of.numerator) / part_of.denominator
    return tokens.api(
        price,
        workload,
        around.assumptions,
        start=around.start,
        share=share,
        surcharge=offer.surcharge,
    )


def base_load(workload: Workload, sized: Sized) -> demand.Split:
    """What the replicas that are there answer themselves, each as much as it does where
    `at_peak` of them meet the busiest hour."""
    capacity = demand.peak(workload) * Fraction(sized.replicas, sized.at_peak)
    return demand.split(workload, capacity)


def hosted(
    offer: Offer, workload: Workload, assumptions: Assumptions, sized: Sized
) -> tuple[Part, ...]:
    """What machines cost, whether they are busy or not."""
    option, economics = offer.option, workload.economics
    if offer.rent is not None:
        return machines.rented(option, offer.rent, workload, sized.replicas, assumptions)
    if offer.accelerator is None:
        return ()
    if is_at_hand(option):
        count = option.accelerators_a_replica * sized.replicas
        return machines.at_hand(offer.accelerator, count, economics, assumptions, offer.costs)
    return machines.owned(option, offer.accelerator, sized.replicas, economics, assumptions)


def is_at_hand(option: Option) -> bool:
    return option.way is Way.AT_HAND or option.details.get("base") == Way.AT_HAND


def lacks(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> str | None:
    """Why parts of the work have no place that the rules allow, in a sentence; None where all
    have one."""
    tuning, model = workload.tuning, offer.model
    if (
        tuning is not None
        and model is not None
        and not _training_place(offer, workload, around, sized)
    ):
        return (
            f"Training ({tuning.method}) of {model.id} fits into no machine that the rules allow,"
            " or its own have too few idle hours."
        )
    if workload.embedding is not None and not any(
        (_embedding_here(offer, workload, around, sized), around.embedding, around.embedding_host)
    ):
        named = workload.embedding.model or "that is known"
        return f"No embedding model {named} is sold or can be hosted as the rules ask."
    return None


def _embedded(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> Iterable[Part]:
    """On the option's own machines, where they have room; else what is cheaper of buying it and
    renting a machine for it."""
    wanted, assumptions = workload.embedding, around.assumptions
    if wanted is None:
        return ()
    here = _embedding_here(offer, workload, around, sized)
    if here is not None:
        return embedding.shared(here, _idle_accelerator_hours(offer, workload, sized))
    months = workload.horizon_months
    ways: list[tuple[Part, ...]] = []
    if around.embedding is not None:
        ways.append(tokens.embeddings(around.embedding, wanted, assumptions))
    if around.embedding_host is not None:
        ways.append(embedding.rented(around.embedding_host, wanted, assumptions))
    if not ways:
        return (part("Embeddings", "not counted: no provider of them passes the rules"),)
    return min(ways, key=lambda parts: whole(parts, months))


def _embedding_here(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> embedding.Run | None:
    """None where an accelerator of the option has no room beside its model, or too few hours."""
    option, model, accelerator = offer.option, offer.model, offer.accelerator
    if None in (sized, workload.embedding, around.embedder, model, accelerator):
        return None
    if offer.rent is not None and offer.rent.term == machines.SCALED_TO_ZERO:
        return None  # what is idle there is not paid for, and not there
    run = embedding.run(around.embedder, workload.embedding, accelerator)  # type: ignore[arg-type]
    if run is None:
        return None
    free = embedding.free_gb(option, model, accelerator, workload)  # type: ignore[arg-type]
    if run.gigabytes > free * around.assumptions.value("embedding_room"):
        return None
    hours = _idle_accelerator_hours(offer, workload, sized)
    return run if run.hours_a_month <= hours else None


def _idle_accelerator_hours(offer: Offer, workload: Workload, sized: Sized | None) -> Decimal:
    """Of all accelerators in a month: the busiest hour leaves what the ceiling of utilization
    does, the others more."""
    if sized is None:
        return Decimal(0)
    count = sized.replicas * max(1, offer.option.accelerators_a_replica)
    busy = 1 - idle_hours(workload, sized) / MONTH_HOURS
    return MONTH_HOURS * (1 - busy * exact(workload.economics.utilization_ceiling)) * count


def _trained(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> Iterable[Part]:
    """On the option's own machines outside its peaks, where they have the hours; else rented."""
    tuning, assumptions = workload.tuning, around.assumptions
    if tuning is None or offer.model is None:
        return
    found = _training_place(offer, workload, around, sized)
    if found is None:
        yield part(f"Training ({tuning.method})", "not counted: nothing that is known holds it")
        return
    one, rent = found
    if rent is not None:
        yield training.training(one, tuning, rent, assumptions)
        return
    idle = _training_hours(offer, workload, around, sized)
    yield part(
        f"Training ({tuning.method})",
        f"no more: in the {shown(idle)} hours a month that the own machines are idle;"
        f" a run: {one.formula}",
    )


def _training_place(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> tuple[training.Run, RentPrice | None] | None:
    """A run, and what is rented for it; None where nothing that the rules allow holds it."""
    tuning, model, assumptions = workload.tuning, offer.model, around.assumptions
    if tuning is None or model is None:
        return None
    if offer.rent is None and offer.accelerator is not None and sized is not None:
        own = training.run(model, tuning, offer.accelerator, assumptions)
        there = sized.replicas * offer.option.accelerators_a_replica
        idle = _training_hours(offer, workload, around, sized)
        if (
            own
            and own.accelerators <= there
            and own.hours * Decimal(str(tuning.runs_a_month)) <= idle
        ):
            return own, None
    if around.training is not None:
        accelerator, rent = around.training
        one = training.run(model, tuning, accelerator, assumptions)
        if one is not None:
            return one, rent
    return None


def _training_hours(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> Decimal:
    """Idle hours of the option's machines, less those that embedding takes of one of them."""
    if sized is None:
        return Decimal(0)
    embeds = _embedding_here(offer, workload, around, sized)
    idle = idle_hours(workload, sized)
    return max(Decimal(0), idle - embeds.hours_a_month) if embeds else idle


def idle_hours(workload: Workload, sized: Sized) -> Decimal:
    """Of a month, in which no replica is needed to answer: the share that the busiest hour
    leaves in the others, of all replicas."""
    hours = demand.hourly(workload)
    busy = sum(hours) / (max(hours) * len(hours)) * Fraction(sized.at_peak, sized.replicas)
    idle = max(Fraction(0), 1 - busy)
    return MONTH_HOURS * idle.numerator / idle.denominator


def _with_carbon(
    offer: Offer,
    workload: Workload,
    around: Surroundings,
    sized: Sized | None,
    parts: list[Part],
) -> Cost:
    accelerator = offer.accelerator
    if sized is None or accelerator is None or accelerator.power_w is None:
        return Cost(tuple(parts))
    drawn = machines.kilowatt_hours(offer.option, accelerator, sized.replicas, around.assumptions)
    economics = workload.economics
    return Cost(
        (*parts, *carbon(drawn, economics, around.assumptions)),
        emitted(drawn, economics, around.assumptions),
    )
