"""Exact money: decimals, rounded once, to the cent, where a part of a cost is written."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import lru_cache

from freehold.core.plan import Part

_CENT = Decimal("0.01")
MONTH_HOURS = Decimal(730)
MONTH_DAYS = MONTH_HOURS / 24
YEAR_MONTHS = 12
MILLION = Decimal(1_000_000)


def exact(value: float | int | Decimal) -> Decimal:
    """The number as it was written (0.1 is a tenth), not as a float holds it."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def cents(value: Decimal) -> Decimal:
    return value.quantize(_CENT, ROUND_HALF_UP)


def shown(value: float | int | Decimal, places: int = 2) -> str:
    """A number in a formula: thousands apart, no zeros that say nothing."""
    text = f"{round(exact(value), places):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def part(
    name: str,
    formula: str,
    *,
    a_month: Decimal = Decimal(0),
    once: Decimal = Decimal(0),
    source: str | None = None,
) -> Part:
    return Part(name, float(cents(a_month)), float(cents(once)), formula, source)


def a_month(parts: Iterable[Part]) -> Decimal:
    return sum((exact(each.a_month) for each in parts), Decimal(0))


def once(parts: Iterable[Part]) -> Decimal:
    return sum((exact(each.once) for each in parts), Decimal(0))


def whole(parts: Iterable[Part], months: int) -> Decimal:
    """All that is paid in so many months. What is bought is a rate a month among the parts,
    so that what it is still worth at the end is not counted."""
    kept = tuple(parts)
    return a_month(kept) * months + once(kept)


def annuity(price: Decimal, yearly_rate: Decimal, months: int) -> Decimal:
    """What is paid each month, at its end, for `price` now: P·i / (1 − (1 + i)^−n), the formula
    of every loan, where (1 + i)^12 is one year's rate. Without interest: P / n."""
    with localcontext() as context:
        context.prec = 40
        return price * _share(yearly_rate, months)


@lru_cache(maxsize=64)
def _share(yearly_rate: Decimal, months: int) -> Decimal:
    if yearly_rate == 0:
        return Decimal(1) / months
    rate = (1 + yearly_rate) ** (Decimal(1) / YEAR_MONTHS) - 1
    return rate / (1 - (1 + rate) ** -months)
