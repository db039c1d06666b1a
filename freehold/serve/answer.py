"""An engine's answer to one request: leased, retried once before its first chunk,
and, where the engine makes one choice at a time, fanned out to `n` calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from freehold.core.binding import Binding
from freehold.core.engine import EngineCall
from freehold.core.errors import Code, UserError
from freehold.deploy.pool import Lease, Pool
from freehold.engines.base import Answer

_RETRIED = frozenset({Code.ENGINE_FAILED, Code.ENGINE_UNAVAILABLE})
_TRIES = 2
_FANOUT_BUFFER = 16


@dataclass(slots=True)
class Opened:
    """An answer whose first chunks are here, so that an error before them can
    still have its own status."""

    lease: Lease
    answer: Answer
    first: list[dict[str, Any]] | None

    async def read(self) -> list[dict[str, Any]] | None:
        if self.first is not None:
            chunks, self.first = self.first, None
            return chunks
        return await self.answer.read()


@asynccontextmanager
async def opened(pool: Pool, binding: Binding, call: EngineCall) -> AsyncIterator[Opened]:
    """Leaves the engine idle and the lease returned, however it is left."""
    for attempt in range(_TRIES):
        begun = False
        lease_context = pool.lease(binding.principal.tenant_id, binding.priority)
        try:
            async with lease_context as lease:
                await _check_length(pool, lease, call)
                async with lease.client.stream(call) as answer:
                    first = await answer.read()
                    begun = True
                    yield Opened(lease, answer, first)
                    return
        except UserError as error:
            if begun or error.code not in _RETRIED or attempt == _TRIES - 1:
                raise


async def whole(pool: Pool, binding: Binding, call: EngineCall) -> tuple[dict[str, Any], Lease]:
    """An unstreamed answer, with the same single retry."""
    for attempt in range(_TRIES):
        async with pool.lease(binding.principal.tenant_id, binding.priority) as lease:
            try:
                return await lease.client.whole(call), lease
            except UserError as error:
                if error.code not in _RETRIED or attempt == _TRIES - 1:
                    raise
    raise AssertionError("unreachable")


async def _check_length(pool: Pool, lease: Lease, call: EngineCall) -> None:
    """Refuses a prompt that cannot fit before the engine sees it.

    A token is at least one byte, so a short text needs no counting."""
    limit = pool.capabilities.context_length
    if limit is None or _text_bytes(call.body) < limit // 2:
        return
    count = await lease.client.count_prompt_tokens(call)
    if count is not None and count >= limit:
        raise UserError(
            Code.CONTEXT_LENGTH_EXCEEDED,
            f"The prompt has {count:,} tokens and this model's context holds {limit:,}: "
            "shorten it.",
            param="messages" if "messages" in call.body else "prompt",
        )


def _text_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) * (1 if value.isascii() else 4)
    if isinstance(value, dict):
        return sum(map(_text_bytes, value.values())) + 4 * len(value)
    if isinstance(value, list):
        return sum(map(_text_bytes, value)) + 4 * len(value)
    return 4


class Fanout:
    """`n` answers to one prompt as one: chunks keep their order within a choice,
    choices run side by side, the prompt is counted once."""

    def __init__(self, pool: Pool, binding: Binding, call: EngineCall, n: int) -> None:
        self._queue: asyncio.Queue[list[dict[str, Any]] | BaseException | None] = asyncio.Queue(
            _FANOUT_BUFFER
        )
        self._running = n
        self._usage: dict[str, Any] | None = None
        self.lease: Lease | None = None
        self._tasks = [
            asyncio.create_task(self._pump(pool, binding, _variant(call, index), index))
            for index in range(n)
        ]

    async def read(self) -> list[dict[str, Any]] | None:
        while self._running:
            item = await self._queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                return item
            self._running -= 1
        usage, self._usage = self._usage, None
        return [{"choices": [], "usage": usage}] if usage else None

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pump(self, pool: Pool, binding: Binding, call: EngineCall, index: int) -> None:
        try:
            async with opened(pool, binding, call) as answer:
                self.lease = answer.lease
                while (chunks := await answer.read()) is not None:
                    await self._queue.put([self._own(chunk, index) for chunk in chunks])
        except UserError as error:
            await self._queue.put(error)
            return
        await self._queue.put(None)

    def _own(self, chunk: dict[str, Any], index: int) -> dict[str, Any]:
        usage = chunk.pop("usage", None)
        if usage:
            self._add(usage)
        for choice in chunk.get("choices") or ():
            choice["index"] = index
        return chunk

    def _add(self, usage: dict[str, Any]) -> None:
        if self._usage is None:
            self._usage = dict(usage)
            return
        self._usage["completion_tokens"] += usage["completion_tokens"]
        self._usage["total_tokens"] += usage["completion_tokens"]


def _variant(call: EngineCall, index: int) -> EngineCall:
    """Each choice of a seeded request has a seed of its own, or all were equal."""
    seed = call.body.get("seed")
    if seed is None or index == 0:
        return call
    return replace(call, body={**call.body, "seed": seed + index})


@asynccontextmanager
async def fanned_out(
    pool: Pool, binding: Binding, call: EngineCall, n: int
) -> AsyncIterator[Opened]:
    fanout = Fanout(pool, binding, call, n)
    try:
        first = await fanout.read()
        if fanout.lease is None:
            raise UserError(Code.ENGINE_FAILED, "The engine answered nothing: try again.")
        yield Opened(fanout.lease, fanout, first)
    finally:
        await fanout.close()
