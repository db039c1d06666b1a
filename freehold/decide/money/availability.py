"""How many replicas there must be, and in how many zones, so that enough of them are up."""

from dataclasses import dataclass
from math import comb

from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.money import shown

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Spread:
    replicas: int
    zones: int
    reached: float
    formula: str


def at_least(needed: int, of: int, each: float) -> float:
    """How likely so many of `of` are up, each by itself: the upper tail of the binomial, from
    all of them down, each term from the one before."""
    if needed <= 0 or each == 0:
        return float(needed <= 0)
    term = whole = each**of if needed <= of else 0.0
    for up in range(of, needed, -1):
        term *= up / (of - up + 1) * (1 - each) / each
        whole += term
    return whole


def reached(needed: int, a_zone: int, zones: int, assumptions: Assumptions) -> float:
    """Over how many zones are up (binomial), how likely enough of their replicas are."""
    zone = float(assumptions.value("zone_availability"))
    replica = float(assumptions.value("replica_availability"))
    return sum(
        (
            comb(zones, up)
            * zone**up
            * (1 - zone) ** (zones - up)
            * at_least(needed, up * a_zone, replica)
            for up in range(zones + 1)
        ),
    )


def spread(
    needed: int, target: float | None, most_zones: int, assumptions: Assumptions
) -> Spread | None:
    """The fewest replicas of which `needed` are up for `target` of the time, evenly over the
    fewest zones; None where no number is enough, as one place is not up that long. One that is
    needed and may be missing is N+1; a zone that may be missing needs its share elsewhere."""
    if target is None:
        return Spread(needed, 1, reached(needed, needed, 1, assumptions), "no target: as needed")
    found: list[Spread] = []
    for zones in range(1, most_zones + 1):
        a_zone = _fewest(needed, target, zones, assumptions)
        share = reached(needed, a_zone, zones, assumptions)
        if share >= target - _ROUNDING:
            found.append(_spread(needed, a_zone, zones, share, assumptions))
    return min(found, key=lambda each: (each.replicas, each.zones), default=None)


def _fewest(needed: int, target: float, zones: int, assumptions: Assumptions) -> int:
    """In each zone; by halving, as more of them are never up for less."""
    fewest, most = -(-needed // zones), 2 * needed + 8
    while fewest < most:
        middle = (fewest + most) // 2
        if reached(needed, middle, zones, assumptions) >= target - _ROUNDING:
            most = middle
        else:
            fewest = middle + 1
    return fewest


def _spread(needed: int, a_zone: int, zones: int, share: float, assumptions: Assumptions) -> Spread:
    percent = share * 100
    where = "one zone" if zones == 1 else f"{zones} zones"
    return Spread(
        a_zone * zones,
        zones,
        share,
        f"{needed} needed, {a_zone * zones} in {where}: up for {shown(percent, 4)} % of the"
        f" time, with a replica up for {assumptions['replica_availability']}"
        f" and a zone for {assumptions['zone_availability']}",
    )
