"""The pools, as tenants come, change and go. Those that were promised engines of their own
get a pool when a route of theirs needs one, and lose it when none does and its last
request has ended; the shared ones have the adapters of the others."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from freehold.core.errors import UserError
from freehold.core.tenant import OwnPool
from freehold.deploy import reconcile
from freehold.deploy.adapters import PoolAdapters
from freehold.deploy.pool import Pool

_logger = logging.getLogger(__name__)

_WAIT_S = 5.0


class Pools:
    """Changes `serving`, where requests look. `desired` (the pools of single tenants),
    `adapters` (by base and tenant, None: all that share) and `make` may block: they read
    the store and copy weights. `left` is told of a pool that is gone, and which remain."""

    def __init__(
        self,
        serving: dict[str, Pool],
        desired: Callable[[], Sequence[OwnPool]],
        adapters: Callable[[str, str | None], set[str]],
        make: Callable[[OwnPool], Pool],
        left: Callable[[OwnPool, Sequence[OwnPool]], None],
    ) -> None:
        self._serving = serving
        self._desired = desired
        self._adapters = adapters
        self._make = make
        self._left = left
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[str] = set()  # nobody is led there any more; some are still there
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self.has_failed = False

    async def prepare(self) -> None:
        """Before requests are led as the store says now: what they will need is there."""
        await self.start_missing()
        for adapters, wanted in await self._told():
            await adapters.align(wanted)

    async def settle(self) -> None:
        """After that: what nobody is led to any more goes."""
        for adapters, wanted in await self._told():
            adapters.forget_others(wanted)
        await self.stop_surplus()

    async def start_missing(self) -> None:
        """Returns when they are there, ready or not, or after a while: weights that are
        copied take their time, and requests are refused meanwhile."""
        async with self._changing:
            self.has_failed = False
            for own in (await self._changes()).start:
                if own.name not in self._starting:
                    task = self._later(self._start(own))
                    self._starting[own.name] = task
            waited = list(self._starting.values())
        if waited:
            await asyncio.wait(waited, timeout=_WAIT_S)

    async def stop_surplus(self, only: str | None = None) -> None:
        """Those that requests are still bound to stop when the last one has ended. `only`
        looks at one: others may be surplus and still be led to, until all are led elsewhere."""
        async with self._changing:
            changes = await self._changes()
            meant = {*changes.stop, *changes.left} if only is None else {only}
            self._leaving = (self._leaving - meant) | (meant & set(changes.left))
            for name in meant & set(changes.stop):
                pool = self._serving.pop(name)
                await pool.stop()
                if pool.own is not None:
                    rest = [each.own for each in self._own().values() if each.own is not None]
                    await asyncio.to_thread(self._left, pool.own, rest)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _told(self) -> list[tuple[PoolAdapters, set[str]]]:
        """What tells each pool of adapters, with those that routes name for it."""
        return [
            (
                pool.adapters,
                await asyncio.to_thread(
                    self._adapters, pool.base_digest, pool.own.tenant_id if pool.own else None
                ),
            )
            for pool in list(self._serving.values())
            if pool.adapters is not None and pool.base_digest is not None
        ]

    def _own(self) -> dict[str, Pool]:
        return {name: pool for name, pool in self._serving.items() if pool.own is not None}

    async def _changes(self) -> reconcile.PoolChanges:
        desired = {own.name: own for own in await asyncio.to_thread(self._desired)}
        there = self._own()  # after the wait: what there is now
        used = [name for name, pool in there.items() if pool.is_used]
        return reconcile.pools(desired, there, used)

    async def _start(self, own: OwnPool) -> None:
        try:
            pool = await asyncio.to_thread(self._make, own)
        except (OSError, UserError) as error:
            self.has_failed = True
            _logger.error("own_pool_failed", extra={"reason": f"{own.name}: {error}"})
            return
        finally:
            del self._starting[own.name]
        pool.when_unused(lambda: self._ended(own.name))
        self._serving[own.name] = pool
        pool.start()
        if pool.adapters is not None:  # routes may have been set while it was made
            wanted = await asyncio.to_thread(self._adapters, own.base_digest, own.tenant_id)
            await pool.adapters.align(wanted)

    def _ended(self, name: str) -> None:
        """Its last request has: perhaps it only waited for that. Otherwise nothing follows:
        requests may be led there until they are all led elsewhere."""
        if name in self._leaving:
            self._later(self.stop_surplus(name))

    def _later(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
