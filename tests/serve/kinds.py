"""The engines that faults are tried on: one that obeys a test, and one that computes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from freehold.catalog.store import ModelStore
from freehold.config.schema import OpenVinoSettings
from freehold.core.model import ModelFile
from freehold.engines.base import LocalModel
from freehold.engines.fake import tokens_for
from freehold.engines.openvino.engine import OpenVino
from tests.engines.tiny import tiny
from tests.harness import Running, asked, running

_Manager = AbstractAsyncContextManager[Running]
MODEL = "qwen3"
_WINDOW_S, _IDLE_CPU_S = 0.3, 0.1
_NO_END = {"0": -100, "2": -100}  # the tokens by which the tiny models end an answer


class Kind:
    """An engine, and how a test makes it take its time."""

    name: str
    long: int  # tokens that take a while even alone

    def running(self, folder: Path, **options: Any) -> _Manager:
        raise NotImplementedError

    def body(self, prompt: str, tokens: int = 16, **fields: Any) -> dict[str, Any]:
        """A chat request whose answer has so many tokens."""
        raise NotImplementedError

    async def whole(self, world: Running, prompt: str, tokens: int = 16) -> str:
        """The text of that answer, which no other prompt has."""
        raise NotImplementedError

    async def is_idle(self, world: Running) -> bool:
        raise NotImplementedError


class Fake(Kind):
    name = "fake"
    long = 60

    def running(self, folder: Path, **options: Any) -> _Manager:
        return running(folder, **options)

    def body(self, prompt: str, tokens: int = 16, **fields: Any) -> dict[str, Any]:
        return asked(_slow(prompt, tokens), **fields)

    async def whole(self, world: Running, prompt: str, tokens: int = 16) -> str:
        return "".join(tokens_for(_slow(prompt, tokens), tokens))

    async def is_idle(self, world: Running) -> bool:
        return not (await world.seen())["running"]


def _slow(prompt: str, tokens: int) -> str:
    return f"[[slow 0.02]][[tokens {tokens}]] {prompt}"


@dataclass
class Real(Kind):
    """The shared-base engine in full precision on a tiny model."""

    name = "openvino"
    long = 1000
    settings: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, folder: Path, **options: Any) -> AsyncIterator[Running]:
        folder.mkdir(parents=True, exist_ok=True)
        given = {"context_length": options.pop("context", 4096)}
        given |= {"streams": options.pop("streams", 16)}
        settings = OpenVinoSettings(
            threads=1, weights="float32", kv_cache_bytes=64 * 2**20, **given | self.settings
        )
        model = _stored(tiny(MODEL, folder).model, folder / "home")
        engine = OpenVino(settings, folder / "cache")
        async with running(folder / "home", engine=engine, model=model, **options) as world:
            await world.replica.ensure_ready(60)
            yield world

    def body(self, prompt: str, tokens: int = 16, **fields: Any) -> dict[str, Any]:
        fields = {"max_tokens": tokens, "temperature": 0, "logit_bias": _NO_END} | fields
        return asked(prompt, **fields)

    async def whole(self, world: Running, prompt: str, tokens: int = 16) -> str:
        async with world.http() as client:
            answer = await client.post("/v1/chat/completions", json=self.body(prompt, tokens))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    async def is_idle(self, world: Running) -> bool:
        process = psutil.Process(world.replica.pid)
        before = process.cpu_times()
        await asyncio.sleep(_WINDOW_S)
        after = process.cpu_times()
        return after.user + after.system - before.user - before.system < _IDLE_CPU_S


def _stored(model: LocalModel, home: Path) -> LocalModel:
    """It can be the base of adapters then."""
    card = replace(
        model.card, name="fake-model", files=(ModelFile("m.gguf", model.card.digest, 1),)
    )
    models = ModelStore(home)
    models.add(card)
    path = models.path(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.path.read_bytes())
    return LocalModel(card, path)


FAKE, REAL = Fake(), Real()
