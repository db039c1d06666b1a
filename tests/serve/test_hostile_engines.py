"""An engine or an upstream that answers with bytes of its own choice gets no memory, no
time and no word beyond its own requests."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import upstream as far
from tests.apart import Apart, apart
from tests.harness import asked
from tests.hostile import BEHAVIOURS, behave
from tests.upstream import Asked

_AT_ONCE = 4
_MOST_GROWTH_MB = 64
_LIMITS = {"first_token_s": 1.5, "next_token_s": 1.5, "queue_s": 30}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("far", id="an upstream", marks=pytest.mark.slow),
        pytest.param("fake-model", id="an engine"),
    ],
)
async def test_no_answer_however_bad_costs_memory_or_holds_up_others(
    tmp_path: Path, model: str
) -> None:
    async with far.upstream(behave) as upstream:
        options: dict[str, Any] = {"limits": _LIMITS, "others": ["neighbour"], "hostile": True}
        options["upstreams"] = [far.settings(upstream, tmp_path).model_dump()]
        async with apart(tmp_path, **options) as world, world.http() as client:
            assert await _neighbour(client)
            for kind in BEHAVIOURS:
                over = asyncio.Event()
                growth = asyncio.create_task(_growth_mb(world, over))
                answers = await asyncio.gather(
                    _neighbour(client),
                    *(_ask(client, model, f"{kind} #{number}") for number in range(_AT_ONCE)),
                )
                over.set()
                assert all(answers), kind
                assert await growth < _MOST_GROWTH_MB, kind
            assert await _neighbour(client)
            rows = await world.settled(len(BEHAVIOURS) * (_AT_ONCE + 1) + 2)
    outcomes = [row["outcome"] for row in rows if row["alias"] == model]
    assert len(outcomes) == len(BEHAVIOURS) * _AT_ONCE
    assert set(outcomes) <= {"engine_failed", "engine_timeout"}
    assert {row["outcome"] for row in rows if row["alias"] != model} == {"ok"}


async def test_what_follows_a_good_answer_is_nobodys(tmp_path: Path) -> None:
    """Another answer, or what is no HTTP and has no end, after one that was complete."""

    async def talkative(asked: Asked) -> None:
        await asked.say(far.STREAM + far.token(f"for {asked.prompt}") + far.end(1))
        if "more" in asked.prompt:
            await asked.say(far.STREAM + far.token("for nobody") + far.end(1))
        while "endless" in asked.prompt:
            await asked.say(b"x" * 65_536)

    async with far.upstream(talkative) as upstream:
        options = {"upstreams": [far.settings(upstream, tmp_path).model_dump()]}
        async with apart(tmp_path, **options) as world, world.http() as client:
            for number in range(5):
                for kind in ("plain", "more", "endless", "plain"):
                    body = asked(f"{kind} {number}", model="far", stream=True)
                    text = (await client.post("/v1/chat/completions", json=body)).text
                    if kind == "endless" and "engine_failed" in text:
                        continue  # what is no HTTP may spoil what came with it
                    assert f'"for {kind} {number}"' in text
                    assert text.count("for ") == text.count("[DONE]") == 1
            await world.settled(20)


async def _ask(client: httpx2.AsyncClient, model: str, prompt: str) -> bool:
    """Whether the answer is plainly a failure, without a word of the other side's."""
    streams = prompt[-1] in "02"
    body = asked(prompt, model=model, stream=streams)
    answer = await client.post("/v1/chat/completions", json=body)
    is_refused = answer.status_code in (502, 504)
    is_broken = answer.status_code == 200 and streams and '"error":' in answer.text
    return (is_refused or is_broken) and "[DONE]" not in answer.text and "xxxx" not in answer.text


async def _neighbour(client: httpx2.AsyncClient) -> bool:
    body = asked("a neighbour", model="neighbour", stream=True)
    return "[DONE]" in (await client.post("/v1/chat/completions", json=body)).text


async def _growth_mb(world: Apart, over: asyncio.Event) -> float:
    """By how much its memory grew at most until then."""
    before = peak = world.rss_mb
    while not over.is_set():
        peak = max(peak, world.rss_mb)
        await asyncio.sleep(0.02)
    return peak - before
