"""How much may be used: budgets for a day, a month or in all, and what a minute may take."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from freehold.core.binding import Environment


class Measure(StrEnum):
    """`MONEY` in micro-units of the configured currency, `TOKENS` in and out together,
    `CONCURRENCY` requests that run at once."""

    MONEY = "money"
    TOKENS = "tokens"
    REQUESTS = "requests"
    CONCURRENCY = "concurrency"


class Period(StrEnum):
    """Days and months are calendar ones in UTC, a minute is any 60 seconds, `TOTAL` is all
    that was ever used. `AT_ONCE` is for what runs at the same time."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"
    AT_ONCE = "at_once"


# What can be limited; money for a minute would only be a rate of tokens told in another way.
SENSIBLE = {
    Measure.MONEY: (Period.DAY, Period.MONTH, Period.TOTAL),
    Measure.TOKENS: (Period.MINUTE, Period.DAY, Period.MONTH, Period.TOTAL),
    Measure.REQUESTS: (Period.MINUTE, Period.DAY, Period.MONTH, Period.TOTAL),
    Measure.CONCURRENCY: (Period.AT_ONCE,),
}
DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`environment` and `subject` narrow it: to one environment of the tenant, and to one
    key (with those that replaced it) or person. All limits that fit a request hold for it.
    `is_own`: the tenant's administrators set it, and may change it; the others are of who
    operates the installation."""

    id: str
    tenant_id: str
    environment: Environment | None
    subject: str | None
    measure: Measure
    period: Period
    amount: int
    is_own: bool
    set_at_us: int
    set_by: str = ""

    def is_of_all_in(self, environment: Environment) -> bool:
        """Whether it is that environment's as a whole, and nobody's in it."""
        return self.environment is environment and self.subject is None


@dataclass(frozen=True, slots=True)
class Use:
    """What a request used, or may use at most. `cost` is None where nobody knows the price."""

    requests: int = 0
    tokens: int = 0
    cost: int | None = 0

    def of(self, measure: Measure) -> int | None:
        if measure is Measure.MONEY:
            return self.cost
        return self.tokens if measure is Measure.TOKENS else self.requests


@dataclass(frozen=True, slots=True)
class Window:
    """Of days since the epoch, in UTC; `until` is None where it never ends."""

    first: int
    until: int | None

    @property
    def ends_at_us(self) -> int | None:
        return None if self.until is None else self.until * DAY_US


def window(period: Period, at_us: int) -> Window:
    """The one that a moment falls into; for periods of whole days."""
    return _window(period, at_us // DAY_US)


@lru_cache(maxsize=64)
def _window(period: Period, today: int) -> Window:
    """Asked several times a request, and the same all day."""
    if period is Period.TOTAL:
        return Window(0, None)
    if period is Period.DAY:
        return Window(today, today + 1)
    day = datetime.fromtimestamp(today * 86_400, UTC)
    begun = day.replace(day=1)
    ends = (begun + timedelta(days=32)).replace(day=1)
    return Window(int(begun.timestamp()) // 86_400, int(ends.timestamp()) // 86_400)
