"""The thread that computes, on a tiny model: who leaves costs one step at most and leaves
nothing behind, and who has to make room for others says what it would have said alone."""

import argparse
import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from freehold.core.engine import COMPLETIONS
from freehold.engines.openvino.blocks import BlockPool
from freehold.engines.openvino.generation import Generation, Made
from freehold.engines.openvino.model import Model
from freehold.engines.openvino.request import Request
from freehold.engines.openvino.runner import BLOCK
from freehold.engines.openvino.scheduler import Limits, Scheduler, Step
from tests.engines.tiny import FOLDER, adapter_files

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TINY = FOLDER / "qwen3"
_CONTEXT, _STREAMS = 256, 4
_BLOCKS = 12  # of the four requests that run together at most, each may need eight
_ADAPTERS = {path.name: adapter_files(path) for path in sorted((_TINY / "adapters").iterdir())}
_NO_END = {"0": -100, "2": -100}


class _Watched(Scheduler):
    """It notes who was in each step."""

    def __init__(self, blocks: BlockPool) -> None:
        super().__init__(blocks, Limits(max_running=_STREAMS))
        self.planned: list[set[str]] = []

    def plan(self, now_s: float) -> Step | None:
        step = super().plan(now_s)
        if step is not None:
            self.planned.append({item.sequence.id for item in step.items})
        return step


class _Engine:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._pool = BlockPool(_BLOCKS, BLOCK)
        self.scheduler = _Watched(self._pool)
        loop = asyncio.get_running_loop()
        self._generation = Generation(model.runner, self.scheduler, model.slots, loop)
        self._generation.start()

    def admit(self, prompt: str, tokens: int, **fields: Any) -> Request:
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "logit_bias": _NO_END}
        return self._model.admit(COMPLETIONS, body | fields)

    async def answer(self, asked: Request, most: int | None = None) -> list[int]:
        """Its tokens; with `most`, it leaves after so many."""
        made: asyncio.Queue[Made] = asyncio.Queue()
        self._generation.add(asked.job(made.put_nowait))
        tokens: list[int] = []
        while len(tokens) != most:
            one = await made.get()
            asked.take(one)
            tokens.append(one.drawn.token)
            if one.reason is not None:
                break
        self._generation.abort(asked.sequence.id)
        self._model.release(asked)
        return tokens

    async def end(self) -> None:
        self._generation.end()
        await asyncio.to_thread(self._generation.join)
        self.scheduler.check()
        assert (self.scheduler.running, self.scheduler.waiting) == (0, 0)
        assert self._pool.available == _BLOCKS


@pytest.fixture(scope="module")
def model() -> Model:
    files = {p.name: p for p in _TINY.iterdir() if p.is_file() and p.suffix != ".gguf"}
    options = argparse.Namespace(
        digest="sha256:" + "7" * 64, context=_CONTEXT, streams=_STREAMS, weights="float32",
        cache=None, threads=1, kv_cache="u8", kv_cache_bytes=2**20, adapter_bytes=2**20,
        max_rank=16, template_digest=None,
    )  # fmt: skip
    made = Model(options, files)
    assert made.runner.blocks >= _BLOCKS
    assert not made.change_adapters(list(_ADAPTERS.values()), ())
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def engine(model: Model) -> AsyncIterator[_Engine]:
    made = _Engine(model)
    yield made
    await made.end()


def _prompt(chance: random.Random, length: int) -> str:
    return "".join(chance.choices("abcdefgh ", k=length))


async def test_who_leaves_at_any_point_is_in_one_step_more_at_most(engine: _Engine) -> None:
    chance = random.Random(3)
    prompt = _prompt(chance, 20)
    alone = await engine.answer(engine.admit(prompt, 200))
    staying = asyncio.create_task(engine.answer(engine.admit(prompt, 200)))
    planned = engine.scheduler.planned
    points = []

    async def leave() -> None:
        adapter = chance.choice([None, *(each.digest for each in _ADAPTERS.values())])
        fields = {"adapter": adapter, "cache_salt": chance.choice(["", "a", "b"])}
        asked = engine.admit(_prompt(chance, chance.randrange(1, 150)), 100, **fields)
        got = await engine.answer(asked, most=chance.choice([0, 0, 1, 2, chance.randrange(3, 40)]))
        left = len(planned)  # the step after may have been under way
        while len(planned) < left + 4 and not staying.done():
            await asyncio.sleep(0)
        assert not any(asked.sequence.id in step for step in planned[left + 1 :])
        points.append(len(got))

    while not staying.done():
        await asyncio.gather(*(leave() for _ in range(_STREAMS + 1)))
    assert await staying == alone
    assert len(points) > 20
    assert {0, 1, 2} < set(points)


@pytest.mark.parametrize("salt", ["", "a"])
async def test_who_makes_room_for_want_of_memory_says_what_it_would_have_said_alone(
    engine: _Engine, salt: str
) -> None:
    """Together they would need almost three times the blocks that there are."""
    chance = random.Random(4)
    digests = [each.digest for each in _ADAPTERS.values()]
    bodies = [
        (_prompt(chance, 40), 200, {"adapter": adapter, "cache_salt": salt and f"{salt}{number}"})
        for number, adapter in enumerate([None, digests[0], None, digests[-1]])
    ]
    alone = []
    for prompt, tokens, fields in bodies:
        alone.append(await engine.answer(engine.admit(prompt, tokens, **fields)))
    asked = [engine.admit(prompt, tokens, **fields) for prompt, tokens, fields in bodies]
    assert await asyncio.gather(*map(engine.answer, asked)) == alone
    assert {len(tokens) for tokens in alone} == {200}
    assert len({tuple(tokens) for tokens in alone}) == len(alone)
    assert sum(each.sequence.admissions for each in asked) > len(asked), "somebody made room"


async def test_who_needs_all_the_memory_there_is_gets_it_after_a_crowd_has_gone(
    engine: _Engine,
) -> None:
    chance = random.Random(5)
    crowd = [engine.admit(_prompt(chance, 100), 100, cache_salt="a") for _ in range(12)]
    await asyncio.gather(*(engine.answer(asked, most=number) for number, asked in enumerate(crowd)))
    assert len(await engine.answer(engine.admit(_prompt(chance, 100), 150))) == 150
