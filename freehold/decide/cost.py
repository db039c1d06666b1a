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
from freehold.decide import demand, machines, network, people, tokens, training
from freehold.decide.assumptions import Assumptions
from freehold.decide.carbon import Emitted, carbon, emitted
from freehold.decide.money import MONTH_HOURS, part, shown, whole


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
        parts += _embedded(workload, around)
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


def _embedded(workload: Workload, around: Surroundings) -> Iterable[Part]:
    if workload.embedding is None:
        return ()
    if around.embedding is None:
        return (part("Embeddings", "not counted: no provider of them passes the rules"),)
    return tokens.embeddings(around.embedding, workload.embedding, around.assumptions)


def _trained(
    offer: Offer, workload: Workload, around: Surroundings, sized: Sized | None
) -> Iterable[Part]:
    """On the option's own machines outside its peaks, where they have the hours; else rented."""
    tuning, model, assumptions = workload.tuning, offer.model, around.assumptions
    if tuning is None or model is None:
        return
    if offer.rent is None and offer.accelerator is not None and sized is not None:
        own = training.run(model, tuning, offer.accelerator, assumptions)
        there = sized.replicas * offer.option.accelerators_a_replica
        idle = idle_hours(workload, sized)
        if (
            own
            and own.accelerators <= there
            and own.hours * Decimal(str(tuning.runs_a_month)) <= idle
        ):
            yield part(
                f"Training ({tuning.method})",
                f"no more: in the {shown(idle)} hours a month that the own machines are idle;"
                f" a run: {own.formula}",
            )
            return
    if around.training is not None:
        accelerator, rent = around.training
        one = training.run(model, tuning, accelerator, assumptions)
        if one is not None:
            yield training.training(
                one, tuning, rent.usd_per_hour / rent.count, assumptions, rent.source.where
            )
            return
    yield part(f"Training ({tuning.method})", "not counted: nothing that is known holds the model")


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
