"""Quantities as people write them, "95 %", "2 s", "1.5k", each read in its own units only."""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator

_WRITTEN = re.compile(
    r"(-?[0-9]+(?:[_,][0-9]{3})*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?)\s*([^\s0-9].*)?\Z"
)

_TIMES = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_COUNTS = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
_SHARES = {"%": 0.01}
_DAYS = {"day": 1.0, "days": 1.0, "week": 7.0, "weeks": 7.0, "year": 365.0, "years": 365.0}
_MONTHS = {"month": 1.0, "months": 1.0, "year": 12.0, "years": 12.0}
_SIZES = {"kB": 1e-6, "MB": 1e-3, "GB": 1.0}


def quantity(value: Any, units: Mapping[str, float], example: str, *, bare: bool) -> float:
    """In the unit that counts as 1. `bare`: a number without a unit counts as that too."""
    if isinstance(value, date):
        raise ValueError(f"is a date, {value}: write how long it is until then, as {example}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a quantity such as {example}")
    written = _WRITTEN.match(str(value).strip())
    if written is None:
        raise ValueError(f"{str(value)[:40]!r} is no quantity such as {example}")
    number = Decimal(re.sub("[_,]", "", written[1]))
    unit = (written[2] or "").strip()
    if not unit and not bare:
        raise ValueError(f"{value} has no unit: write it as {example}")
    if unit and unit not in units:
        known = ", ".join(units)
        raise ValueError(
            f"{str(value)[:40]!r} has none of the units {known}: write it as {example}"
        )
    if number < 0 or number > 10**18:
        raise ValueError(f"must not be below zero or beyond counting, and is {str(value)[:40]}")
    return float(number * Decimal(repr(units[unit])) if unit else number)


def count(value: Any) -> float:
    return quantity(value, _COUNTS, "1500 or 1.5k", bare=True)


def whole(value: Any) -> int:
    found = count(value)
    if abs(found - round(found)) > 1e-6 or found > 1e15:
        raise ValueError(f"must be a whole number, and is {value}")
    return round(found)


def any_share(value: Any) -> float:
    return quantity(value, _SHARES, "5 % or 0.05", bare=True)


def share(value: Any) -> float:
    found = any_share(value)
    if found > 1:
        raise ValueError(f"is a share of all, and {value} is more than 100 %: write 95 % or 0.95")
    return found


def seconds(value: Any) -> float:
    return quantity(value, _TIMES, "2 s or 200 ms", bare=False)


def days(value: Any) -> int:
    return _in_whole(quantity(value, _DAYS, "30 days", bare=False), "days", value)


def months(value: Any) -> int:
    return _in_whole(quantity(value, _MONTHS, "12 months", bare=False), "months", value)


def _in_whole(found: float, unit: str, value: Any) -> int:
    if abs(found - round(found)) > 1e-6 or found > 1e6:
        raise ValueError(f"must be a whole number of {unit} below a million, and is {value}")
    return round(found)


def gigabytes(value: Any) -> float:
    return quantity(value, _SIZES, "2 MB", bare=False)


Count = Annotated[float, BeforeValidator(count)]
Whole = Annotated[int, BeforeValidator(whole)]
Share = Annotated[float, BeforeValidator(share)]
AnyShare = Annotated[float, BeforeValidator(any_share)]  # growth may double
Seconds = Annotated[float, BeforeValidator(seconds)]
Days = Annotated[int, BeforeValidator(days)]
Months = Annotated[int, BeforeValidator(months)]
Gigabytes = Annotated[float, BeforeValidator(gigabytes)]
