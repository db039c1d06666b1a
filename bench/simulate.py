"""The simulation of replicas: how fast it is, and how near to this machine.

`python bench/simulate.py` simulates a month of a million requests. Then `freehold up` serves
the default model with the shared-base engine; how long its steps take is measured through the
gateway, one stream and many, before and after each part of a load; and Poisson arrivals at three
rates are sent to it and put through the simulation with those times, request by request the same.
How fast the machine is while a part goes on is told by the time between its answers' tokens, and by
the first tokens of those that came while no prompt was read: two numbers a part.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import aiohttp
import machine
import numpy as np
from numpy.typing import NDArray
from served import Served, served

from freehold.core.plan import Lengths, Workload
from freehold.decide.load.arrivals import Load, arrivals
from freehold.decide.load.replica import Batching
from freehold.decide.load.simulate import answered, capacity, simulate

_PORT = 18087
_STREAMS = 32
_CHUNK = 256  # of the shared-base engine's scheduler
_SHARES = (0.3, 0.5, 0.7)  # of what the simulation says is the most
_PARTS, _REQUESTS, _SECONDS = 4, 60, 24.0  # of each rate; of each part, within so long
_LEAST_GAPS, _LEAST_ALONE = 20, 5  # tokens and prompts, to tell the machine's speed from
_READ = (13, 212, 57, 131, 174, 30, 243, 95, 187, 74, 150, 226)
_SHORT, _USUAL, _LONG = 16, 130, 250  # prompts; of the load they have between 16 and 250
_ANSWER = 24  # of those whose steps are measured
_NO_END = {"0": -100, "2": -100}  # SmolLM2's end tokens: every answer has all its tokens
_BATCHING = Batching(_STREAMS, _CHUNK, mixes=False)
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


async def _measure(client: Client, look_s: float) -> Measured:
    """Of single prompts, as they come to an idle engine, as a line; and of steps at a usual
    context. Lengths are all kinds, as some are read faster than their neighbours."""
    seen = [await client.ask(tokens, 2) for tokens in _READ]
    slope, begin = np.polyfit([s.tokens_in for s in seen], [s.ttft_s for s in seen], 1)
    reads = [(tokens, float(begin + slope * tokens)) for tokens in (1, _CHUNK)]
    writes = [(count, await _step_s(client, count, _USUAL)) for count in (1, 8, 24)]
    return Measured(tuple(reads), tuple(writes), _USUAL + _ANSWER // 2, look_s)


async def _look_s(client: Client) -> float:
    shorter, longer = await _step_s(client, 8, _SHORT), await _step_s(client, 8, _LONG)
    return max(longer - shorter, 0) / (8 * (_LONG - _SHORT))


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
        one.look_s,
    )


def _at_that_time(times: Measured, seen: Sequence[Seen]) -> Measured:
    """As fast as the machine was while these were answered. Only steps in which no prompt was read,
    and nothing came, are looked at."""
    gaps = [
        (end - begin) / times.decode_s(streams, streams * times.usual)
        for begin, end, streams in _writing(seen)
    ]
    waits = [
        one.ttft_s / (times.prefill_s(one.tokens_in, 0) + each_s / 2)
        for one, each_s in _unqueued(times, seen)
    ]
    slower = float(np.median(gaps)) if len(gaps) >= _LEAST_GAPS else 1.0
    reading = float(np.median(waits)) if len(waits) >= _LEAST_ALONE else slower
    return replace(
        times,
        reads=tuple((x, y * reading) for x, y in times.reads),
        writes=tuple((x, y * slower) for x, y in times.writes),
        look_s=times.look_s * slower,
    )


def _unqueued(times: Measured, seen: Sequence[Seen]) -> Iterator[tuple[Seen, float]]:
    """Requests that came while no prompt was read, with the step of answers that they came in."""
    for one in seen:
        if not any(each.sent < one.sent < each.chunks[0] for each in seen):
            streams = sum(each.chunks[0] <= one.sent <= each.chunks[-1] for each in seen)
            yield one, times.decode_s(streams, streams * times.usual) if streams else 0.0


def _stolen_s() -> float:
    """Seconds of all cores that this machine wanted and its host gave to others."""
    told = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(told[8]) / os.sysconf("SC_CLK_TCK")


def _told(part: "Part") -> str:
    """Of one part, p95 TTFT as it was and as simulated."""
    load = part.load
    first = np.array([each.chunks[0] - each.sent for each in part.seen])
    simulated = answered(load, part.times, 1, _BATCHING)[0] - load.at_s
    real, said = np.percentile(first, 95), np.percentile(simulated, 95)
    ends = part.times.prefill_s(_CHUNK, 0), part.times.decode_s(8, 8 * part.times.usual)
    return (
        f"p95 TTFT {real:.3f} s, simulated {said:.3f}; {_CHUNK} tokens read in {ends[0]:.3f} s, "
        f"8 streams' step {ends[1]:.3f}"
    )


def _writing(seen: Sequence[Seen]) -> Iterator[tuple[float, float, int]]:
    """Begin, end and streams of steps that only wrote."""
    for one in seen:
        for begin, end in pairwise(one.chunks):
            if not any(each.sent < end and each.chunks[0] > begin for each in seen):
                yield begin, end, sum(e.chunks[0] <= begin and end <= e.chunks[-1] for e in seen)


async def _step_s(client: Client, count: int, tokens: int) -> float:
    """While all of them write."""
    seen = await client.at_once(count, tokens, _ANSWER)
    begin, end = max(each.chunks[0] for each in seen), min(each.chunks[-1] for each in seen)
    made = sum(sum(begin < at <= end for at in each.chunks) for each in seen)
    return (end - begin) * count / made


async def _compare(served: Served) -> list[machine.Row]:
    """Each rate in parts, with the steps measured before and after each: the machine is not the
    same all the time."""
    rows = []
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"authorization": f"Bearer {served.key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        client = Client(served, session)
        await client.at_once(4, 32, 16)  # the first are slower
        look_s = await _look_s(client)
        rate = _most_a_second(await _measure(client, look_s))
        await _send(client, _load(20, rate / 2, 1))  # and so are the first mixes of steps
        before = await _measure(client, look_s)
        for share in _SHARES:
            parts = []
            for number in range(_PARTS):
                asked = rate * share
                seed = round(share * 100) + number
                count = round(min(_SECONDS * asked, _REQUESTS))
                stolen = _stolen_s()
                begun = time.perf_counter()
                seen = await _send(client, _load(count, asked, seed))
                stolen = (_stolen_s() - stolen) / (time.perf_counter() - begun)
                after = await _measure(client, look_s)
                part = Part(seen, _at_that_time(_mean(before, after), seen))
                parts.append(part)
                print(f"{share:.0%}, part {number + 1}: {_told(part)}, {stolen:.2f} cores stolen")
                before = after
            rows += _beside(f"{share:.0%} of the most", parts)
    return rows


def _most_a_second(times: Measured) -> float:
    return capacity(replace(_load(400, 1.0, 5), at_s=np.zeros(400)), times, _BATCHING)


@dataclass(frozen=True, slots=True)
class Part:
    """Of a load, and the steps of that time."""

    seen: list[Seen]
    times: Measured

    @property
    def load(self) -> Load:
        """As it was sent, with the lengths that were counted; `seen` is in the same order."""
        self.seen.sort(key=lambda each: each.sent)
        sent = np.array([each.sent for each in self.seen])
        return Load(
            sent - sent[0],
            np.array([each.tokens_in for each in self.seen]),
            np.array([each.tokens_out for each in self.seen]),
            np.full(len(sent), -1),
            float(sent[-1] - sent[0]),
        )


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


def _beside(case: str, parts: Sequence[Part]) -> list[machine.Row]:
    """All parts of a rate together, beside the simulation of the same requests."""
    real: list[Figures] = []
    told: list[Figures] = []
    for part in parts:
        load = part.load
        sent = part.seen[0].sent
        first, last = (np.array([each.chunks[at] for each in part.seen]) - sent for at in (0, -1))
        real.append(Figures(load, first, last))
        told.append(Figures(load, *answered(load, part.times, 1, _BATCHING)))
    rows = [machine.Row("machine", version("freehold"), case, "requests", _requests(parts))]
    for metric, measured in _figures(real).items():
        simulated = _figures(told)[metric]
        for system, value in (("machine", measured), ("simulated", simulated)):
            rows.append(machine.Row(system, version("freehold"), case, metric, value))
        ratio = simulated / measured
        rows.append(
            machine.Row("freehold", version("freehold"), case, f"{metric}, simulated/real", ratio)
        )
    return rows


def _requests(parts: Sequence[Part]) -> float:
    return float(sum(len(part.seen) for part in parts))


@dataclass(frozen=True, slots=True)
class Figures:
    """When first and last tokens came, since the first request was sent."""

    load: Load
    first: NDArray[np.float64]
    last: NDArray[np.float64]


def _figures(parts: Sequence[Figures]) -> dict[str, float]:
    ttft = np.concatenate([each.first - each.load.at_s for each in parts]) * 1000
    tpot = np.concatenate([(e.last - e.first) / (e.load.answer - 1) for e in parts]) * 1000
    tokens = sum(int(each.load.answer.sum()) for each in parts)
    return {
        "p95 TTFT, ms": float(np.percentile(ttft, 95)),
        "p50 TTFT, ms": float(np.percentile(ttft, 50)),
        "p95 TPOT, ms": float(np.percentile(tpot, 95)),
        "p50 TPOT, ms": float(np.percentile(tpot, 50)),
        "tokens/s": tokens / sum(float(each.last.max()) for each in parts),
    }


if __name__ == "__main__":
    main()
