"""An engine's answer to one request: leased, retried once before its first chunk,
and, where the engine makes one choice at a time, fanned out to `n` calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from freehold.core.binding import Binding
from freehold.core.engine import EMBEDDINGS, EngineCall
from freehold.core.errors import Code, UserError
from freehold.deploy.pool import Lease, Pool
from freehold.engines.base import Answer
from freehold.serve.request.quarantine import Quarantine

_RETRIED = frozenset({Code.ENGINE_FAILED, Code.ENGINE_UNAVAILABLE, Code.ADAPTER_UNAVAILABLE})
_TRIES = 2
_FANOUT_BUFFER = 16


@dataclass(slots=True)
class Opened:
    """An answer whose first chunks are here, so that an error before them can
    still have its own status."""

    answer: Answer
    first: list[dict[str, Any]] | None

    async def read(self) -> list[dict[str, Any]] | None:
        if self.first is not None:
            chunks, self.first = self.first, None
            return chunks
        return await self.answer.read()


@dataclass(frozen=True, slots=True)
class Asked:
    """What to ask, of whom, for whom."""

    pool: Pool
    binding: Binding
    call: EngineCall
    quarantine: Quarantine
    leases: list[Lease]  # every one that was taken, before the engine is asked

    def blame(self, error: UserError, lease: Lease) -> None:
        """An engine process that failed while it worked on this may have died of it."""
        if error.code is Code.ADAPTER_UNAVAILABLE:
            lease.forgot_adapters()
        elif error.code in _RETRIED:
            lease.suspect()
        if error.code is Code.ENGINE_FAILED and self.binding.route.base_digest is not None:
            self.quarantine.blame(self.call.body)


@asynccontextmanager
async def opened(asked: Asked) -> AsyncIterator[Opened]:
    """Leaves the engine idle and the lease returned, however it is left."""
    binding = asked.binding
    for attempt in range(_TRIES):
        begun = False
        try:
            async with asked.pool.lease(binding.principal.tenant_id, binding.priority) as lease:
                asked.leases.append(lease)
                try:
                    await _check_length(asked.pool, lease, asked.call)
                    async with lease.client.stream(asked.call) as answer:
                        first = await answer.read()
                        begun = True
                        yield Opened(answer, first)
                        return
                except UserError as error:
                    asked.blame(error, lease)
                    raise
        except UserError as error:
            is_last = attempt == _TRIES - 1 or asked.quarantine.holds(asked.call.body)
            if begun or error.code not in _RETRIED or is_last:
                raise


async def whole(asked: Asked) -> dict[str, Any]:
    """An unstreamed answer, with the same single retry."""
    binding = asked.binding
    for attempt in range(_TRIES):
        async with asked.pool.lease(binding.principal.tenant_id, binding.priority) as lease:
            asked.leases.append(lease)
            try:
                await _check_length(asked.pool, lease, asked.call)
                return await lease.client.whole(asked.call)
            except UserError as error:
                asked.blame(error, lease)
                if error.code not in _RETRIED or attempt == _TRIES - 1:
                    raise
    raise AssertionError("unreachable")


async def _check_length(pool: Pool, lease: Lease, call: EngineCall) -> None:
    """Refuses a prompt that cannot fit before the engine sees it.

    A token is at least one byte, so a short text needs no counting."""
    limit = pool.capabilities.context_length
    if limit is None or _text_bytes(call.body) < limit // 2:
        return
    if call.endpoint == EMBEDDINGS:
        await _check_inputs(limit, lease, call)
        return
    count = await lease.client.count_prompt_tokens(call)
    if count is not None and count >= limit:
        raise UserError(
            Code.CONTEXT_LENGTH_EXCEEDED,
            f"The prompt has {count:,} tokens and this model's context holds {limit:,}: "
            "shorten it.",
            param="messages" if "messages" in call.body else "prompt",
        )


async def _check_inputs(limit: int, lease: Lease, call: EngineCall) -> None:
    """Each input has the whole context to itself; the refusal says which is too long."""
    given = call.body["input"]
    for index, text in enumerate(given if isinstance(given, list) else [given]):
        if _text_bytes(text) < limit // 2:
            continue
        alone = replace(call, body={**call.body, "input": text})
        count = await lease.client.count_prompt_tokens(alone)
        if count is None:
            return
        if count > limit:
            place = f"input[{index}]" if isinstance(given, list) else "input"
            raise UserError(
                Code.CONTEXT_LENGTH_EXCEEDED,
                f"{place} has {count:,} tokens and this model takes {limit:,} in one input: "
                "shorten or split it.",
                param=place,
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

    def __init__(self, asked: Asked, n: int) -> None:
        self._queue: asyncio.Queue[list[dict[str, Any]] | BaseException | None] = asyncio.Queue(
            _FANOUT_BUFFER
        )
        self._running = n
        self._usage: dict[str, Any] | None = None
        self._tasks = [
            asyncio.create_task(self._pump(_variant(asked, index), index)) for index in range(n)
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

    async def _pump(self, asked: Asked, index: int) -> None:
        try:
            async with opened(asked) as answer:
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


def _variant(asked: Asked, index: int) -> Asked:
    """Each choice of a seeded request has a seed of its own, or all were equal."""
    seed = asked.call.body.get("seed")
    if seed is None or index == 0:
        return asked
    return replace(asked, call=replace(asked.call, body={**asked.call.body, "seed": seed + index}))


@asynccontextmanager
async def fanned_out(asked: Asked, n: int) -> AsyncIterator[Opened]:
    fanout = Fanout(asked, n)
    try:
        yield Opened(fanout, await fanout.read())
    finally:
        await fanout.close()
