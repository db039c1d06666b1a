"""How many tokens a second this machine reads and makes with a model, streams together:
what the price of its tokens rests on. Measured once for a machine, a model and an engine."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.config.home import write_private
from freehold.core.binding import Priority
from freehold.core.engine import COMPLETIONS, EMBEDDINGS, EngineCall
from freehold.core.errors import UserError
from freehold.core.model import ModelCard, Task
from freehold.deploy.pool import Pool
from freehold.deploy.probe import Machine

_STREAMS, _WORDS = 8, 160
# Of each stream: what its prompt comes to, and what it makes.
PROMPT_TOKENS, ANSWER_TOKENS = 190, 48
_LONGEST_S = 20.0

# What one stream does; it tells its tokens at its number.
_One = Callable[[int, list[int]], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Speed:
    """`made_per_s` is None for models that make no text."""

    read_per_s: float
    made_per_s: float | None
    streams: int
    measured_at_us: int


class Speeds:
    """Under `cache/`: what is lost is measured again."""

    def __init__(self, cache: Path, machine: Machine) -> None:
        self._folder = cache / "speed"
        self._machine = machine

    def find(self, card: ModelCard, engine: str) -> Speed | None:
        try:
            return Speed(**json.loads(self._path(card, engine).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, card: ModelCard, engine: str, speed: Speed) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(dataclasses.asdict(speed))
        write_private(self._path(card, engine), content.encode())

    def _path(self, card: ModelCard, engine: str) -> Path:
        digest = card.digest.removeprefix("sha256:")
        return self._folder / f"{self._machine.fingerprint}-{digest}-{engine}.json"


async def measure(pool: Pool, card: ModelCard, longest_s: float = _LONGEST_S) -> Speed | None:
    """With an engine that serves; None where it did not answer. What is too slow to end in
    time is known by the tokens until then, and reads no slower than it makes."""
    streams = min(_STREAMS, pool.capabilities.concurrency)
    now_us = time.time_ns() // 1000
    if card.task is not Task.CHAT:
        read = await _rate(
            streams, lambda number, told: _embedded(pool, card, number, told), longest_s
        )
        return None if read is None else Speed(read, None, streams, now_us)

    def answered(words: int, tokens: int) -> _One:
        return lambda number, told: _answered(pool, card, number, words, tokens, told)

    read = await _rate(streams, answered(_WORDS, 1), longest_s)
    made = await _rate(streams, answered(1, ANSWER_TOKENS), longest_s)
    return None if made is None else Speed(max(read or 0.0, made), made, streams, now_us)


async def _rate(streams: int, one: _One, longest_s: float) -> float | None:
    """Tokens of all streams a second, from the first call's begin to the last one's end."""
    begun, told = time.perf_counter(), [0] * streams
    try:
        async with asyncio.timeout(longest_s):
            await asyncio.gather(*(one(number, told) for number in range(streams)))
    except TimeoutError:
        pass
    except UserError:
        return None
    elapsed = time.perf_counter() - begun
    return sum(told) / elapsed if sum(told) and elapsed > 0 else None


async def _answered(
    pool: Pool, card: ModelCard, number: int, words: int, tokens: int, told: list[int]
) -> None:
    """Tells the tokens of its prompt, where only one is made, else those of its answer."""
    body = {
        "prompt": f"{number}." + " The river runs by the old mill and on" * (words // 8 + 1),
        "max_tokens": tokens,
        "temperature": 0,
    }
    async with (
        pool.lease("", Priority.BATCH) as lease,
        lease.client.stream(EngineCall(COMPLETIONS, card.digest, body, "speed")) as answer,
    ):
        while (chunks := await answer.read()) is not None:
            for chunk in chunks:
                usage = chunk.get("usage")
                if usage:
                    told[number] = usage["prompt_tokens" if tokens == 1 else "completion_tokens"]
                elif tokens > 1 and chunk.get("choices"):
                    told[number] += 1


async def _embedded(pool: Pool, card: ModelCard, number: int, told: list[int]) -> None:
    text = f"{number}." + " The river runs by the old mill and on" * (_WORDS // 16)
    call = EngineCall(EMBEDDINGS, card.digest, {"input": text}, "speed")
    async with pool.lease("", Priority.BATCH) as lease:
        answer = await lease.client.whole(call)
    told[number] = int((answer.get("usage") or {}).get("prompt_tokens", 0))
