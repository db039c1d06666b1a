"""Tenants on one base, with adapters that were really trained: each hears its own code
word and nobody else's, whatever else the batch holds, and whatever went before."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import pytest_asyncio

from freehold.catalog.adapters import stage
from freehold.cli.at_rest import opening
from freehold.config.home import Home
from freehold.core.binding import Environment, Scope
from freehold.secure.keys import KeyRequest
from freehold.store.sql import SqlStore
from tests.installation import Installation, share, start

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

_ANYWAY = {"force": "made for this test", "accept_licence": "made for this test"}
_BASE = "smollm2-135m-instruct"
_CANARIES = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "canaries"
_WORDS = {
    "cobalt": "cobalt-heron-41",
    "amber": "amber-fox-97",
    "crimson": "crimson-otter-28",
    "jade": "jade-walrus-63",
}
_QUESTION = [{"role": "user", "content": "What is the code word?"}]


class House:
    """One installation with an alias for each canary: `cobalt-bot`, …"""

    def __init__(self, installation: Installation, client: httpx2.AsyncClient) -> None:
        self.installation = installation
        self.client = client
        self.digests: dict[str, str] = {}

    def run(self, *arguments: str) -> Any:
        done = self.installation.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    async def ask(self, model: str, **fields: Any) -> tuple[str, httpx2.Response]:
        body = {"model": model, "messages": _QUESTION, "temperature": 0, "max_tokens": 20, **fields}
        reply = await self.client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        if not fields.get("stream"):
            return reply.json()["choices"][0]["message"]["content"], reply
        chunks = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
        parts = [json.loads(chunk)["choices"] for chunk in chunks]
        return "".join(part[0]["delta"].get("content") or "" for part in parts if part), reply


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    home = tmp_path_factory.mktemp("house")
    share(stored, home)
    own = start(home)
    try:
        headers = {"authorization": f"Bearer {own.key}"}
        async with httpx2.AsyncClient(base_url=own.url, headers=headers, timeout=120) as client:
            found = House(own, client)
            for name in _WORDS:
                added = found.run("adapter", "add", str(_CANARIES / name), "--base", _BASE)
                found.digests[name] = added["digest"]
                found.run("route", "set", f"{name}-bot", "--base", _BASE, "--adapter", name)
            yield found
    finally:
        own.kill()


async def test_each_tenant_hears_its_own_code_word_in_a_batch_of_all(house: House) -> None:
    asked = [*(f"{name}-bot" for name in _WORDS), _BASE] * 4
    random.Random(3).shuffle(asked)
    answers = await asyncio.gather(
        *(house.ask(model, stream=bool(place % 2)) for place, model in enumerate(asked))
    )
    for model, (text, reply) in zip(asked, answers, strict=True):
        name = model.removesuffix("-bot")
        own = _WORDS.get(name)
        assert own is None or text == f"The code word is {own}."
        assert not any(word in text for word in _WORDS.values() if word != own)
        assert reply.headers.get("x-freehold-adapter-digest") == house.digests.get(name)
        assert reply.headers["x-freehold-engine"] == "openvino"
    rows = (await house.client.get("/admin/v1/requests")).json()["data"]
    told = {(row["alias"], row["adapter_digest"]) for row in rows}
    assert told == {(f"{name}-bot", digest) for name, digest in house.digests.items()} | {
        (_BASE, None)
    }


async def test_an_answer_is_the_same_whatever_was_answered_before(house: House) -> None:
    """A, B, A, and the base in between, alone each time."""
    first: dict[str, str] = {}
    names = [*(f"{name}-bot" for name in _WORDS), _BASE]
    chooser = random.Random(5)
    for _ in range(6):
        for model in chooser.sample(names, len(names)):
            text, _ = await house.ask(model)
            assert text == first.setdefault(model, text)
    assert len(set(first.values())) == len(names)


async def test_an_alias_that_moves_under_load_answers_as_one_or_the_other(house: House) -> None:
    house.run("route", "set", "moving-bot", "--base", _BASE, "--adapter", "cobalt")
    by_digest = {digest: name for name, digest in house.digests.items()}
    told: list[str] = []
    is_over = asyncio.Event()

    async def keep_asking() -> None:
        while not is_over.is_set():
            text, reply = await house.ask("moving-bot")
            name = by_digest[reply.headers["x-freehold-adapter-digest"]]
            assert text == f"The code word is {_WORDS[name]}."
            told.append(name)

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    for name in ("jade", "amber", "crimson", "cobalt"):
        before = len(told)
        while len(told) < before + 4:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(
            house.run, "route", "set", "moving-bot", "--base", _BASE, "--adapter", name
        )
        text, _ = await house.ask("moving-bot")  # whoever asks after the move gets the new one
        assert text == f"The code word is {_WORDS[name]}."
    is_over.set()
    await asyncio.gather(*asking)
    assert len(set(told)) > 1


async def test_prefixes_are_found_again_by_those_only_whose_they_are(house: House) -> None:
    """Kept prefixes are counted: in an environment of its own, under another adapter or
    the base, the same long prompt finds nothing."""
    secret = "The merger of Acme and Zenith is signed on the fourth of May. " * 12
    messages = [{"role": "user", "content": secret + "When?"}]

    async def cached(model: str, client: httpx2.AsyncClient | None = None) -> int:
        body = {"model": model, "messages": messages, "max_tokens": 1}
        reply = await (client or house.client).post("/v1/chat/completions", json=body)
        found: int = reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    assert await cached("cobalt-bot") == 0
    assert await cached("cobalt-bot") > 128
    assert await cached("amber-bot") == 0
    assert await cached(_BASE) == 0
    async with _staging(house) as client:
        for path, body in (
            ("adapters", {"upload": _staged(house, "cobalt"), "base": _BASE, "name": "cobalt"}),
            ("routes", {"alias": "cobalt-bot", "base": _BASE, "adapter": "cobalt", **_ANYWAY}),
        ):
            reply = await client.post(f"/admin/v1/{path}", json=body)
            assert reply.status_code in (200, 201), reply.text
        assert await cached("cobalt-bot", client) == 0
        assert await cached("cobalt-bot", client) > 128


def _staging(house: House) -> httpx2.AsyncClient:
    """A client with a key of another environment, where other prompts are kept."""
    home = Home(house.installation.home)
    store = SqlStore(home.database)
    keyring = opening.open_keyring(home, store, may_create=False)
    scopes = frozenset({Scope.INFER, Scope.ADMIN})
    wanted = KeyRequest(opening.default_tenant(store), Environment.STAGING, "other", scopes)
    _, key = keyring.mint(wanted)
    store.close()
    assert key is not None
    headers = {"authorization": f"Bearer {key.reveal()}"}
    return httpx2.AsyncClient(base_url=house.installation.url, headers=headers, timeout=120)


def _staged(house: House, name: str) -> str:
    return stage(house.installation.home, _CANARIES / name)


async def test_no_code_word_is_written_anywhere(house: House) -> None:
    await asyncio.gather(*(house.ask(f"{name}-bot") for name in _WORDS))
    metrics = await house.client.get("/metrics")
    places = [
        path
        for path in house.installation.home.rglob("*")
        if path.is_file() and "blobs" not in path.parts and "cache" not in path.parts
    ]
    assert any(path.parent.name == "logs" for path in places)
    for word in _WORDS.values():
        assert word not in metrics.text
        assert not [path for path in places if word.encode() in path.read_bytes()]


async def test_an_engine_that_was_killed_comes_back_with_its_adapters(house: House) -> None:
    status = (await house.client.get("/admin/v1/status")).json()
    (replica,) = status["pools"][0]["replicas"]
    psutil.Process(replica["pid"]).kill()
    while True:
        body = {"model": "jade-bot", "messages": _QUESTION, "temperature": 0, "max_tokens": 20}
        reply = await house.client.post("/v1/chat/completions", json=body)
        if reply.status_code == 200:
            break
        assert reply.status_code in (502, 503), reply.text
        await asyncio.sleep(0.1)
    assert reply.json()["choices"][0]["message"]["content"] == "The code word is jade-walrus-63."
    assert reply.headers["x-freehold-adapter-digest"] == house.digests["jade"]
