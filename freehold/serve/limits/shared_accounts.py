"""Limits of several gateways on one database: counted there, in a transaction of its own
before each request that a limit fits."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.limit import Limit, Period, Use, window
from freehold.secure.exhausted import Exhausted, refusal
from freehold.secure.quota import Hold, Standing
from freehold.store.holds import Ask, Check, Counted, HoldTable, Wanted

_log = logging.getLogger(__name__)
Answer = Sequence[Counted] | UserError
_Asked = tuple[Ask, "asyncio.Future[Answer]"]


class _Turns:
    """One transaction at a time for a tenant; who comes meanwhile goes together in the next,
    so that many requests at once wait for two of them and not for each other."""

    def __init__(self, store: HoldTable, check: Check) -> None:
        self._store = store
        self._check = check
        self._waiting: dict[str, list[_Asked]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, tenant_id: str, ask: Ask) -> Sequence[Counted]:
        mine: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(tenant_id)
        if waiting is None:
            self._waiting[tenant_id] = [(ask, mine)]
            task = asyncio.create_task(self._go(tenant_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            waiting.append((ask, mine))
        try:
            answer = await asyncio.shield(mine)
        except asyncio.CancelledError:  # what it was granted meanwhile is given back
            mine.add_done_callback(lambda done: self._give_back(tenant_id, ask, done))
            raise
        if isinstance(answer, UserError):
            raise answer
        return answer

    async def _go(self, tenant_id: str) -> None:
        try:
            while asked := self._waiting[tenant_id]:
                self._waiting[tenant_id] = []
                await self._answer(tenant_id, asked)
        finally:
            for _, mine in self._waiting.pop(tenant_id):
                mine.set_result(_failed())

    async def _answer(self, tenant_id: str, asked: Sequence[_Asked]) -> None:
        answers: Sequence[Answer] = [_failed()] * len(asked)
        try:
            answers = await asyncio.to_thread(
                self._store.hold, tenant_id, [ask for ask, _ in asked], self._check
            )
        except UserError as error:
            answers = [error] * len(asked)
        finally:  # nobody waits for ever, whatever happened
            for (_, mine), answer in zip(asked, answers, strict=True):
                mine.set_result(answer)

    def _give_back(self, tenant_id: str, ask: Ask, done: "asyncio.Future[Answer]") -> None:
        if not isinstance(done.result(), UserError):
            task = asyncio.create_task(
                asyncio.to_thread(self._store.release, tenant_id, ask.request_id)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class SharedAccounts:
    """In the database: one transaction before a request that a limit fits."""

    def __init__(self, store: HoldTable, clock: Clock, currency: str) -> None:
        self._store = store
        self._turns = _Turns(store, self._check)
        self._clock = clock
        self._currency = currency

    async def hold(self, request_id: str, limits: Sequence[Limit], most: Use, likely: Use) -> Hold:
        held = Hold(request_id, self._clock.wall_us())
        wanted = [self._wanted(each, most, likely, held.at_us) for each in limits]
        tenant_id = limits[0].tenant_id
        counted = await self._turns.ask(tenant_id, Ask(request_id, wanted))
        held.rates = [
            Standing(each.limit, found.used + each.amount, 0, None)
            for each, found in zip(wanted, counted, strict=True)
            if each.limit.period is Period.MINUTE
        ]
        held.tenant_id = tenant_id
        held.runs = any(each.limit.period is Period.AT_ONCE for each in wanted)
        return held

    def settle(self, hold: Hold, limits: Sequence[Limit], used: Use) -> None:
        """The ledger's transaction counts it, within a second: until then the most that it
        could have used stays held."""
        hold.is_open = False

    async def closed(self, hold: Hold) -> None:
        if hold.runs:
            await self._let_go(self._store.stop_running, hold)

    async def release(self, hold: Hold) -> None:
        if hold.tenant_id and hold.is_open:
            hold.is_open = False
            await self._let_go(self._store.release, hold)

    async def _let_go(self, let_go: Callable[[str, str], None], hold: Hold) -> None:
        """An answer is not lost with a database that is away just now: what it held is freed
        with its settlement, or once this gateway is swept."""
        try:
            await asyncio.to_thread(let_go, hold.tenant_id, hold.request_id)
        except UserError as error:
            _log.warning("hold_kept", extra={"reason": error.message})

    async def standings(self, limits: Sequence[Limit]) -> list[Standing]:
        at_us = self._clock.wall_us()
        wanted = [self._wanted(each, Use(), Use(), at_us) for each in limits]
        if not wanted:
            return []
        counted = await asyncio.to_thread(self._store.counted, limits[0].tenant_id, wanted)
        return [
            Standing(
                each.limit, found.used, found.held, each.within.ends_at_us if each.within else None
            )
            for each, found in zip(wanted, counted, strict=True)
        ]

    def keep(self, limits: Sequence[Limit]) -> None:
        return

    def _wanted(self, limit: Limit, most: Use, likely: Use, at_us: int) -> Wanted:
        if limit.period is Period.MINUTE:
            return Wanted(limit, None, likely.of(limit.measure) or 0)
        if limit.period is Period.AT_ONCE:
            return Wanted(limit, None, 1)
        amount = most.of(limit.measure)
        if amount is None:
            raise refusal(Exhausted(limit, 0, 0, None), self._currency)
        return Wanted(limit, window(limit.period, at_us), amount)

    def _check(self, wanted: Sequence[Wanted], counted: Sequence[Counted]) -> None:
        """Raises for the first that does not allow it."""
        for each, found in zip(wanted, counted, strict=True):
            if found.used + found.held + each.amount > each.limit.amount:
                over = found.used + each.amount - each.limit.amount
                ends = each.within.ends_at_us if each.within else None
                wait_s = found.frees_in_s(over)
                raise refusal(
                    Exhausted(each.limit, found.used, found.held, each.amount, ends, wait_s),
                    self._currency,
                )


def _failed() -> UserError:
    return UserError(
        Code.STORAGE_UNAVAILABLE,
        "Budgets cannot be asked right now, so no request is served: try again.",
        retry_after_s=2,
    )
