"""Where the time of a decode step goes, beside what the machine could do at best.

`python bench/step_profile.py` runs the shared-base engine's own loop in this process at 32
streams, on the bare base and with 8 adapters mixed. The floors: reading every weight once
at the speed at which memory is read, and the runtime multiplying nothing but the same
matrices.
"""

import argparse
import asyncio
import itertools
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import engines
import machine
import models
import numpy as np
import openvino as ov
from machine import Row
from openvino import opset15 as op

from freehold.core.engine import COMPLETIONS
from freehold.engines.openvino import generation, runner, slots
from freehold.engines.openvino.adapters import Adapter, read_adapter
from freehold.engines.openvino.graph import _dense
from freehold.engines.openvino.model import Model
from freehold.engines.openvino.prepared import Prepared, prepare
from freehold.engines.openvino.runner import Options, Part, Runner
from freehold.engines.openvino.shape import SITES
from freehold.engines.openvino.slots import Slots

_STREAMS, _ADAPTERS, _START = 32, 8, 40
_STEPS = 60
_BUFFER_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Situation:
    """A batch of decoding streams; `adapters` one of each, in turns."""

    name: str
    adapters: Sequence[Adapter | None]

    def of(self, stream: int) -> Adapter | None:
        return self.adapters[stream % len(self.adapters)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lock", type=Path, action="append", default=[], help=machine.LOCK)
    parser.add_argument("--quick", action="store_true", help="few steps; nothing is kept")
    options = parser.parse_args()
    steps = 8 if options.quick else _STEPS
    model = models.small()
    prepared = _prepared(model)
    read = [
        read_adapter(lora.files(), model.shape, 64, "bf16")
        for lora in models.loras(model, _ADAPTERS)
    ]
    situations = [
        Situation(f"base@{_STREAMS}", [None]),
        Situation(f"mixed{_ADAPTERS}@{_STREAMS}", read),
    ]
    rows: list[Row] = []
    with machine.exclusive(options.lock):
        rows += _floors(prepared, steps)
        for situation in situations:
            rows += _graph(prepared, situation, steps)
            rows += _loop(model, situation, steps)
    if options.quick:
        machine.show(rows)
    else:
        machine.keep("step_profile", rows)


def _prepared(model: models.Model) -> Prepared:
    digest = engines.file_digest(model.source)
    return prepare(digest, model.files(), "int8", engines.CACHE)


# floors


def _floors(prepared: Prepared, steps: int) -> list[Row]:
    speed = _read_bytes_per_s()
    weights = sum(part.nbytes for m in prepared.matrices.values() for part in m.parts().values())
    factors = _ADAPTERS * sum(sum(s) for s in prepared.shape.linears().values())
    factors *= prepared.shape.layers * models.RANK * 2
    told = "machine", "floor"
    return [
        Row(*told, "reading memory", "GB/s", speed / 1e9),
        Row(*told, "weights, int8", "MB", weights / 1e6),
        Row(*told, "weights, int8", "ms to read", 1000 * weights / speed),
        Row(*told, f"{_ADAPTERS} adapters, bf16", "ms to read", 1000 * factors / speed),
        Row(*told, f"linears of {_STREAMS} rows", "ms to multiply", _linears_ms(prepared, steps)),
        Row(*told, f"{_ADAPTERS} adapters", "ms to multiply", _products_ms(prepared, steps)),
    ]


def _read_bytes_per_s() -> float:
    """All cores sum a piece each that no cache holds."""
    pieces = [np.ones(_BUFFER_BYTES // 8, np.int64) for _ in range(engines.THREADS)]
    best = float("inf")
    for _ in range(5):
        threads = [threading.Thread(target=piece.max) for piece in pieces]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - begun)
    return len(pieces) * _BUFFER_BYTES / best


def _linears_ms(prepared: Prepared, steps: int) -> float:
    """Only the products with the weights, as many and as large as in a step."""
    made: dict[int, Any] = {}
    results = []
    for matrix in prepared.matrices.values():
        inputs = matrix.shape[1]
        rows = made.setdefault(inputs, op.parameter([_STREAMS, inputs], ov.Type.f32))
        results.append(op.result(op.matmul(rows, _dense(matrix), False, True)))
    return _median_ms(ov.Model(results, list(made.values()), "linears"), steps)


def _products_ms(prepared: Prepared, steps: int) -> float:
    """Only the products with the factors of the adapters, whose slots share the rows."""
    rows, rank = _STREAMS // _ADAPTERS, models.RANK
    inputs: list[Any] = []
    results = []

    def given(*sizes: int) -> Any:
        inputs.append(op.parameter([_ADAPTERS, *sizes], ov.Type.bf16))
        return op.convert(inputs[-1], "f32")

    sizes = prepared.shape.linears()
    for _, (_, linears) in itertools.product(range(prepared.shape.layers), SITES):
        hidden = given(rows, sizes[linears[0]][0])
        low = op.matmul(hidden, given(sizes[linears[0]][0], len(linears) * rank), False, False)
        parts = op.split(low, op.constant(np.int64(2)), len(linears)).outputs()
        for linear, part in zip(linears, parts, strict=True):
            second = given(rank, sizes[linear][1])
            results.append(op.result(op.matmul(part, second, False, False)))
    return _median_ms(ov.Model(results, inputs, "products"), steps)


def _median_ms(model: ov.Model, steps: int) -> float:
    settings = runner._settings(Options(engines.THREADS))
    compiled = ov.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    for port in compiled.inputs:
        request.set_tensor(port, ov.Tensor(port.get_element_type(), port.get_shape()))
    return _timed(lambda: request.infer(), steps)


def _timed(work: Callable[[], object], steps: int) -> float:
    work()
    times = []
    for _ in range(steps):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


# the graph


def _graph(prepared: Prepared, situation: Situation, steps: int) -> list[Row]:
    """A step's time, and the shares of its operations (which are timed in other steps:
    looking at the clock takes time too)."""
    told = "freehold", "graph", situation.name
    whole = _timed(_stepper(prepared, situation), steps)
    given = runner._settings

    def counting(options: Options) -> dict[str, Any]:
        return {**given(options), "PERF_COUNT": True}

    with mock.patch.object(runner, "_settings", counting):
        step = _stepper(prepared, situation)
    found: dict[str, float] = defaultdict(float)
    for _ in range(steps):
        step()
        for info in step.__self__.request.get_profiling_info():  # type: ignore[attr-defined]
            found[_group(info)] += info.real_time.total_seconds() * 1000 / steps
    shares = sum(found.values())
    rows = [Row(*told, "step, ms", whole)]
    for name, took in sorted(found.items(), key=lambda each: -each[1]):
        rows.append(Row(*told, f"of it {name}, ms", took * whole / shares))
    return rows


class _Stepper:
    """The same decode step again and again."""

    def __init__(self, prepared: Prepared, situation: Situation) -> None:
        self._runner = Runner(prepared, Options(engines.THREADS), 64 * 2**20)
        self._slots = Slots(prepared.shape, "bf16", _STREAMS)
        placed = self._slots.arrange([situation.of(stream) for stream in range(_STREAMS)])
        self._runner.set_factors(placed.tensors)
        self._is_bare = placed.is_bare
        self.request = (self._is_bare and self._runner._plain) or self._runner._request
        self._parts = [
            Part([100 + stream], _START, (2 * stream, 2 * stream + 1), slot, True)
            for stream, slot in enumerate(placed.slots)
        ]

    def step(self) -> None:
        self._runner.step(self._parts, is_bare=self._is_bare)


def _stepper(prepared: Prepared, situation: Situation) -> Callable[[], None]:
    return _Stepper(prepared, situation).step


def _group(info: ov.ProfilingInfo) -> str:
    kind = info.node_type
    if kind.startswith("FullyConnected"):
        return "linears"
    if "PagedAttention" in kind:
        return "attention"
    if kind in ("MatMul", "Gather") or "lora" in info.node_name:
        return "adapters"
    return "the rest"


# the loop


def _loop(model: models.Model, situation: Situation, steps: int) -> list[Row]:
    """The engine's thread over the same streams: what it does between two steps."""
    return asyncio.run(_looped(model, situation, steps))


async def _looped(model: models.Model, situation: Situation, steps: int) -> list[Row]:
    loaded = Model(_options(model), model.files())
    loaded.change_adapters([lora.files() for lora in models.loras(model, _ADAPTERS)], [])
    loop = asyncio.get_running_loop()
    thread = generation.Generation(loaded.runner, loaded.scheduler, loaded.slots, loop)
    times: dict[str, list[float]] = {}
    with (
        _watched(generation, "sample", times),
        _watched(slots.Slots, "arrange", times),
        _watched(generation.Scheduler, "plan", times),
        _watched(generation.Scheduler, "advance", times),
        _watched(generation.Generation, "_compute", times),
        _watched(runner.Runner, "step", times),
        _watched(runner.Runner, "_inputs", times),
    ):
        thread.start()
        await _answers(loaded, thread, situation, steps)
        thread.end()
        thread.join()
    return _loop_rows(situation, {name: _middle_ms(found) for name, found in times.items()})


def _options(model: models.Model) -> argparse.Namespace:
    return argparse.Namespace(
        digest=engines.file_digest(model.source), context=engines.CONTEXT, template_digest=None,
        weights="int8", cache=engines.CACHE, threads=engines.THREADS, kv_cache="u8",
        kv_cache_bytes=256 * 2**20, streams=_STREAMS, adapter_bytes=2**30, max_rank=64,
    )  # fmt: skip


async def _answers(
    loaded: Model, thread: generation.Generation, situation: Situation, steps: int
) -> None:
    async def one(stream: int) -> None:
        adapter = situation.of(stream)
        body = {
            "prompt": f"Story {stream}. Once upon a time there was a ship", "max_tokens": steps,
            "temperature": 0, "logit_bias": {"0": -100, "2": -100},
            "adapter": adapter.digest if adapter else None,
        }  # fmt: skip
        asked = loaded.admit(COMPLETIONS, body)
        made: asyncio.Queue[generation.Made] = asyncio.Queue()
        thread.add(asked.job(made.put_nowait))
        while (await made.get()).reason is None:
            pass

    await asyncio.gather(*map(one, range(_STREAMS)))


@contextmanager
def _watched(owner: Any, name: str, times: dict[str, list[float]]) -> Iterator[None]:
    original = getattr(owner, name)
    found = times.setdefault(name, [])

    def watched(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return original(*given, **named)
        finally:
            found.append(time.perf_counter() - begun)

    with mock.patch.object(owner, name, watched):
        yield


def _middle_ms(found: Sequence[float]) -> float:
    """Of the steps in which all streams decode: not those in which they come or go."""
    return 1000 * statistics.median(found[len(found) // 4 : -len(found) // 8 or None])


def _loop_rows(situation: Situation, ms: dict[str, float]) -> list[Row]:
    told = "freehold", "loop", situation.name
    named = {
        "the runtime's step": ms["step"] - ms["_inputs"],
        "inputs of the step": ms["_inputs"],
        "sampling": ms["sample"],
        "planning": ms["plan"] + ms["advance"],
        "slots": ms["arrange"],
    }
    whole = ms["_compute"] + ms["plan"]
    named["the rest"] = whole - sum(named.values())
    rows = [Row(*told, "one turn, ms", whole)]
    rows += [Row(*told, f"of it {name}, ms", took) for name, took in named.items()]
    return rows


if __name__ == "__main__":
    main()
