"""Every option, judged, sized, costed and ranked; and each that was left out, with its reason."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from freehold.core.words import counted
from freehold.decide.money import cost
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.availability import Spread, spread
from freehold.decide.money.cost import Cost, Offer, Sized, Surroundings
from freehold.decide.money.machines import UNTOLD, Costs
from freehold.decide.money.money import shown
from freehold.decide.money.people import Delivery, delivery
from freehold.decide.rules.compliance import judge_by_name, passes
from freehold.decide.rules.licence import judge_licence, judge_used
from freehold.decide.rules.quality import judge_quality
from freehold.decide.ways import options
from freehold.decide.ways.at_hand import NOTHING_MEASURED, THIS_MACHINE, AtHand
from freehold.decide.ways.reasons import api_cannot, api_takes, mix_cannot, notes_on
from freehold.decide.ways.sizing import Needed
from freehold.decide.ways.surroundings import surroundings

_BASES = 6  # the cheapest own ways that a mix is tried with
_BEST, _MOST_SIMULATED = 3, 24  # of each way, and of all together


class Replicas(Protocol):
    """In closed form, how many replicas of an option the busiest hour of a workload needs, so
    that its targets are met; None where no number does, or the model doesn't fit."""

    def __call__(self, option: Option, workload: Workload) -> Needed | None: ...


class Simulates(Protocol):
    """The same by the simulation, near a number that is said; else why none is enough."""

    def __call__(self, option: Option, workload: Workload, about: int) -> Needed | str: ...


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


_Key = tuple[str, Precision, str]  # a model, its format and an accelerator


