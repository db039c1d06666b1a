"""What each way costs at other volumes, and where one becomes cheaper than another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import inf, log10

from freehold.core.plan import Way
from freehold.decide.compared.finalists import Finalists, a_month, best_by_way, scaled
from freehold.decide.money.money import shown

_PER_DECADE, _DECADES = 4, 2  # points, each way from the workload's own volume
_HALVINGS = 6  # of a step between points, to a percent
_FIGURES = 3  # that a crossing is told in
# Crossings that are told even where a third way is cheaper than both.
_ASKED = frozenset({Way.API, Way.RENTED, Way.OWNED})
WORDS: Mapping[Way, str] = {
    Way.API: "buying tokens",
    Way.MANAGED: "an endpoint in your cloud",
    Way.RENTED: "renting machines",
    Way.OWNED: "owning machines",
    Way.AT_HAND: "the machine at hand",
    Way.MIXED: "a mix of own machines and an API",
}


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Of a way, at a volume: what it costs a month, with what is paid once shared out over the
    horizon."""

    a_month: float
    option: str


@dataclass(frozen=True, slots=True)
class Point:
    requests_a_day: float
    by_way: Mapping[Way, Cheapest]

    def cost(self, way: Way) -> float:
        """Without end where the way is not possible."""
        return self.by_way[way].a_month if way in self.by_way else inf

    @property
    def way(self) -> Way | None:
        return min(self.by_way, key=self.cost, default=None)


@dataclass(frozen=True, slots=True)
class Crossing:
    """From `at` requests a day on, `above` is cheaper than `below`; just before, it is not."""

    at: float
    below: Way
    above: Way
    is_cheapest: bool  # of all ways, there
    ends: bool  # `below` is not possible from there on

    @property
    def why(self) -> str:
        volume = f"Above {rounded(self.at)} requests a day"
        if self.ends:
            return f"{volume} {WORDS[self.below]} can't do it, and {WORDS[self.above]} can."
        return f"{volume} {WORDS[self.above]} is cheaper than {WORDS[self.below]}."


@dataclass(frozen=True, slots=True)
class BreakEven:
    points: tuple[Point, ...]  # the least volume first
    crossings: tuple[Crossing, ...]


def rounded(volume: float) -> str:
    """To three figures: a volume is not known better."""
    if volume <= 0:
        return "0"
    return shown(round(volume, _FIGURES - 1 - int(log10(volume) // 1)), 2)


def break_even(of: Finalists) -> BreakEven:
    """Each point is planned anew, replicas and all, so that costs rise in steps where machines
    are bought whole. Empty where nothing was possible."""
    curves = _Curves(of)
    steps = range(-_PER_DECADE * _DECADES, _PER_DECADE * _DECADES + 1)
    # From the most down: what serves more serves less for no more, which says less of mixes
    # than all splits would, as only some are tried.
    points = tuple(reversed([curves.grid(10 ** (step / _PER_DECADE)) for step in reversed(steps)]))
    crossings = sorted(_crossings(points, curves), key=lambda each: each.at)
    return BreakEven(points if any(p.by_way for p in points) else (), tuple(crossings))


class _Curves:
    def __init__(self, of: Finalists) -> None:
        self._of = of
        self._grid: list[Point] = []  # the most first

    def grid(self, scale: float) -> Point:
        self._grid.append(self.at(self._of.case.workload.requests_a_day * scale))
        return self._grid[-1]

    def at(self, requests_a_day: float) -> Point:
        case = self._of.case
        asked = scaled(case.workload, requests_a_day / case.workload.requests_a_day)
        found = best_by_way(self._of.at(asked))
        by_way = {
            way: Cheapest(float(a_month(each, asked)), each.option.id)
            for way, each in found.items()
        }
        for above in self._grid:
            if above.requests_a_day > requests_a_day:
                for way, other in above.by_way.items():
                    if way in by_way and other.a_month < by_way[way].a_month:
                        by_way[way] = other
        return Point(requests_a_day, by_way)


def _crossings(points: Sequence[Point], curves: _Curves) -> Iterator[Crossing]:
    for low, high in pairwise(points):
        for one, other in combinations(Way, 2):
            for below, above in ((one, other), (other, one)):
                leads = low.way is below and high.way is above
                both = {below, above} <= {*low.by_way.keys(), *high.by_way.keys()}
                if leads or (
                    both and {below, above} <= _ASKED and _crosses(low, high, below, above)
                ):
                    yield _crossing(low, high, below, above, leads, curves)


def _crosses(low: Point, high: Point, below: Way, above: Way) -> bool:
    return low.cost(below) <= low.cost(above) < inf and high.cost(above) < high.cost(below) < inf


def _crossing(
    low: Point, high: Point, below: Way, above: Way, leads: bool, curves: _Curves
) -> Crossing:
    """Halved until both sides are near, with the cheaper one changed between them."""
    for _ in range(_HALVINGS):
        middle = curves.at((low.requests_a_day * high.requests_a_day) ** 0.5)
        if middle.cost(above) < middle.cost(below):
            high = middle
        else:
            low = middle
    return Crossing(high.requests_a_day, below, above, leads, below not in high.by_way)
