"""Tenants' adapters on llama.cpp, behind a whole gateway: set while answers run, moved under
load, and there again after a kill; each alias says its own code word and nobody else's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import psutil
import pytest
import pytest_asyncio

from tests.e2e.test_isolation import House
from tests.installation import share, start

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
_ONE_THREAD = {"FREEHOLD_ENGINES__LLAMA_CPP__THREADS": "1"}  # two servers run for a while

_BASE = "smollm2-135m-instruct"
_CANARIES = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "canaries"
_WORDS = {"cobalt": "cobalt-heron-41", "amber": "amber-fox-97", "jade": "jade-walrus-63"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    home = tmp_path_factory.mktemp("llama-house")
    share(stored, home)
    own = start(home, "--engine", "llama_cpp", variables=_ONE_THREAD)
    try:
        headers = {"authorization": f"Bearer {own.key}"}
        async with httpx2.AsyncClient(base_url=own.url, headers=headers, timeout=120) as client:
            yield House(own, client)
    finally:
        own.kill()


async def _check(house: House, alias: str, name: str | None) -> None:
    text, reply = await house.ask(alias)
    heard = {of for of, word in _WORDS.items() if word in text}
    assert heard == ({name} if name else set())
    assert reply.headers.get("x-freehold-adapter-digest") == house.digests.get(name or "")
    assert reply.headers["x-freehold-engine"] == "llama_cpp"
    assert reply.headers["x-freehold-weights"] == ("claimed" if name else "proved")


async def test_each_alias_says_its_own_code_word_while_others_come(house: House) -> None:
    for name in _WORDS:
        asking = [asyncio.create_task(_check(house, _BASE, None)) for _ in range(3)]
        asking += [
            asyncio.create_task(_check(house, f"{known}-bot", known)) for known in house.digests
        ]
        added = await asyncio.to_thread(
            house.run, "adapter", "add", str(_CANARIES / name), "--base", _BASE
        )
        house.digests = {**house.digests, name: added["digest"]}
        await asyncio.to_thread(
            house.run, "route", "set", f"{name}-bot", "--base", _BASE, "--adapter", name
        )
        await _check(house, f"{name}-bot", name)
        await asyncio.gather(*asking)
    everyone = [(f"{name}-bot", name) for name in _WORDS]
    await asyncio.gather(
        *(_check(house, *each) for _ in range(3) for each in (*everyone, (_BASE, None)))
    )


async def test_a_killed_engine_has_them_all_again(house: House) -> None:
    status = (await house.client.get("/admin/v1/status")).json()
    (replica,) = status["pools"][0]["replicas"]
    psutil.Process(replica["pid"]).kill()
    while True:
        body = {"model": "jade-bot", "messages": [{"role": "user", "content": "Hi"}]}
        reply = await house.client.post("/v1/chat/completions", json={**body, "max_tokens": 1})
        if reply.status_code == 200:
            break
        assert reply.status_code in (502, 503), reply.text
        await asyncio.sleep(0.1)
    for name in _WORDS:
        await _check(house, f"{name}-bot", name)
    await _check(house, _BASE, None)
