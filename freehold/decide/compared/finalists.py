"""The few options that may win a decision when something in it is other than was said, so that
it can be planned again hundreds of times in a second."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from math import ceil, inf

from freehold.core.facts import Accelerator, Facts, RentPrice
from freehold.core.plan import Option, Precision, Way, Workload
from freehold.decide.money import machines
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.ways import options
from freehold.decide.ways.at_hand import AtHand
from freehold.decide.ways.planner import Plan, Ranked, Replicas, plan
from freehold.decide.ways.sizing import Needed
from freehold.decide.ways.surroundings import surroundings

# Of the workload's volume: what is cheap for each stays.
SCALES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
_OF_EACH = 2
_SAME = frozenset({"Team", "Setting up"})  # of all options of a way
_Shape = tuple[str, Precision | None, str | None]  # model, format, accelerator


@dataclass(frozen=True, slots=True)
class Case:
    """A decision's inputs, some of them changed. `speed` is what machines do of what is expected
    of them: at a half they get twice the requests."""

    workload: Workload
    facts: Facts
    assumptions: Assumptions
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Finalists:
    case: Case  # as it was decided, with the facts of the finalists alone
    shapes: frozenset[_Shape]
    replicas: Replicas
    start: date
    at_hand: AtHand | None = None

    def at(self, workload: Workload) -> Plan:
        return self.again(replace(self.case, workload=workload))

    def again(self, case: Case) -> Plan:
        """The whole planning, judged, sized and costed anew, of these alone."""
        return plan(
            case.workload,
            case.facts,
            _Some(self.shapes, self.replicas, case.speed),
            start=self.start,
            assumptions=case.assumptions,
            at_hand=self.at_hand,
        )


@dataclass(frozen=True, slots=True)
class _Some:
    """`planner.Replicas` of the shapes alone."""

    shapes: frozenset[_Shape]
    replicas: Replicas
    speed: float

    def __call__(self, option: Option, workload: Workload) -> Needed | None:
        if _shape(option) not in self.shapes:
            return None
        if self.speed != 1:
            workload = scaled(workload, 1 / self.speed)
        return self.replicas(option, workload)


def finalists(
    found: Plan,
    workload: Workload,
    facts: Facts,
    replicas: Replicas,
    *,
    start: date,
    assumptions: Assumptions | None = None,
    at_hand: AtHand | None = None,
    scales: Sequence[float] = SCALES,
) -> Finalists:
    """Of each way the cheapest, at each of the scales. What that is at another volume is told
    from the cost of the machines that as many replicas are: near enough to choose by, and
    each is planned in full then."""
    chosen: dict[str, Ranked] = {}
    about = _About(workload, replicas, max(scales))
    for way, rows in _by_way(found.ranked).items():
        if way is Way.MIXED:
            continue  # made anew from the others
        for scale in scales:
            for each in about.cheapest(rows, scale):
                chosen[each.option.id] = each
    kept = tuple(chosen.values())
    shapes = frozenset(_shape(e.option) for e in kept if e.option.accelerator is not None)
    if at_hand is not None:
        shapes |= _here(shapes, facts, at_hand)
    told = (assumptions or Assumptions()).of(workload)
    trained_on = surroundings(workload, facts, told, start).training
    narrow = _narrowed(facts, kept, at_hand, trained_on and trained_on[1])
    case = Case(replace(workload, assumptions=()), narrow, told)
    return Finalists(case, shapes, replicas, start, at_hand)


def scaled(workload: Workload, factor: float) -> Workload:
    return replace(workload, requests_a_day=workload.requests_a_day * factor)


def best_by_way(found: Plan) -> Mapping[Way, Ranked]:
    """The first of each way, in the order of the ranking."""
    best: dict[Way, Ranked] = {}
    for each in found.ranked:
        best.setdefault(each.option.way, each)
    return best


def a_month(ranked: Ranked, workload: Workload) -> Decimal:
    """With what is paid once, shared out over the horizon: what the ranking goes by."""
    return ranked.over_horizon / workload.horizon_months


def _by_way(ranked: Iterable[Ranked]) -> Mapping[Way, list[Ranked]]:
    """Of each way and shape the cheapest as it is, and the one with the cheapest machine: others
    on the same shape cannot do better at any volume, but for what data costs to send."""
    first: dict[tuple[Way, _Shape], Ranked] = {}
    least: dict[tuple[Way, _Shape], tuple[float, Ranked]] = {}
    found: dict[Way, list[Ranked]] = {}
    for each in ranked:
        option = each.option
        if option.way is Way.API:
            found.setdefault(Way.API, []).append(each)
            continue
        key: tuple[Way, _Shape] = (option.way, _shape(option))
        first.setdefault(key, each)
        rent = each.offer.rent
        if rent is not None:
            price = rent.usd_per_hour / (rent.count // option.accelerators_a_replica)
            if key not in least or price < least[key][0]:
                least[key] = price, each
    for key, each in first.items():
        rows = found.setdefault(key[0], [])
        rows.append(each)
        if key in least and least[key][1] is not each:
            rows.append(least[key][1])
    return found


class _About:
    """What options cost at another volume, roughly: replicas are those of the largest volume,
    shared out."""

    def __init__(self, workload: Workload, replicas: Replicas, most: float) -> None:
        self._asked, self._replicas, self._most = scaled(workload, most), replicas, most
        self._needed: dict[_Shape, int | None] = {}

    def cheapest(self, rows: Sequence[Ranked], scale: float) -> list[Ranked]:
        """The first few; none that could not do the largest volume."""
        told = ((self._cost(each, scale), place) for place, each in enumerate(rows))
        return [rows[place] for cost, place in sorted(told)[:_OF_EACH] if cost < inf]

    def _cost(self, each: Ranked, scale: float) -> float:
        if each.sized is None:
            return float(each.over_horizon)  # tokens: all APIs' costs grow alike
        shape = _shape(each.option)
        if shape not in self._needed:
            found = self._replicas(each.option, self._asked)
            self._needed[shape] = None if found is None else found.replicas
        most = self._needed[shape]
        if most is None:
            return inf
        now = each.sized.replicas
        then = max(1, ceil(most * scale / self._most)) + now - each.sized.at_peak
        hosted = sum(part.a_month for part in each.cost.parts if part.name not in _SAME)
        return hosted * _kit(each, then) / _kit(each, now)


def _kit(each: Ranked, replicas: int) -> int:
    """What is paid for in whole: instances, or accelerators as they are sold."""
    option, rent = each.option, each.offer.rent
    if rent is not None:
        return machines.instances(option, rent, replicas) or 1
    count = replicas * option.accelerators_a_replica
    return machines.bought(option.accelerator or "", count).accelerators


def _shape(option: Option) -> _Shape:
    return option.model, option.precision, option.accelerator


def _here(shapes: frozenset[_Shape], facts: Facts, at_hand: AtHand) -> frozenset[_Shape]:
    """The models of the others on the machine at hand, which may do for less."""
    here: Accelerator = at_hand.accelerator
    return frozenset(
        (name, precision, here.id)
        for name in {shape[0] for shape in shapes} & facts.models.keys()
        for precision in options.precisions(facts.models[name], here)
    )


def _narrowed(
    facts: Facts, kept: Sequence[Ranked], at_hand: AtHand | None, trained_on: RentPrice | None
) -> Facts:
    """Those that the finalists are made from, and what is cheapest to train on."""
    models = {each.offer.model.id for each in kept if each.offer.model is not None}
    rents = {id(each.offer.rent) for each in kept}
    apis = {id(each.offer.api) for each in kept}
    cards = {each.option.accelerator for each in kept}
    if trained_on is not None:
        rents.add(id(trained_on))
        cards.add(trained_on.accelerator)
    if at_hand is not None:
        cards.add(at_hand.accelerator.id)
    return replace(
        facts,
        models={name: each for name, each in facts.models.items() if name in models},
        accelerators={name: each for name, each in facts.accelerators.items() if name in cards},
        rents=tuple(each for each in facts.rents if id(each) in rents),
        apis=tuple(each for each in facts.apis if id(each) in apis),
    )
