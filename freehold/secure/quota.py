"""What limits still allow: held before dispatch, settled with what was really used.

Counts, and does nothing else: who asks says what time it is, and what was used before this
process counted. Everything here runs on one thread, and a hold is all or nothing.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from freehold.core.errors import UserError
from freehold.core.limit import Limit, Measure, Period, Use, Window, window
from freehold.secure.exhausted import Exhausted, refusal

_MINUTE_S = 60
_KEPT_DAYS = 62  # of windows that have passed, for requests that run so long and clocks that jump


@dataclass(frozen=True, slots=True)
class Moment:
    """Budgets go by the calendar, a minute by a clock that no jump moves."""

    wall_us: int
    monotonic_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a limit is used, and held by requests that run."""

    limit: Limit
    used: int
    held: int
    frees_at_us: int | None  # when its window ends; None where it never does


@dataclass(slots=True)
class _Account:
    """One limit in one window. Until what was used before is known, settlements wait in
    `pending`, each with its place in the ledger."""

    used: int = 0
    held: int = 0
    pending: list[tuple[int, int]] | None = field(default_factory=list)


class _Minute:
    """The last 60 seconds, by whole seconds."""

    def __init__(self) -> None:
        self._seconds: deque[list[float]] = deque()  # [second, amount], oldest first
        self.total = 0.0

    def advance(self, now_s: float) -> None:
        while self._seconds and self._seconds[0][0] + _MINUTE_S <= now_s:
            gone = self._seconds.popleft()
            self.total -= gone[1]
            gone[0] = float("-inf")

    def add(self, now_s: float, amount: int) -> list[float]:
        if not self._seconds or self._seconds[-1][0] + 1 <= now_s:
            self._seconds.append([now_s, 0])
        self.total += amount
        self._seconds[-1][1] += amount
        return self._seconds[-1]

    def correct(self, second: list[float], by: int) -> None:
        if second[0] != float("-inf"):
            second[1] += by
            self.total += by

    def frees_in_s(self, now_s: float, needed: int) -> float | None:
        """Until so much has passed out of the minute; None if it never does."""
        for second, amount in self._seconds:
            needed -= int(amount)
            if needed <= 0:
                return max(0.0, second + _MINUTE_S - now_s)
        return None


@dataclass(slots=True)
class Hold:
    """What one request was granted. It ends once, by `settle` or `release`. `rates` are its
    limits for a minute as they stand with it."""

    request_id: str
    at_us: int
    rates: list[Standing] = field(default_factory=list)
    budgets: list[tuple[_Account, int]] = field(default_factory=list)
    minutes: list[tuple[_Minute, list[float], int, Measure]] = field(default_factory=list)
    running: list[_Account] = field(default_factory=list)
    is_open: bool = True
    # Where the database counts: whose it is, and whether it has a place among those that run
    # at once there.
    tenant_id: str = ""
    runs: bool = False