@dataclass(frozen=True, slots=True)
class _Size:
    """Accelerators of a replica, and how many of those the peak needs."""

    count: int
    needed: Needed


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model in a format could be hosted, whatever number of replicas that takes."""

    way: Way
    model: ModelFacts
    precision: Precision
    accelerator: Accelerator
    rent: RentPrice | None
    around: Surroundings
    judged: tuple[Judged, ...]
    costs: Costs = UNTOLD

    @property
    def key(self) -> _Key:
        return self.model.id, self.precision, self.accelerator.id

    def offer(self, count: int, region: str | None) -> Offer:
        if self.rent is not None:
            return options.rented(self.model, self.precision, self.rent, self.accelerator, count)
        own = options.on_own(self.way, self.model, self.precision, self.accelerator, count, region)
        return replace(own, costs=self.costs)


def plan(
    workload: Workload,
    facts: Facts,
    replicas: Replicas,
    *,
    start: date,
    assumptions: Assumptions | None = None,
    at_hand: AtHand | None = None,
    simulates: Simulates | None = None,
) -> Plan:
    """With `simulates`, the best few of each way that hosts have the numbers of replicas and the
    times that the simulation says, and what is cheapest then is one of them. What the workload
    says itself goes over `assumptions`."""
    made = (assumptions or Assumptions()).of(workload)
    return _Planning(workload, facts, replicas, start, made, at_hand, simulates).plan()


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
    simulates: Simulates | None = None
    is_enough: bool = False  # to have one
    ranked: list[Ranked] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    peaks: Ranked | None = None  # the API that mixes buy from
    _sizes: dict[_Key, _Size | None] = field(default_factory=dict)
    _places: dict[_Key, list[_Place]] = field(default_factory=dict)
    _bases: dict[_Key, list[_Place]] = field(default_factory=dict)  # of mixes
    _spreads: dict[tuple[int, int], Spread | None] = field(default_factory=dict)

    def plan(self) -> Plan:
        around = surroundings(self.workload, self.facts, self.assumptions, self.start)
        models = list(self._models(self.facts.models.values()))
        for what, why in options.UNPRICED.items():
            self._leave_out(what, why)
        for offer in options.apis(self.facts, self.workload, self.assumptions):
            self._api(offer, around)
        self._rented(models, around)
        self._mixed(self._on_own(models, around))
        self._sort()
        if self.simulates is not None:
            self._simulate(self.simulates)
        return Plan(tuple(self.ranked), tuple(self.rejected))

    def _sort(self) -> None:
        """At the same cost, the format that loses least."""
        self.ranked.sort(key=lambda each: (each.over_horizon, _loses(each.option), each.option.id))

    # What is judged once for many options.

    def _models(
        self, models: Iterable[ModelFacts]
    ) -> Iterator[tuple[ModelFacts, tuple[Judged, ...]]]:
        """Those that may be used and read what is asked."""
        needed = options.context_needed(self.workload)
        for model in models:
            if not options.is_wanted(model.id, self.workload):
                continue
            judged = (*judge_licence(model, self.workload), *judge_used(self.workload))
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
        takes = api_takes(self.workload, self.assumptions)
        self._rank(offer, around, None, judged, takes)

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
            near = replace(around, egress=egress)
            for model, licence in models:
                self._host(Way.RENTED, model, accelerator, rent, near, (*licence, *judged))

    def _on_own(
        self, models: Sequence[tuple[ModelFacts, tuple[Judged, ...]]], around: Surroundings
    ) -> list[_Place]:
        """What mixes can be made from: what is owned or at hand."""
        judged = self._provider(Way.OWNED, None, self.workload.region)
        if not passes(judged):
            self._reject("machines of your own", judged)
            return []
        bases: list[_Place] = []
        for model, licence in models:
            for accelerator in self.facts.accelerators.values():
                if self.assumptions.price(accelerator.id) is not None:
                    every = (*licence, *judged)
                    bases += self._host(Way.OWNED, model, accelerator, None, around, every)
        return bases + self._here(models, judged, around)

    def _here(
        self,
        models: Sequence[tuple[ModelFacts, tuple[Judged, ...]]],
        judged: tuple[Judged, ...],
        around: Surroundings,
    ) -> list[_Place]:
        here = self.at_hand
        if here is None:
            return []
        if here.measured == ():
            self._leave_out(THIS_MACHINE, NOTHING_MEASURED)
            return []
        bases: list[_Place] = []
        for model, licence in (*models, *self._models(here.models)):
            every = (*licence, *judged)
            bases += self._host(Way.AT_HAND, model, here.accelerator, None, around, every)
        return bases

    def _host(
        self,
        way: Way,
        model: ModelFacts,
        accelerator: Accelerator,
        rent: RentPrice | None,
        around: Surroundings,
        judged: tuple[Judged, ...],
    ) -> list[_Place]:
        """In each format that it is good enough in there."""
        places = []
        costs = self.at_hand.costs if way is Way.AT_HAND and self.at_hand else UNTOLD
        for precision in options.precisions(model, accelerator):
            quality = self._quality(model, model.id, precision)
            every = (*judged, *quality)
            place = _Place(way, model, precision, accelerator, rent, around, every, costs)
            if place.key not in self._sizes:
                self._sizes[place.key] = self._size(place, quality)
            if self._sizes[place.key] is not None:
                self._places.setdefault(place.key, []).append(place)
                self._put(place)
                places.append(place)
        return places

    def _put(self, place: _Place) -> None:
        size = self._sizes[place.key]
        if size is None:
            return
        offer = place.offer(size.count, self.workload.region)
        why = self._cannot_hold(place, size)
        if why:
            self._leave_out(offer.option.id, why)
        else:
            self._spread(offer, size.needed.replicas, place)

    def _cannot_hold(self, place: _Place, size: _Size) -> str | None:
        if place.rent is not None and size.count > place.rent.count:
            has = counted(place.rent.count, "accelerator")
            return f"An instance has {has}: fewer than a replica takes."
        if place.way is not Way.AT_HAND or self.at_hand is None:
            return None
        there, at_peak = self.at_hand.count, size.needed.replicas
        if size.count > there:
            return f"There are {there} accelerators: fewer than a replica takes."
        if at_peak * size.count > there:
            return f"{at_peak} replicas are needed at the peak, and {there} are there."
        return None

    def _mixed(self, bases: Sequence[_Place]) -> None:
        """The base load on own machines, the peaks at the cheapest API that passes."""
        bought = [each for each in self.ranked if each.sized is None]
        if not bought:
            return
        self.peaks = min(bought, key=lambda each: (each.over_horizon, each.option.id))
        for place in self._cheapest(bases):
            self._bases.setdefault(place.key, []).append(place)
            self._mix(place, self.peaks)

    def _mix(self, place: _Place, peaks: Ranked) -> None:
        size = self._sizes[place.key]
        if size is None or size.needed.replicas < 2:
            return
        base = place.offer(size.count, self.workload.region)
        for count in self._steps(place, size):
            offer = options.mixed(base, count, peaks.offer)
            sized = Sized(size.needed.replicas, count)
            why = mix_cannot(sized, self.workload, self.assumptions)
            if why:
                self._leave_out(offer.option.id, why)
            else:
                every = (*place.judged, *peaks.judged)
                self._rank(offer, place.around, sized, every, size.needed.predicted)

    def _cheapest(self, bases: Sequence[_Place]) -> list[_Place]:
        """For a quarter, a half and all of the peak: what is cheap for little is another than what
        is cheap for much. What is at hand is tried beside them."""
        chosen: dict[tuple[Way, _Key], _Place] = {}
        for at_hand in (True, False):
            kind = [each for each in bases if (each.way is Way.AT_HAND) is at_hand]
            several = [each for each in kind if self._at_peak(each) > 1]
            for part_of in (4, 2, 1):
                priced = sorted(several, key=lambda e: self._alone(e, part_of))
                chosen |= {(each.way, each.key): each for each in priced[:_BASES]}
        return list(chosen.values())

    def _at_peak(self, place: _Place) -> int:
        """Nought where mixes are not made of it: there are too few for one replica."""
        size = self._sizes[place.key]
        if size is None or (
            place.way is Way.AT_HAND and self.at_hand and size.count > self.at_hand.count
        ):
            return 0
        return size.needed.replicas

    def _steps(self, place: _Place, size: _Size) -> Sequence[int]:
        """All numbers below the peak's, or eight of them evenly where they are many; at hand,
        what is there."""
        most = size.needed.replicas - 1
        if place.way is Way.AT_HAND and self.at_hand is not None:
            return [min(most, self.at_hand.count // size.count)]
        return sorted({max(1, most * step // 8) for step in range(1, 9)})

    def _alone(self, place: _Place, part_of: int) -> Decimal:
        size = self._sizes[place.key]
        if size is None:
            return Decimal(0)
        replicas = -(-size.needed.replicas // part_of)
        offer = place.offer(size.count, self.workload.region)
        found = cost.cost(offer, self.workload, place.around, Sized(replicas, replicas))
        return found.over(self.workload.horizon_months)

    # Sizes.

    def _size(self, place: _Place, quality: tuple[Judged, ...]) -> _Size | None:
        what = " ".join(_named(place.key))
        if not passes(quality):
            self._reject(what, quality)
            return None
        for count in self._counts(place.accelerator):
            found = self._closed(place, count)
            if found is not None:
                return _Size(count, found)
        most = self._counts(place.accelerator)[-1]
        many = f"On up to {most} of them" if most > 1 else "There"
        self._leave_out(what, f"{many} it doesn't fit, or doesn't meet the targets.")
        return None

    def _counts(self, accelerator: Accelerator) -> Sequence[int]:
        is_one = self.at_hand is not None and self.at_hand.is_measured(accelerator.id)
        return options.COUNTS[:1] if is_one else options.COUNTS

    def _closed(self, place: _Place, count: int) -> Needed | None:
        if not options.may_hold(place.model, place.precision, place.accelerator, count):
            return None
        return self.replicas(self._asked(place, count), self.workload)

    def _asked(self, place: _Place, count: int) -> Option:
        """Whoever it belongs to, it is as fast."""
        return options.on_own(
            Way.OWNED, place.model, place.precision, place.accelerator, count, self.workload.region
        ).option

    def _spread(self, offer: Offer, at_peak: int, place: _Place) -> None:
        """Over zones where it is rented, else over places of one's own."""
        where = "places" if place.rent is None else "zones"
        most = int(self.assumptions.value(where))
        if (at_peak, most) not in self._spreads:
            self._spreads[at_peak, most] = spread(
                at_peak, self.workload.targets.availability, most, self.assumptions
            )
        found = self._spreads[at_peak, most]
        option = offer.option
        if found is None:
            up = self.assumptions["zone_availability"]
            told = counted(most, where.removesuffix("s"))
            self._leave_out(option.id, f"No number of them in {told} is up for it: {up}.")
            return
        here = self.at_hand.count if self.at_hand else 0
        if option.way is Way.AT_HAND and found.replicas * option.accelerators_a_replica > here:
            self._leave_out(option.id, f"{found.formula}, and {here} are there.")
            return
        sized = Sized(at_peak, found.replicas, found.zones)
        size = self._sizes[place.key]
        predicted = size.needed.predicted if size is not None else None
        self._rank(offer, place.around, sized, place.judged, predicted)

    # The simulation.

    def _simulate(self, simulates: Simulates) -> None:
        """The best first, until the best few of each way are simulated ones; where that does not
        end, until the best of all that is hosted is one."""
        done: set[_Key] = set()
        while True:
            best = list(self._best())
            worth_it = best if len(done) < _MOST_SIMULATED else best[:1]
            key = next((key for key in worth_it if key not in done), None)
            if key is None:
                return
            done.add(key)
            self._resize(key, simulates)
            self._sort()

    def _best(self) -> Iterator[_Key]:
        """Some of each way, the cheapest of all first."""
        seen: dict[Way, set[_Key]] = {}
        for each in self.ranked:
            key = _key(each.option)
            if key is None:
                continue
            of_way = seen.setdefault(each.option.way, set())
            if key not in of_way and len(of_way) < _BEST:
                of_way.add(key)
                yield key

    def _resize(self, key: _Key, simulates: Simulates) -> None:
        """All that is hosted so is sized, and costed, anew."""
        places = self._places[key]
        self._take_back(key)
        self._sizes[key] = self._simulated(places[0], simulates)
        for place in places:
            self._put(place)
        if self.peaks is not None:
            for place in self._bases.get(key, ()):
                self._mix(place, self.peaks)

    def _simulated(self, place: _Place, simulates: Simulates) -> _Size | None:
        """On more accelerators a replica where no number of replicas is enough."""
        why = ""
        for count in self._counts(place.accelerator):
            closed = self._closed(place, count)
            if closed is None:
                continue
            found = simulates(self._asked(place, count), self.workload, closed.replicas)
            if isinstance(found, Needed):
                return _Size(count, found)
            why = found
        self._leave_out(" ".join(_named(place.key)), why)
        return None

    def _take_back(self, key: _Key) -> None:
        self.ranked = [each for each in self.ranked if _key(each.option) != key]
        model, precision, accelerator = map(re.escape, key)
        of_key = re.compile(rf"/{model}/{precision}/\d+x{accelerator}(\+|$)")
        self.rejected = [each for each in self.rejected if not of_key.search(each.what)]

    # Ends.

    def _rank(
        self,
        offer: Offer,
        around: Surroundings,
        sized: Sized | None,
        judged: tuple[Judged, ...],
        predicted: Predicted | None,
    ) -> None:
        takes = delivery(offer.option, self.workload, self.assumptions)
        deadline = self.workload.deadline_days
        if deadline is not None and takes.days > deadline:
            why = f"It takes {takes.days} days until it serves, and {deadline} are left."
            self._leave_out(offer.option.id, why)
            return
        lack = cost.lacks(offer, self.workload, around, sized)
        if lack is not None:
            self._leave_out(offer.option.id, lack)
            return
        if self.is_enough:
            raise _Enough
        found = cost.cost(offer, self.workload, around, sized)
        whole = found.over(self.workload.horizon_months)
        notes = (*notes_on(offer, self.start), *self._rests_on(offer))
        self.ranked.append(Ranked(offer, found, whole, takes, judged, sized, notes, predicted))

    def _rests_on(self, offer: Offer) -> tuple[str, ...]:
        here, option = self.at_hand, offer.option
        if here is None or offer.model is None or not here.is_measured(option.accelerator):
            return ()
        told = here.rests_on(offer.model, option.precision or Precision.BF16)
        return (told,) if told else ()

    def _reject(self, what: str, judged: tuple[Judged, ...]) -> None:
        against = tuple(each for each in judged if each.verdict is not Verdict.PASS)
        self.rejected.append(Rejected(what, against[0].why, against))

    def _leave_out(self, what: str, why: str) -> None:
        self.rejected.append(Rejected(what, why))


def _key(option: Option) -> _Key | None:
    if option.precision is None or option.accelerator is None:
        return None
    return option.model, option.precision, option.accelerator


def _loses(option: Option) -> int:
    return 0 if option.precision is None else list(Precision).index(option.precision)


def _named(key: _Key) -> tuple[str, ...]:
    model, precision, accelerator = key
    return model, precision, "on", accelerator
