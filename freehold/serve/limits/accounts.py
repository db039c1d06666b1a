"""How limits are counted: in this process, where it is the only one on its database, or in
the database, which several share."""

import asyncio
import functools
from collections.abc import Sequence
from typing import Protocol

from freehold.core.clock import Clock
from freehold.core.limit import Limit, Use, window
from freehold.secure.quota import Hold, Moment, Quota, Standing
from freehold.store.ledger import Ledger
from freehold.store.limits import LimitTable


class Accounts(Protocol):
    async def hold(self, request_id: str, limits: Sequence[Limit], most: Use, likely: Use) -> Hold:
        """Against all of them or none. Raises `UserError`: `BUDGET_EXCEEDED`,
        `RATE_LIMITED`, `PRICE_UNKNOWN`, `STORAGE_UNAVAILABLE`."""
        ...

    def settle(self, hold: Hold, limits: Sequence[Limit], used: Use) -> None:
        """Right after the ledger was told of the settlement."""
        ...

    async def closed(self, hold: Hold) -> None:
        """Once settled: returns when its place among those that run at once is free."""
        ...

    async def release(self, hold: Hold) -> None:
        """As if it had never been held; changes nothing once it is settled."""
        ...

    async def standings(self, limits: Sequence[Limit]) -> list[Standing]: ...

    def keep(self, limits: Sequence[Limit]) -> None:
        """These are all that there are now."""
        ...


class OwnAccounts:
    """In memory, with nothing on the request's way but arithmetic."""

    def __init__(self, store: LimitTable, ledger: Ledger, clock: Clock, currency: str) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._quota = Quota(currency)

    async def hold(self, request_id: str, limits: Sequence[Limit], most: Use, likely: Use) -> Hold:
        await self._known(limits)
        return self._quota.hold(request_id, limits, most, likely, self._now())

    def settle(self, hold: Hold, limits: Sequence[Limit], used: Use) -> None:
        self._quota.settle(hold, limits, used, self._ledger.place)

    async def closed(self, hold: Hold) -> None:
        return

    async def release(self, hold: Hold) -> None:
        self._quota.release(hold)

    async def standings(self, limits: Sequence[Limit]) -> list[Standing]:
        await self._known(limits)
        now = self._now()
        return [self._quota.standing(each, now) for each in limits]

    def keep(self, limits: Sequence[Limit]) -> None:
        self._quota.keep({limit.id for limit in limits})

    async def _known(self, limits: Sequence[Limit]) -> None:
        """Returns when it is known how much of each was used before."""
        while missing := self._quota.unknown(limits, at_us := self._clock.wall_us()):
            await asyncio.gather(*(self._open(each, at_us) for each in missing))

    async def _open(self, limit: Limit, at_us: int) -> None:
        self._quota.open(limit, at_us)
        within = window(limit.period, at_us)
        read = functools.partial(self._store.spent, limit.tenant_id, limit, within)
        used, upto = await self._ledger.counted(read)
        self._quota.opened(limit, at_us, used, upto)

    def _now(self) -> Moment:
        return Moment(self._clock.wall_us(), self._clock.monotonic_s())