class Quota:
    """`currency` is for what people are told."""

    def __init__(self, currency: str) -> None:
        self._currency = currency
        self._accounts: dict[str, dict[int, _Account]] = {}  # by limit and first day
        self._minutes: dict[str, _Minute] = {}
        self._running: dict[str, _Account] = {}

    def unknown(self, limits: Iterable[Limit], at_us: int) -> list[Limit]:
        """Those of which nobody has said yet how much was used in their window."""
        return [each for each in limits if _is_budget(each) and not self._is_open(each, at_us)]

    def open(self, limit: Limit, at_us: int) -> None:
        """From here on settlements are counted for it, until `opened` says how much was
        used before."""
        mine, first = self._accounts.setdefault(limit.id, {}), window(limit.period, at_us).first
        if first not in mine:
            for old in [day for day in mine if day < first - _KEPT_DAYS and not mine[day].held]:
                del mine[old]
            mine[first] = _Account()

    def opened(self, limit: Limit, at_us: int, used: int, upto: int) -> None:
        """`used` holds all that the ledger had up to this place, and nothing after it."""
        account = self._account(limit, at_us)
        if account is None or account.pending is None:
            return
        account.used = used + sum(amount for place, amount in account.pending if place > upto)
        account.pending = None

    def hold(
        self, request_id: str, limits: Sequence[Limit], most: Use, likely: Use, now: Moment
    ) -> Hold:
        """`most` is what the request can use at most, against budgets; `likely` what it
        probably will, against a minute, which is corrected later. Raises `UserError`
        naming the limit that does not allow it, and then nothing is held."""
        for limit in limits:
            refused = self._refused(limit, most, likely, now)
            if refused is not None:
                raise refused
        held = Hold(request_id, now.wall_us)
        for limit in limits:
            self._take(held, limit, most, likely, now)
        return held

    def settle(self, hold: Hold, limits: Iterable[Limit], used: Use, place: int) -> None:
        """`limits` are those that fit the request now: what it used counts for them, also
        where they were not there when it began. `place` is that of its settlement."""
        if not self._end(hold):
            return
        for limit in limits:
            if not _is_budget(limit):
                continue
            account = self._account(limit, hold.at_us)
            amount = used.of(limit.measure) or 0
            if account is None:
                continue
            if account.pending is not None:
                account.pending.append((place, amount))
            else:
                account.used += amount
        for minute, second, amount, measure in hold.minutes:
            minute.correct(second, (used.of(measure) or 0) - amount)

    def release(self, hold: Hold) -> None:
        """As if it had never been asked for."""
        if self._end(hold):
            for minute, second, amount, _ in hold.minutes:
                minute.correct(second, -amount)

    def standing(self, limit: Limit, now: Moment) -> Standing:
        if limit.period is Period.AT_ONCE:
            running = self._running.get(limit.id)
            return Standing(limit, 0, running.held if running else 0, None)
        if limit.period is Period.MINUTE:
            minute = self._minute(limit, now)
            return Standing(limit, int(minute.total), 0, None)
        account = self._account(limit, now.wall_us) or _Account()
        ends = window(limit.period, now.wall_us).ends_at_us
        return Standing(limit, account.used, account.held, ends)

    def keep(self, limit_ids: Collection[str]) -> None:
        """Forgets the counts of limits that are not there any more."""
        tables: tuple[dict[str, Any], ...] = (self._accounts, self._minutes, self._running)
        for table in tables:
            for gone in table.keys() - limit_ids:
                del table[gone]

    def _account(self, limit: Limit, at_us: int) -> _Account | None:
        mine = self._accounts.get(limit.id)
        return None if mine is None else mine.get(window(limit.period, at_us).first)

    def _is_open(self, limit: Limit, at_us: int) -> bool:
        account = self._account(limit, at_us)
        return account is not None and account.pending is None

    def _end(self, hold: Hold) -> bool:
        if not hold.is_open:
            return False
        hold.is_open = False
        for account, amount in hold.budgets:
            account.held -= amount
        for account in hold.running:
            account.held -= 1
        return True

    def _minute(self, limit: Limit, now: Moment) -> _Minute:
        minute = self._minutes.get(limit.id)
        if minute is None:
            minute = self._minutes[limit.id] = _Minute()
        minute.advance(now.monotonic_s)
        return minute

    def _refused(self, limit: Limit, most: Use, likely: Use, now: Moment) -> UserError | None:
        if limit.period is Period.MINUTE:
            return self._refused_now(limit, likely, now)
        wanted = 1 if limit.period is Period.AT_ONCE else most.of(limit.measure)
        if wanted is None:
            return refusal(Exhausted(limit, 0, 0, None), self._currency)
        standing = self.standing(limit, now)
        if standing.used + standing.held + wanted <= limit.amount:
            return None
        return refusal(
            Exhausted(limit, standing.used, standing.held, wanted, standing.frees_at_us),
            self._currency,
        )

    def _refused_now(self, limit: Limit, likely: Use, now: Moment) -> UserError | None:
        minute, wanted = self._minute(limit, now), likely.of(limit.measure) or 0
        over = int(minute.total) + wanted - limit.amount
        if over <= 0:
            return None
        wait_s = minute.frees_in_s(now.monotonic_s, over)
        return refusal(
            Exhausted(limit, int(minute.total), 0, wanted, retry_after_s=wait_s), self._currency
        )

    def _take(self, held: Hold, limit: Limit, most: Use, likely: Use, now: Moment) -> None:
        if limit.period is Period.MINUTE:
            minute, amount = self._minute(limit, now), likely.of(limit.measure) or 0
            second = minute.add(now.monotonic_s, amount)
            held.minutes.append((minute, second, amount, limit.measure))
            held.rates.append(self.standing(limit, now))
        elif limit.period is Period.AT_ONCE:
            account = self._running.setdefault(limit.id, _Account())
            account.held += 1
            held.running.append(account)
        else:
            account = self._accounts[limit.id][window(limit.period, now.wall_us).first]
            amount = most.of(limit.measure) or 0
            account.held += amount
            held.budgets.append((account, amount))


def resting(limit: Limit, spent: Callable[[str, Limit, Window], int], at_us: int) -> Standing:
    """As far as the store knows, where no gateway counts."""
    if not _is_budget(limit):
        return Standing(limit, 0, 0, None)
    within = window(limit.period, at_us)
    return Standing(limit, spent(limit.tenant_id, limit, within), 0, within.ends_at_us)


def _is_budget(limit: Limit) -> bool:
    return limit.period not in (Period.MINUTE, Period.AT_ONCE)
