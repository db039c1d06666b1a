"""Ends requests that wait too long: on an engine that hangs, on a client that does
not read. One look at all of them a few times a second is cheaper than a timer for
each chunk, and also tells the ledger how far each one came."""

import asyncio
from typing import TYPE_CHECKING

from freehold.config.schema import LimitSettings
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.serve.tasks import ended
from freehold.store.ledger import Ledger

if TYPE_CHECKING:
    from freehold.serve.request.exchange import Exchange

_LOOK_S = 0.2
_MARK_EVERY = 5  # looks


class Watch:
    def __init__(self, limits: LimitSettings, clock: Clock, ledger: Ledger) -> None:
        self._limits = limits
        self._clock = clock
        self._ledger = ledger
        self._exchanges: set[Exchange] = set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._exchanges)

    def add(self, exchange: "Exchange") -> None:
        self._exchanges.add(exchange)

    def remove(self, exchange: "Exchange") -> None:
        self._exchanges.discard(exchange)

    def running(self) -> "tuple[Exchange, ...]":
        return tuple(self._exchanges)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def drain(self, limit_s: float) -> None:
        """Waits for the running requests, then stops those that take longer."""
        deadline = self._clock.monotonic_s() + limit_s
        while self._exchanges and self._clock.monotonic_s() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for exchange in list(self._exchanges):
            exchange.stop(
                UserError(
                    Code.SHUTTING_DOWN, "The gateway is stopping: try again.", retry_after_s=5
                )
            )
        for _ in range(100):
            if not self._exchanges:
                break
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        look = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            look += 1
            now_s = self._clock.monotonic_s()
            for exchange in list(self._exchanges):
                error = self._overdue(exchange, now_s - exchange.waiting_since_s)
                if error is not None:
                    exchange.stop(error)
                elif look % _MARK_EVERY == 0 and exchange.meter.tokens_out:
                    meter = exchange.meter
                    self._ledger.mark(
                        exchange.binding.request_id, meter.tokens_in, meter.tokens_out
                    )

    def _overdue(self, exchange: "Exchange", waited_s: float) -> UserError | None:
        limits = self._limits
        if exchange.waits_for_client:
            if waited_s > limits.slow_client_s:
                return UserError(
                    Code.CLIENT_TOO_SLOW,
                    f"The client read nothing for {limits.slow_client_s:g} seconds.",
                )
        elif exchange.has_first_token:
            if waited_s > limits.next_token_s:
                return _hung("its next token", limits.next_token_s)
        elif waited_s > limits.first_token_s:
            return _hung("its first token", limits.first_token_s)
        return None


def _hung(what: str, limit_s: float) -> UserError:
    return UserError(
        Code.ENGINE_TIMEOUT,
        f"The engine did not make {what} within {limit_s:g} seconds: try again.",
        retry_after_s=5,
    )
