"""What would change a decision: each input that may turn out otherwise, tried at its ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from freehold.core.plan import Way
from freehold.decide.compared.finalists import Case, Finalists, a_month, best_by_way
from freehold.decide.compared.levers import Lever, levers
from freehold.decide.ways.options import canonical
from freehold.decide.ways.planner import Ranked

_HALVINGS = 8  # of the way to an end: to a quarter of a percent of it
_EVEN = 1e-9


@dataclass(frozen=True, slots=True)
class Tried:
    """What is decided at a value. `margin` is what the best of all other ways costs a month
    above the best of the way that was decided for: below zero, it is the better one. None where
    only one of both is left."""

    value: float
    margin: float | None
    way: Way | None  # None: nothing is possible
    model: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """From `at` on, away from what was told, the decision is another."""

    at: float
    way: Way | None
    model: str | None
    is_way: bool  # else the model alone changes


@dataclass(frozen=True, slots=True)
class Effect:
    name: str
    unit: str
    base: float
    tried: tuple[Tried, ...]
    changes: tuple[Change, ...]

    @property
    def spread(self) -> float:
        margins = [each.margin for each in self.tried if each.margin is not None]
        return max(margins, default=0.0) - min(margins, default=0.0)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    base: Tried
    against: Way | None  # the best of the other ways
    effects: tuple[Effect, ...]  # what moves most first


def sensitivity(of: Finalists) -> Sensitivity | None:
    """One input at a time, the others as they were told: what several do at once is not in it.
    None where nothing was possible."""
    trying = _Trying(of)
    if trying.way is None:
        return None
    base = trying.judged(0.0, trying.first)
    others = [way for way in trying.first if way is not trying.way]
    effects = [trying.effect(lever, base) for lever in levers(of.case, tuple(trying.first))]
    # What is told as no change is last, in the order of its names.
    effects.sort(key=lambda each: (-each.spread, each.name))
    return Sensitivity(base, others[0] if others else None, tuple(effects))


class _Trying:
    def __init__(self, of: Finalists) -> None:
        self._of = of
        self.first: Mapping[Way, Ranked] = best_by_way(of.again(of.case))

    @cached_property
    def way(self) -> Way | None:
        return next(iter(self.first), None)

    def effect(self, lever: Lever, base: Tried) -> Effect:
        tried = tuple(self._at(lever, value) for value in lever.values)
        changes = [
            self._change(lever, end)
            for end in _ends(lever, tried)
            if _decided(end) != _decided(base)
        ]
        return Effect(lever.name, lever.unit, lever.base, tried, tuple(changes))

    def _change(self, lever: Lever, end: Tried) -> Change:
        """Halved between what was told and an end where the decision is another. Where it
        changes twice in between, one of both is found."""
        same, other = lever.base, end
        was = _decided(self.judged(lever.base, self.first))
        for _ in range(_HALVINGS):
            value = lever.near((same + other.value) / 2)
            if value in {same, other.value}:
                break
            found = self._at(lever, value)
            if _decided(found) == was:
                same = value
            else:
                other = found
        return Change(other.value, other.way, other.model, other.way is not self.way)

    def _at(self, lever: Lever, value: float) -> Tried:
        if abs(value - lever.base) < _EVEN:
            return self.judged(value, self.first)
        case = lever.put(self._of.case, value)
        return self.judged(value, best_by_way(self._of.again(case)), case)

    def judged(self, value: float, found: Mapping[Way, Ranked], case: Case | None = None) -> Tried:
        workload = (case or self._of.case).workload
        own = [each for way, each in found.items() if way is self.way]
        others = [each for way, each in found.items() if way is not self.way]
        margin = None
        if own and others:
            margin = float(a_month(others[0], workload) - a_month(own[0], workload))
        best = next(iter(found.values()), None)
        if best is None:
            return Tried(value, None, None, None)
        return Tried(value, margin, best.option.way, best.option.model)


def _ends(lever: Lever, tried: tuple[Tried, ...]) -> list[Tried]:
    """The furthest on each side of what was told."""
    below = [each for each in tried if each.value < lever.base]
    above = [each for each in tried if each.value > lever.base]
    return [*below[:1], *above[-1:]]


def _decided(tried: Tried) -> tuple[Way | None, str | None]:
    return tried.way, None if tried.model is None else canonical(tried.model)
