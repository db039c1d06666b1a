"""What an engine writes down to join the contract suite: how it is started, and what
it cannot do. A test of something that an engine cannot do checks that this is so.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from freehold.core.engine import Capabilities, EngineCall
from freehold.core.errors import Code, UserError
from freehold.deploy.process import Process
from freehold.engines.base import Engine, EngineClient, LocalModel
from freehold.serve.protocol.assemble import Assembler
from tests.harness import card
from tests.installation import Installation

_WINDOW_S, _IDLE_CPU_S = 0.3, 0.1


class Promise(StrEnum):
    """What the contract asks for and not every engine can give."""

    IDENTITY = "it proves which weights it loaded"
    READS_FILE = "its weights come from the model's file"
    COUNT = "it counts a prompt's tokens"
    PROBE = "it can be asked for a token to see whether it lives"
    PROCESS = "it is a process of ours"
    REFUSES = "it refuses values that make no sense"
    FORM_AND_TOOLS = "it keeps to a form while the model may choose a tool"
    KEEPS_NOTHING = "it finds nothing of an earlier call that came without a salt"
    SAME_IN_ANY_BATCH = "an answer does not depend on the others that are computed with it"
    HELD_TEXT = "text that could have begun a stop sequence comes when the answer ends first"


@dataclass(frozen=True)
class Place:
    """What an entry may use: a home with a real model, an installation that serves it,
    which is started when one asks, and a folder."""

    home: Path
    installation: Callable[[], Installation]
    folder: Path

    @property
    def cache(self) -> Path:
        return self.home / "cache"


@dataclass
class Said:
    """An answer, put together from its chunks."""

    chunks: list[dict[str, Any]]

    @property
    def choices(self) -> list[dict[str, Any]]:
        assembler = Assembler()
        assembler.add(self.chunks)
        found: list[dict[str, Any]] = assembler.whole()["choices"]
        return found

    @property
    def text(self) -> str:
        return text_of(self.choices[0])

    @property
    def reason(self) -> str:
        return str(self.choices[0]["finish_reason"])

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [call["function"] for call in self.choices[0]["message"].get("tool_calls", ())]

    @property
    def usage(self) -> dict[str, Any]:
        (found,) = [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]
        return dict(found)


def text_of(choice: dict[str, Any]) -> str:
    return str(choice["text"] if "text" in choice else choice["message"]["content"] or "")


@dataclass
class Running:
    """An engine that serves."""

    client: EngineClient
    capabilities: Capabilities
    model: str
    process: psutil.Process  # where the tokens are made
    endless: dict[str, Any]  # a chat body whose answer takes many seconds
    loaded: LocalModel | None = None

    def call(self, endpoint: str, body: dict[str, Any]) -> EngineCall:
        return EngineCall(endpoint, self.model, body, "req_contract")

    async def ask(self, endpoint: str, **body: Any) -> Said:
        chunks: list[dict[str, Any]] = []
        async with self.client.stream(self.call(endpoint, body)) as answer:
            while (found := await answer.read()) is not None:
                chunks += found
        return Said(chunks)


class Entry:
    """One engine. `cannot` and `without_effect` say why beside what."""

    name: str
    start_s: float = 60
    cannot: Mapping[Promise, str] = {}
    without_effect: Mapping[str, str] = {}  # fields it takes, and that change nothing

    def serving(self, place: Place) -> AbstractAsyncContextManager[Running]:
        """The one that all tests share."""
        raise NotImplementedError

    def expendable(self, place: Place) -> AbstractAsyncContextManager[Running]:
        """One that a test may hang or kill."""
        raise NotImplementedError

    def nobody(self) -> EngineClient:
        """A client with nothing behind it."""
        raise NotImplementedError

    async def is_idle(self, running: Running) -> bool:
        """Whether the engine works on nothing, as its processor time says."""
        before = self.worked_s(running)
        await asyncio.sleep(_WINDOW_S)
        return self.worked_s(running) - before < _IDLE_CPU_S

    def worked_s(self, running: Running) -> float:
        """For how long it has had a processor, which others that want one change little."""
        times = running.process.cpu_times()
        return float(times.user + times.system)

    def own(self, number: int) -> tuple[dict[str, Any], str]:
        """A chat body and its whole answer, which no other number has."""
        schema = {
            "type": "object",
            "properties": {"number": {"const": number}},
            "required": ["number"],
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "own", "schema": schema}}
        messages = [{"role": "user", "content": f"Say {number}"}]
        return {"messages": messages, "response_format": form}, f'{{"number":{number}}}'


class LocalEntry(Entry):
    """An engine whose processes we start."""

    endless: Mapping[str, Any]

    def engine(self, cache: Path | None = None) -> Engine:
        """`cache` has what an earlier start made ready of the model."""
        raise NotImplementedError

    def model(self, place: Place) -> LocalModel:
        raise NotImplementedError

    def impostor(self, place: Place) -> tuple[Engine, LocalModel]:
        """A start that loads other weights than the card says."""
        raise NotImplementedError

    @asynccontextmanager
    async def serving(self, place: Place) -> AsyncIterator[Running]:
        engine, model = self.engine(place.cache), self.model(place)
        async with launched(engine, model, place.folder) as (client, pid):
            yield Running(
                client,
                engine.capabilities(model),
                model.card.digest,
                psutil.Process(pid),
                dict(self.endless),
                model,
            )

    expendable = serving

    def nobody(self) -> EngineClient:
        return self.engine().connect(LocalModel(card(), Path("/none")), "/nonexistent/engine.sock")


@asynccontextmanager
async def launched(
    engine: Engine, model: LocalModel, folder: Path
) -> AsyncIterator[tuple[EngineClient, int]]:
    """Started as a replica starts it, but never restarted."""
    with tempfile.TemporaryDirectory(prefix="freehold-") as sockets:
        socket = f"{sockets}/engine.sock"
        client = engine.connect(model, socket)
        async with started(engine, model, socket, folder, client.identity) as pid:
            try:
                yield client, pid
            finally:
                await client.close()


@asynccontextmanager
async def started(
    engine: Engine,
    model: LocalModel,
    socket: str,
    folder: Path,
    asked: Callable[[], Awaitable[object]],
) -> AsyncIterator[int]:
    """The process, once `asked` gets an answer of it."""
    spec, log = engine.launch(model, socket), folder / "engine.log"
    process = await Process.start(spec, log)
    try:
        async with asyncio.timeout(spec.ready_timeout_s):
            await until_it_answers(asked, lambda: process.has_ended)
        yield process.pid
    finally:
        await process.stop(5)


async def until_it_answers(
    asked: Callable[[], Awaitable[object]], has_ended: Callable[[], bool]
) -> None:
    while True:
        assert not has_ended(), "the engine ended while it started"
        try:
            await asked()
            return
        except UserError as error:
            if error.code is not Code.ENGINE_UNAVAILABLE:
                raise
        await asyncio.sleep(0.02)
