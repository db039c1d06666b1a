"""Every option, judged, sized, costed and ranked; and each that was left out, with its reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Protocol

from freehold.core.facts import Accelerator, Facts, ModelFacts, RentPrice
from freehold.core.plan import (
    Judged,
    Option,
    Precision,
    Predicted,
    Verdict,
    Way,
    Workload,
)
from freehold.decide import cost, options
from freehold.decide.assumptions import Assumptions
from freehold.decide.availability import Spread, spread
from freehold.decide.compliance import judge_by_name, passes
from freehold.decide.cost import Cost, Offer, Sized, Surroundings
from freehold.decide.licence import judge_licence
from freehold.decide.money import shown
from freehold.decide.people import Delivery, delivery
from freehold.decide.quality import judge_quality
from freehold.decide.reasons import api_cannot, api_takes, mix_cannot, notes_on
from freehold.decide.sizing import Needed
from freehold.decide.surroundings import surroundings

_BASES = 6  # the cheapest own ways that a mix is tried with


class Replicas(Protocol):
    """How many replicas of an option the busiest hour of a workload needs, so that its targets
    are met; None where no number does, or the model doesn't fit."""

    def __call__(self, option: Option, workload: Workload) -> Needed | None: ...


@dataclass(frozen=True, slots=True)
class Ranked:
    offer: Offer
    cost: Cost
    over_horizon: Decimal
    delivery: Delivery
    judged: tuple[Judged, ...]
    sized: Sized | None = None
    notes: tuple[str, ...] = ()
    predicted: Predicted | None = None

    @property
    def option(self) -> Option:
        return self.offer.option


@dataclass(frozen=True, slots=True)
class Rejected:
    """`what` is an option, or what many have in common: a model, a provider's machine."""

    what: str
    why: str
    judged: tuple[Judged, ...] = ()

    @property
    def only_unknown(self) -> bool:
        """Whether an answer to what is unknown would let it in."""
        return bool(self.judged) and all(each.verdict is not Verdict.FAIL for each in self.judged)


@dataclass(frozen=True, slots=True)
class Plan:
    ranked: tuple[Ranked, ...]  # the cheapest over the horizon first
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class AtHand:
    accelerator: Accelerator
    count: int = 1


def plan(
    workload: Workload,
    facts: Facts,
    replicas: Replicas,
    *,
    start: date,
    assumptions: Assumptions | None = None,
    at_hand: AtHand | None = None,
) -> Plan:
    """What the workload says itself goes over `assumptions`."""
    made = (assumptions or Assumptions()).of(workload)
    return _Planning(workload, facts, replicas, start, made, at_hand).plan()


def is_feasible(
    workload: Workload,
    facts: Facts,
    replicas: Replicas,
    *,
    start: date,
    assumptions: Assumptions | None = None,
    at_hand: AtHand | None = None,
) -> bool:
    """Whether a plan has any option: it ends with the first, and costs none."""
    made = (assumptions or Assumptions()).of(workload)
    try:
        _Planning(workload, facts, replicas, start, made, at_hand, is_enough=True).plan()
    except _Enough:
        return True
    return False


class _Enough(Exception):
    """There is an option."""


