"""Where lines and bars of a decision's charts are. A template draws them, so that all that is
written beside them is escaped there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freehold.core.plan import Part, Way
    from freehold.decide.compared.breakeven import BreakEven, Point
    from freehold.decide.compared.sensitivity import Effect, Sensitivity

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 22, 44  # margins, for ticks and titles
_ROW, _BAR = 38, 14
_SMALLEST = 0.3  # of a hundred: a part that is thinner would not be seen
_BARS = 12
_FEW_DECADES = 500  # of the highest over the lowest
_ENDS = 84  # for the words at the ends of bars


@dataclass(frozen=True, slots=True)
class Slice:
    x: float  # of a hundred, as the width is
    width: float
    kind: int  # which colour
    part: "Part"
    over_horizon: float


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    way: "Way"
    points: str  # as polylines have them
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    number: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Curves:
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]  # of crossings of the cheapest way
    now: float


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    y: float
    x: float
    width: float
    low: str
    high: str
    changes: bool


@dataclass(frozen=True, slots=True)
class Tornado:
    width: int
    height: int
    bars: tuple[Bar, ...]
    base: float
    zero: float
    ticks: tuple[Tick, ...]


def slices(parts: "Sequence[Part]", months: int) -> tuple[Slice, ...]:
    """Of all that is paid over the horizon; what costs nothing has no width."""
    paid = [part.a_month * months + part.once for part in parts]
    whole = sum(paid)
    found, x = [], 0.0
    for kind, (part, cost) in enumerate(zip(parts, paid, strict=True)):
        width = cost / whole * 100 if whole else 0.0
        drawn = max(width, _SMALLEST) if cost else 0.0
        found.append(Slice(round(x, 3), round(min(drawn, 100 - x), 3), kind, part, cost))
        x += width
    return tuple(found)


def curves(found: "BreakEven", ways: "Sequence[Way]", width: int, height: int) -> Curves:
    """Both axes are logarithmic: volumes are, and costs from the first machine to a hundred."""
    points = found.points
    left, right, top, bottom = _LEFT, width - _RIGHT, _TOP, height - _BOTTOM
    costs = [each.a_month for point in points for each in point.by_way.values() if each.a_month > 0]
    low, high = _below(min(costs)), _above(max(costs))
    x = _scale(points[0].requests_a_day, points[-1].requests_a_day, left, right)
    y = _scale(low, high, bottom, top)
    marks = [
        Mark(number, x(each.at), y(max(low, _cost_at(points, each.at, each.above))))
        for number, each in enumerate(found.crossings, 1)
        if each.is_cheapest
    ]
    return Curves(
        width,
        height,
        left,
        right,
        top,
        bottom,
        _ticks(points[0].requests_a_day, points[-1].requests_a_day, x),
        _ticks(low, high, y),
        tuple(_line(points, way, x, y, low) for way in ways),
        tuple(marks),
        x(points[len(points) // 2].requests_a_day),
    )


def _line(
    points: "Sequence[Point]",
    way: "Way",
    x: Callable[[float], float],
    y: Callable[[float], float],
    low: float,
) -> Line:
    dots = tuple(
        (x(each.requests_a_day), y(max(each.cost(way), low)))
        for each in points
        if way in each.by_way
    )
    return Line(way, " ".join(f"{a},{b}" for a, b in dots), dots)


def _cost_at(points: "Sequence[Point]", at: float, way: "Way") -> float:
    """On the line between the points around it."""
    known = [(each.requests_a_day, each.cost(way)) for each in points if way in each.by_way]
    before = max((each for each in known if each[0] <= at), default=known[0])
    after = min((each for each in known if each[0] >= at), default=known[-1])
    if before[0] == after[0] or before[1] <= 0 or after[1] <= 0:
        return after[1]
    share = log10(at / before[0]) / log10(after[0] / before[0])
    return float(before[1] * (after[1] / before[1]) ** share)


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    a, b = log10(low), log10(high)
    return lambda value: round(begin + (log10(value) - a) / (b - a) * (end - begin), 2)


def _below(value: float) -> float:
    """1, 2 or 5 times a power of ten, and no more."""
    power = 10.0 ** floor(log10(value))
    return max(each * power for each in (1, 2, 5) if each * power <= value)


def _above(value: float) -> float:
    """1, 2 or 5 times a power of ten, and more."""
    power = 10.0 ** floor(log10(value))
    return min(each * power for each in (2, 5, 10) if each * power > value)


def _ticks(low: float, high: float, to: Callable[[float], float]) -> tuple[Tick, ...]:
    """Of each power of ten, and between them where they are few."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    steps = (1, 2, 5) if high / low <= _FEW_DECADES else (1,)
    values = [step * 10.0**each for each in decades for step in steps]
    near = 1 + 1e-9
    return tuple(Tick(to(v), short(v)) for v in values if low / near <= v <= high * near)


def short(value: float) -> str:
    """10k, 2.5M: what fits beside an axis."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def tornado(
    found: "Sensitivity", value: "Callable[[Effect, float], str]", width: int
) -> Tornado | None:
    """What moves most first; None where nothing does. What is drawn has zero in it: there the
    decision is another."""
    moving = [each for each in found.effects if each.spread > 0][:_BARS]
    base = found.base.margin
    if base is None or not moving:
        return None
    margins = [t.margin for e in moving for t in e.tried if t.margin is not None]
    low, high = min(0.0, base, *margins), max(0.0, base, *margins)
    pad = (high - low or 1.0) * _ENDS / (width - 2 * _ENDS)
    low, high = low - pad, high + pad

    def to(margin: float) -> float:
        return round((margin - low) / (high - low) * width, 2)

    bars = tuple(_bar(each, base, to, value, place) for place, each in enumerate(moving))
    step = step_of((high - low) / 4)
    first = ceil((low + pad / 2) / step)
    last = floor((high - pad / 2) / step)
    ticks = tuple(Tick(to(each * step), short(each * step)) for each in range(first, last + 1))
    return Tornado(width, len(bars) * _ROW + _BOTTOM + 8, bars, to(base), to(0.0), ticks)


def _bar(
    effect: "Effect",
    base: float,
    to: Callable[[float], float],
    value: "Callable[[Effect, float], str]",
    place: int,
) -> Bar:
    known = [(each.margin, each.value) for each in effect.tried if each.margin is not None]
    known.append((base, effect.base))
    (least, at_least), (most, at_most) = min(known), max(known)
    return Bar(
        effect.name,
        place * _ROW + 16,
        to(least),
        round(to(most) - to(least), 2),
        value(effect, at_least),
        value(effect, at_most),
        bool(effect.changes),
    )


def step_of(about: float) -> float:
    """1, 2 or 5 times a power of ten, and no less."""
    return about if about == _below(about) else _above(about)
