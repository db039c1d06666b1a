"""The limits as requests meet them: which fit a request, what is held, and what is settled."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence

from freehold.core.binding import Environment, Principal
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.limit import Limit, Measure, Period, Use, window
from freehold.secure.quota import Hold, Moment, Quota, Standing
from freehold.serve.wire import Header
from freehold.store.ledger import Ledger
from freehold.store.limits import LimitTable

_REMEMBERED = 10_000
_RATES = (Measure.REQUESTS, Measure.TOKENS)

Count = Callable[[], Awaitable[Use | None]]


class Limits:
    """On the event loop's thread, except for `reload`."""

    def __init__(self, store: LimitTable, ledger: Ledger, clock: Clock, currency: str) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._quota = Quota(currency)
        self._by_tenant: dict[str, list[Limit]] = {}
        self._fitting: dict[tuple[str, str, str], tuple[Limit, ...]] = {}
        self.currency = currency
        self.show(self.read())

    def read(self) -> Sequence[Limit]:
        """What the store says now; may block."""
        return self._store.every_limit()

    def show(self, found: Sequence[Limit]) -> None:
        by_tenant: dict[str, list[Limit]] = {}
        for limit in found:
            by_tenant.setdefault(limit.tenant_id, []).append(limit)
        if by_tenant == self._by_tenant:
            return
        self._by_tenant = by_tenant
        self._fitting.clear()
        self._quota.keep({limit.id for limit in found})
        self._quota.sweep(self._clock.wall_us())

    def fitting(self, principal: Principal) -> tuple[Limit, ...]:
        """Those that hold for what it asks of models."""
        if principal.tenant_id not in self._by_tenant:
            return ()
        key = principal.tenant_id, principal.environment.value, principal.account
        found = self._fitting.get(key)
        if found is None:
            if len(self._fitting) >= _REMEMBERED:
                self._fitting.clear()
            found = self._fitting[key] = tuple(
                each
                for each in self._by_tenant[principal.tenant_id]
                if each.environment in (None, principal.environment)
                and each.subject in (None, principal.account)
            )
        return found

    def nothing(self) -> Hold:
        """Where no limit fits: what is used is counted all the same, as one may be set
        while the request runs."""
        return Hold(self._clock.wall_us())

    async def hold(self, principal: Principal, most: Use, likely: Use, count: Count) -> Hold:
        """Raises `UserError`: `BUDGET_EXCEEDED`, `RATE_LIMITED`, `PRICE_UNKNOWN`, and then
        nothing is held. A request that would not fit with as many tokens as its bytes is
        counted (`count`) before it is refused."""
        limits = self.fitting(principal)
        await self._known(limits)
        try:
            return self._quota.hold(limits, most, likely, self._now())
        except UserError as refused:
            if refused.code is not Code.BUDGET_EXCEEDED:
                raise
            counted = await count()
            if counted is None:
                raise
        await self._known(limits)
        return self._quota.hold(limits, counted, likely, self._now())

    def settle(self, hold: Hold, principal: Principal, used: Use) -> None:
        """Right after the ledger was told of the settlement."""
        self._quota.settle(hold, self.fitting(principal), used, self._ledger.place)

    def release(self, hold: Hold) -> None:
        """Changes nothing once it is settled."""
        self._quota.release(hold)

    async def standings(self, tenant_id: str, environment: Environment | None) -> list[Standing]:
        """Of a tenant's limits: those of one environment and those of all."""
        found = [
            each
            for each in self._by_tenant.get(tenant_id, ())
            if environment is None or each.environment in (None, environment)
        ]
        await self._known(found)
        now = self._now()
        return [self._quota.standing(each, now) for each in found]

    def headers(self, principal: Principal) -> list[Header]:
        """What a minute still allows, under the names that OpenAI's clients know."""
        found: list[Header] = []
        if not self.fitting(principal):
            return found
        now = self._now()
        for measure in _RATES:
            standings = [
                self._quota.standing(each, now)
                for each in self.fitting(principal)
                if each.measure is measure and each.period is Period.MINUTE
            ]
            if standings:
                tightest = min(standings, key=_left)
                name = measure.value.encode()
                found += [
                    (b"x-ratelimit-limit-%b" % name, b"%d" % tightest.limit.amount),
                    (b"x-ratelimit-remaining-%b" % name, b"%d" % _left(tightest)),
                ]
        return found

    async def _known(self, limits: Sequence[Limit]) -> None:
        """Returns when it is known how much of each was used before."""
        while missing := self._quota.unknown(limits, at_us := self._clock.wall_us()):
            await asyncio.gather(*(self._open(each, at_us) for each in missing))

    async def _open(self, limit: Limit, at_us: int) -> None:
        self._quota.open(limit, at_us)
        read = functools.partial(
            self._store.spent, limit.tenant_id, limit, window(limit.period, at_us)
        )
        used, upto = await self._ledger.counted(read)
        self._quota.opened(limit, at_us, used, upto)

    def _now(self) -> Moment:
        return Moment(self._clock.wall_us(), self._clock.monotonic_s())


def _left(standing: Standing) -> int:
    return max(0, standing.limit.amount - standing.used - standing.held)
