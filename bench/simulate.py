"""The simulation of replicas: how fast it is, and how near to this machine.

`python bench/simulate.py` simulates a month of a million requests. Then `freehold up` serves
the default model with the shared-base engine; how long its steps take is measured through the
gateway, one stream and many; and Poisson arrivals at three rates are sent to it and put
through the simulation with those times, request by request the same.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import aiohttp
import machine
import numpy as np
from served import Served, served

from freehold.core.plan import Lengths, Workload
from freehold.decide.arrivals import Load, arrivals
from freehold.decide.replica import Batching
from freehold.decide.simulate import simulate

_PORT = 18087
_STREAMS = 32
_CHUNK = 256  # of the shared-base engine's scheduler
_SHARES = (0.3, 0.5, 0.7)  # of what the simulation says is the most
_SECONDS = 24.0
_SHORT, _USUAL, _LONG = 16, 130, 250  # prompts; of the load they have between 16 and 250
_ANSWER = 32  # of those whose steps are measured
_NO_END = {"0": -100, "2": -100}  # SmolLM2's end tokens: every answer has all its tokens
_OFFICE = (0.2,) * 8 + (2.0,) * 10 + (0.5,) * 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", action="append", default=[], type=Path, help=machine.LOCK)
    parser.add_argument("--only", choices=("month", "machine"))
    options = parser.parse_args()
    rows = []
    with machine.exclusive(options.lock):
        if options.only != "machine":
            rows += _months()
        if options.only != "month":
            with served("openvino", _PORT, _STREAMS, 1024) as gateway:
                rows += asyncio.run(_compare(gateway))
    machine.keep("simulate", rows, merge=True)


@dataclass(frozen=True, slots=True)
class Linear:
    kv_tokens: int = 200_000

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        return 0.008 + tokens * 2e-5 + tokens * context_tokens * 1e-10

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        return 0.008 + sequences * 5e-5 + context_tokens * 1e-8


def _months() -> list[machine.Row]:
    spread = [float(np.exp(0.8 * (step - 15.5) / 8 - 0.3)) for step in range(32)]
    work = Workload(
        "month",
        1e6 / 30,
        Lengths(tuple(int(800 * each) for each in spread)),
        Lengths(tuple(int(250 * each) for each in spread)),
        hours=_OFFICE,
    )
    load = arrivals(work, days=30)
    rows = []
    for replicas in (1, 2, 8, 32):
        begun = time.process_time()
        simulate(load, Linear(), replicas)
        spent = time.process_time() - begun
        case = f"a month, {len(load):,} requests, {replicas}x"
        rows.append(machine.Row("freehold", version("freehold"), case, "seconds, one core", spent))
    return rows


@dataclass(slots=True)
class Seen:
    """One request: what it had, and when each of its chunks came."""

    sent: float
    tokens_in: int
    tokens_out: int
    chunks: list[float]

    @property
    def ttft_s(self) -> float:
        return self.chunks[0] - self.sent


class Client:
    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self._served, self._session, self._asked = served, session, 0

    async def ask(self, tokens: int, answer: int) -> Seen:
        """Every prompt begins otherwise, so that none is found again."""
        self._asked += 1
        prompt = f"{self._asked} tells:" + " ship" * max(tokens - 4, 1)
        body = {
            "model": self._served.model, "prompt": prompt, "max_tokens": answer, "stream": True,
            "temperature": 0, "logit_bias": _NO_END, "stream_options": {"include_usage": True},
        }  # fmt: skip
        seen = Seen(time.perf_counter(), 0, 0, [])
        async with self._session.post(f"{self._served.url}/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if b'"text":' in line:
                    seen.chunks.append(time.perf_counter())
                if b'"usage":{' in line:
                    usage = json.loads(line[6:])["usage"]
                    seen.tokens_in, seen.tokens_out = (
                        usage["prompt_tokens"],
                        usage["completion_tokens"],
                    )
        return seen

    async def at_once(self, count: int, tokens: int, answer: int) -> list[Seen]:
        return list(await asyncio.gather(*(self.ask(tokens, answer) for _ in range(count))))


@dataclass(frozen=True, slots=True)
class Measured:
    """Between what was measured, in lines."""

    reads: tuple[tuple[int, float], ...]  # tokens, seconds
    writes: tuple[tuple[int, float], ...]  # sequences, seconds at a usual context
    usual: int  # that context, of each
    look_s: float  # a token of context
    kv_tokens: int = _STREAMS * 1024

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        return _between(self.reads, tokens)

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        usual_s = _between(self.writes, sequences)
        more = context_tokens - sequences * self.usual
        return max(usual_s + more * self.look_s, usual_s / 2)


def _between(points: Sequence[tuple[int, float]], at: int) -> float:
    return float(np.interp(at, [x for x, _ in points], [y for _, y in points]))


async def _measure(client: Client) -> Measured:
    """Of single prompts, as they come to an idle engine; and of steps at a usual context."""
    reads = []
    for tokens in (8, 32, 64, 128, 256):
        seen = [await client.ask(tokens, 2) for _ in range(5)]
        length = round(statistics.median(each.tokens_in for each in seen))
        reads.append((length, statistics.fmean(each.ttft_s for each in seen)))
    writes = [(count, await _step_s(client, count, _USUAL)) for count in (1, 4, 8, 16, 32)]
    shorter, longer = await _step_s(client, 8, _SHORT), await _step_s(client, 8, _LONG)
    look_s = max(longer - shorter, 0) / (8 * (_LONG - _SHORT))
    return Measured(tuple(reads), tuple(writes), _USUAL + _ANSWER // 2, look_s)


def _mean(one: Measured, other: Measured) -> Measured:
    """Of before and after, as the machine is not the same all the time."""

    def both(
        a: Sequence[tuple[int, float]], b: Sequence[tuple[int, float]]
    ) -> tuple[tuple[int, float], ...]:
        return tuple((x, (s + t) / 2) for (x, s), (_, t) in zip(a, b, strict=True))

    return Measured(
        both(one.reads, other.reads),
        both(one.writes, other.writes),
        one.usual,
        (one.look_s + other.look_s) / 2,
    )


async def _step_s(client: Client, count: int, tokens: int) -> float:
    """While all of them write."""
    seen = await client.at_once(count, tokens, _ANSWER)
    begin, end = max(each.chunks[0] for each in seen), min(each.chunks[-1] for each in seen)
    made = sum(sum(begin < at <= end for at in each.chunks) for each in seen)
    return (end - begin) * count / made


async def _compare(served: Served) -> list[machine.Row]:
    rows = []
    batching = Batching(_STREAMS, _CHUNK, mixes=False)
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"authorization": f"Bearer {served.key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        client = Client(served, session)
        await client.at_once(4, 32, 16)  # the first are slower
        before = await _measure(client)
        all_at_once = _load(2000, 1e6, 5)
        most = simulate(all_at_once, before, 1, batching)
        most_a_second = 2000 * most.tokens_per_s / int(all_at_once.answer.sum())
        for share in _SHARES:
            rate = most_a_second * share
            planned = _load(round(_SECONDS * rate), rate, round(share * 10))
            seen = await _send(client, planned)
            after = await _measure(client)
            print(after, flush=True)
            rows += _beside(
                f"{share:.0%} of the most", planned, seen, _mean(before, after), batching
            )
            before = after
    return rows


def _load(count: int, a_second: float, seed: int) -> Load:
    dice = np.random.default_rng(seed)
    at_s = np.cumsum(dice.exponential(1 / a_second, count))
    return Load(
        at_s,
        dice.integers(16, 250, count),
        dice.integers(8, 80, count),
        np.full(count, -1),
        float(at_s[-1]),
    )


async def _send(client: Client, load: Load) -> list[Seen]:
    begun = time.perf_counter()

    async def one(at: float, prompt: int, answer: int) -> Seen:
        await asyncio.sleep(max(begun + at - time.perf_counter(), 0))
        return await client.ask(prompt, answer)

    rows = zip(load.at_s.tolist(), load.prompt.tolist(), load.answer.tolist(), strict=True)
    seen = await asyncio.gather(*(one(*row) for row in rows))
    return list(seen)


def _beside(
    case: str, planned: Load, seen: list[Seen], times: Measured, batching: Batching
) -> list[machine.Row]:
    """The same requests as they were sent: their times, and the lengths that were counted."""
    sent = np.array([each.sent for each in seen])
    order = np.argsort(sent, kind="stable")
    real = Load(
        (sent - sent.min())[order],
        np.array([each.tokens_in for each in seen])[order],
        np.array([each.tokens_out for each in seen])[order],
        planned.adapter,
        float(sent.max() - sent.min()),
    )
    told = simulate(real, times, 1, batching)
    tpot = [
        (each.chunks[-1] - each.chunks[0]) / (each.tokens_out - 1) * 1000
        for each in seen
        if each.tokens_out > 1
    ]
    end = max(each.chunks[-1] for each in seen) - sent.min()
    figures = {
        "p95 TTFT, ms": (
            np.percentile([s.ttft_s for s in seen], 95) * 1000,
            told.ttft_s.p95 * 1000,
        ),
        "p50 TTFT, ms": (
            np.percentile([s.ttft_s for s in seen], 50) * 1000,
            told.ttft_s.p50 * 1000,
        ),
        "p95 TPOT, ms": (np.percentile(tpot, 95), told.tpot_ms.p95),
        "tokens/s": (real.answer.sum() / end, told.tokens_per_s),
    }
    rows = []
    for metric, (measured, simulated) in figures.items():
        for system, value in (("machine", measured), ("simulated", simulated)):
            rows.append(machine.Row(system, version("freehold"), case, metric, float(value)))
        ratio = float(simulated / measured)
        rows.append(
            machine.Row("freehold", version("freehold"), case, f"{metric}, simulated/real", ratio)
        )
    return rows


if __name__ == "__main__":
    main()