@dataclass(slots=True)
class _Planning:
    workload: Workload
    facts: Facts
    replicas: Replicas
    start: date
    assumptions: Assumptions
    at_hand: AtHand | None
    is_enough: bool = False  # to have one
    ranked: list[Ranked] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    _needed: dict[tuple[str, Precision, str], tuple[int, int] | None] = field(default_factory=dict)
    _predicted: dict[tuple[str | None, ...], Predicted] = field(default_factory=dict)
    _spreads: dict[tuple[int, int], Spread | None] = field(default_factory=dict)

    def plan(self) -> Plan:
        models = list(self._models())
        around = surroundings(self.workload, self.facts, self.assumptions, self.start)
        for offer in options.apis(self.facts, self.workload, self.assumptions):
            self._api(offer, around)
        self._rented(models, around)
        bases = self._on_own(models, around)
        self._mixed(bases, around)
        self.ranked.sort(key=lambda each: (each.over_horizon, each.option.id))
        return Plan(tuple(self.ranked), tuple(self.rejected))

    # What is judged once for many options.

    def _models(self) -> Iterator[tuple[ModelFacts, tuple[Judged, ...]]]:
        """Those that may be used and read what is asked."""
        needed = options.context_needed(self.workload)
        for model in self.facts.models.values():
            if not options.is_wanted(model.id, self.workload):
                continue
            judged = judge_licence(model, self.workload)
            if not passes(judged):
                self._reject(model.id, judged)
            elif model.context_length is None or model.context_length < needed:
                context = shown(model.context_length or 0)
                self._leave_out(
                    model.id, f"Its context is {context} tokens, and {needed:,} are needed."
                )
            else:
                yield model, judged

    def _provider(self, way: Way, provider: str | None, region: str | None) -> tuple[Judged, ...]:
        return judge_by_name(way, provider, region, self.workload.rules, self.facts)

    def _quality(
        self, model: ModelFacts | None, name: str, precision: Precision | None
    ) -> tuple[Judged, ...]:
        native = model is not None and model.native_quantization is not None
        return judge_quality(
            model, name, self.workload.rules, self.facts, None if native else precision
        )

    # Ways.

    def _api(self, offer: Offer, around: Surroundings) -> None:
        option, model = offer.option, offer.model
        judged = (
            *(judge_licence(model, self.workload) if model else ()),
            *self._quality(model, option.model, None),
            *self._provider(Way.API, option.provider, None),
        )
        if not passes(judged):
            self._reject(option.id, judged)
            return
        why = api_cannot(offer, self.workload, self.assumptions)
        if why:
            self._leave_out(option.id, why)
            return
        self._rank(offer, around, None, judged)

    def _rented(
        self, models: Sequence[tuple[ModelFacts, tuple[Judged, ...]]], around: Surroundings
    ) -> None:
        for rent in self.facts.rents:
            what = options.path(rent)
            why = options.why_no_offer(rent, self.facts, self.workload)
            if why:
                self._leave_out(what, why)
                continue
            judged = self._provider(Way.RENTED, rent.provider, rent.region or None)
            if not passes(judged):
                self._reject(what, judged)
                continue
            accelerator = self.facts.accelerators[rent.accelerator]
            egress = next((e for e in self.facts.egress if e.provider == rent.provider), None)
            near = Surroundings(
                around.assumptions, around.start, egress, around.embedding, around.training
            )
            for model, licence in models:
                self._on(rent, model, accelerator, near, (*licence, *judged))

    def _on(
        self,
        rent: RentPrice,
        model: ModelFacts,
        accelerator: Accelerator,
        around: Surroundings,
        judged: tuple[Judged, ...],
    ) -> None:
        for precision, quality, needed in self._sizes(model, accelerator):
            count, at_peak = needed
            offer = options.rented(model, precision, rent, accelerator, count)
            if count > rent.count:
                self._leave_out(
                    offer.option.id,
                    f"An instance has {rent.count} accelerators: fewer than a replica takes.",
                )
                continue
            self._spread(offer, at_peak, "zones", around, (*judged, *quality))

    def _on_own(
        self, models: Sequence[tuple[ModelFacts, tuple[Judged, ...]]], around: Surroundings
    ) -> list[tuple[Offer, int, tuple[Judged, ...]]]:
        """What mixes can be made from: what is owned or at hand, and how many the peak needs."""
        judged = self._provider(Way.OWNED, None, self.workload.region)
        if not passes(judged):
            self._reject("machines of your own", judged)
            return []
        bases = []
        for model, licence in models:
            for accelerator in self.facts.accelerators.values():
                if self.assumptions.price(accelerator.id) is None:
                    continue
                for precision, quality, (count, at_peak) in self._sizes(model, accelerator):
                    offer = options.on_own(
                        Way.OWNED, model, precision, accelerator, count, self.workload.region
                    )
                    every = (*licence, *judged, *quality)
                    self._spread(offer, at_peak, "places", around, every)
                    bases.append((offer, at_peak, every))
            bases += self._at_hand(model, (*licence, *judged), around)
        return bases

    def _at_hand(
        self, model: ModelFacts, judged: tuple[Judged, ...], around: Surroundings
    ) -> Iterator[tuple[Offer, int, tuple[Judged, ...]]]:
        if self.at_hand is None:
            return
        accelerator = self.at_hand.accelerator
        for precision, quality, (count, at_peak) in self._sizes(model, accelerator):
            offer = options.on_own(
                Way.AT_HAND, model, precision, accelerator, count, self.workload.region
            )
            if count > self.at_hand.count:
                self._leave_out(
                    offer.option.id,
                    f"There are {self.at_hand.count} accelerators: fewer than a replica takes.",
                )
                continue
            every = (*judged, *quality)
            if at_peak * count > self.at_hand.count:
                here = f"{at_peak} replicas are needed at the peak"
                self._leave_out(offer.option.id, f"{here}, and {self.at_hand.count} are there.")
            else:
                self._spread(offer, at_peak, "places", around, every)
            yield offer, at_peak, every

    def _mixed(
        self, bases: Sequence[tuple[Offer, int, tuple[Judged, ...]]], around: Surroundings
    ) -> None:
        """The base load on own machines, the peaks at the cheapest API that passes."""
        bought = [each for each in self.ranked if each.option.way is Way.API]
        if not bought:
            return
        peaks = min(bought, key=lambda each: (each.over_horizon, each.option.id))
        for base, at_peak, judged in self._bases(bases, around):
            for count in self._steps(base, at_peak):
                offer = options.mixed(base, count, peaks.offer)
                sized = Sized(at_peak, count)
                every = (*judged, *peaks.judged)
                why = mix_cannot(sized, self.workload, self.assumptions)
                if why:
                    self._leave_out(offer.option.id, why)
                else:
                    self._rank(offer, around, sized, every)

    def _bases(
        self, bases: Sequence[tuple[Offer, int, tuple[Judged, ...]]], around: Surroundings
    ) -> list[tuple[Offer, int, tuple[Judged, ...]]]:
        """The cheapest for a quarter, a half and all of the peak: what is cheap for little is
        another than what is cheap for much. What is at hand is tried beside them."""
        several = [each for each in bases if each[1] > 1]
        chosen: dict[str, tuple[Offer, int, tuple[Judged, ...]]] = {}
        for at_hand in (True, False):
            kind = [e for e in several if cost.is_at_hand(e[0].option) is at_hand]
            for part_of in (4, 2, 1):
                priced = sorted(kind, key=lambda e: self._alone(e[0], -(-e[1] // part_of), around))
                chosen |= {each[0].option.id: each for each in priced[:_BASES]}
        return list(chosen.values())

    def _steps(self, base: Offer, at_peak: int) -> Sequence[int]:
        """All numbers below the peak's, or eight of them evenly where they are many; at hand,
        what is there."""
        most = at_peak - 1
        if cost.is_at_hand(base.option) and self.at_hand is not None:
            there = self.at_hand.count // base.option.accelerators_a_replica
            return [min(most, there)]
        return sorted({max(1, most * step // 8) for step in range(1, 9)})

    def _alone(self, offer: Offer, replicas: int, around: Surroundings) -> Decimal:
        sized = Sized(replicas, replicas)
        months = self.workload.horizon_months
        return cost.cost(offer, self.workload, around, sized).over(months)

    # Sizes.

    def _sizes(
        self, model: ModelFacts, accelerator: Accelerator
    ) -> Iterator[tuple[Precision, tuple[Judged, ...], tuple[int, int]]]:
        """By format: accelerators of a replica, and how many replicas the peak needs."""
        for precision in options.precisions(model, accelerator):
            quality = self._quality(model, model.id, precision)
            key = (model.id, precision, accelerator.id)
            if key not in self._needed:
                self._needed[key] = self._size(model, precision, accelerator, quality)
            needed = self._needed[key]
            if needed is not None:
                yield precision, quality, needed

    def _size(
        self,
        model: ModelFacts,
        precision: Precision,
        accelerator: Accelerator,
        quality: tuple[Judged, ...],
    ) -> tuple[int, int] | None:
        what = f"{model.id} {precision} on {accelerator.id}"
        if not passes(quality):
            self._reject(what, quality)
            return None
        for count in options.COUNTS:
            if options.may_hold(model, precision, accelerator, count):
                asked = options.on_own(
                    Way.OWNED, model, precision, accelerator, count, self.workload.region
                )
                found = self.replicas(asked.option, self.workload)
                if found is not None:
                    self._predicted[model.id, precision, accelerator.id] = found.predicted
                    return count, found.replicas
        most = options.COUNTS[-1]
        self._leave_out(
            what, f"On up to {most} of them it doesn't fit, or doesn't meet the targets."
        )
        return None

    def _spread(
        self,
        offer: Offer,
        at_peak: int,
        where: str,
        around: Surroundings,
        judged: tuple[Judged, ...],
    ) -> None:
        """`where` is the assumption that says over how many zones or places."""
        most = int(self.assumptions.value(where))
        if (at_peak, most) not in self._spreads:
            self._spreads[at_peak, most] = spread(
                at_peak, self.workload.targets.availability, most, self.assumptions
            )
        found = self._spreads[at_peak, most]
        option = offer.option
        if found is None:
            up = self.assumptions["zone_availability"]
            self._leave_out(option.id, f"No number of them in {most} {where} is up for it: {up}.")
            return
        here = self.at_hand.count if self.at_hand else 0
        if option.way is Way.AT_HAND and found.replicas * option.accelerators_a_replica > here:
            self._leave_out(option.id, f"{found.formula}, and {here} are there.")
            return
        sized = Sized(at_peak, found.replicas, found.zones)
        self._rank(offer, around, sized, judged)

    # Ends.

    def _rank(
        self,
        offer: Offer,
        around: Surroundings,
        sized: Sized | None,
        judged: tuple[Judged, ...],
    ) -> None:
        takes = delivery(offer.option, self.workload, self.assumptions)
        deadline = self.workload.deadline_days
        if deadline is not None and takes.days > deadline:
            why = f"It takes {takes.days} days until it serves, and {deadline} are left."
            self._leave_out(offer.option.id, why)
            return
        if self.is_enough:
            raise _Enough
        found = cost.cost(offer, self.workload, around, sized)
        whole = found.over(self.workload.horizon_months)
        notes = notes_on(offer, self.start)
        predicted = self._predicts(offer, sized)
        self.ranked.append(Ranked(offer, found, whole, takes, judged, sized, notes, predicted))

    def _predicts(self, offer: Offer, sized: Sized | None) -> Predicted:
        option = offer.option
        if sized is None:
            return api_takes(self.workload, self.assumptions)
        return self._predicted[option.model, option.precision, option.accelerator]

    def _reject(self, what: str, judged: tuple[Judged, ...]) -> None:
        against = tuple(each for each in judged if each.verdict is not Verdict.PASS)
        self.rejected.append(Rejected(what, against[0].why, against))

    def _leave_out(self, what: str, why: str) -> None:
        self.rejected.append(Rejected(what, why))
