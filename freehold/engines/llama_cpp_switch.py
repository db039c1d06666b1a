"""The gateway's client of a process whose server is replaced when adapters come.

A call runs to its end on the server that it began on. Which adapter an answer is under is
what the gateway asked of a server that had said it holds it; llama.cpp reports nothing of
it with an answer. So `adapter` in a chunk is a claim by configuration and no proof: it
shows that our own books agree, and it would not show a fault inside llama.cpp.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from freehold.core.engine import AdapterFiles, EngineCall
from freehold.core.errors import UserError
from freehold.engines import adapter_http
from freehold.engines.base import Answer, EngineClient
from freehold.engines.llama_cpp_servers import socket_of
from freehold.engines.openai_http import OpenAIHttp, failed


class ServerClient(EngineClient, Protocol):
    async def learn_adapters(self) -> Collection[str]:
        """Asks the server what it has loaded; from then on calls may be under these."""
        ...


@dataclass(slots=True, eq=False)
class _Server:
    number: int
    client: ServerClient
    loaded: Collection[str] = ()
    calls: int = 0
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)


class SwitchingClient:
    """The only client of its process: a second one would use servers that this closes."""

    def __init__(self, socket_path: str, connect: Callable[[str], ServerClient]) -> None:
        self._socket_path = socket_path
        self._connect = connect
        self._control = OpenAIHttp(
            "http://engine/v1", who="The engine", socket_path=f"{socket_path}.control"
        )
        self._server = _Server(0, connect(socket_path))
        self._replaced: _Server | None = None  # its calls have not all ended
        self._wanted: set[str] = set()
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def stream(self, call: EngineCall) -> AsyncIterator[Answer]:
        with self._used(call) as client:
            async with client.stream(call) as answer:
                yield answer

    async def whole(self, call: EngineCall) -> dict[str, Any]:
        with self._used(call) as client:
            return await client.whole(call)

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        with self._used(call) as client:
            return await client.count_prompt_tokens(call)

    async def identity(self) -> str | None:
        with self._held() as client:
            return await client.identity()

    async def probe(self) -> None:
        with self._held() as client:
            await client.probe()

    async def change_adapters(
        self, add: Sequence[AdapterFiles], drop: Collection[str]
    ) -> Mapping[str, str]:
        """A new server is started when no more than one runs, so that the weights are
        never in memory three times: until the calls of the one before have ended, it
        waits."""
        async with self._changing:
            self._wanted.difference_update(drop)
            asked = {each.digest for each in add}
            if self._replaced is not None and not asked <= set(self._server.loaded):
                await self._replaced.is_idle.wait()
            refused = await self._tell(add, drop)
            taken = asked - refused.keys()
            if not taken <= set(self._server.loaded):
                raise failed("The engine", "did not load the adapters that it took")
            self._wanted |= taken - set(drop)
            return refused

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in (self._server, self._replaced):
            if server is not None:
                await server.client.close()
        await self._control.close()

    @contextmanager
    def _used(self, call: EngineCall) -> Iterator[ServerClient]:
        if call.adapter is not None and call.adapter not in self._wanted:
            raise adapter_http.not_there()
        with self._held() as client:
            yield client

    @contextmanager
    def _held(self) -> Iterator[ServerClient]:
        server = self._server
        server.calls += 1
        try:
            yield server.client
        finally:
            server.calls -= 1
            if server is self._replaced and not server.calls:
                server.is_idle.set()

    async def _tell(self, add: Sequence[AdapterFiles], drop: Collection[str]) -> Mapping[str, str]:
        using = [self._server.number]
        if self._replaced is not None and not self._replaced.is_idle.is_set():
            using.append(self._replaced.number)
        told = {**adapter_http.told(add, drop), "using": using}
        answer = await self._control.post_json("adapters", told)
        number = answer.get("server")
        if not isinstance(number, int):
            raise failed("The engine", "did not say where it serves")
        if number != self._server.number:
            await self._switch(number)
        return adapter_http.refused(answer)

    async def _switch(self, number: int) -> None:
        """From its end on calls go to the new server, if that is what it should be."""
        client = self._connect(socket_of(self._socket_path, number))
        try:
            if await client.identity() != await self._server.client.identity():
                raise failed("The engine", "loaded other weights")
            loaded = await client.learn_adapters()
        except BaseException:
            await client.close()
            raise
        before, self._server = self._server, _Server(number, client, loaded)
        self._replaced = before
        if not before.calls:
            before.is_idle.set()
        task = asyncio.create_task(self._end(before))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, server: _Server) -> None:
        await server.is_idle.wait()
        async with self._changing:
            if self._replaced is server:
                self._replaced = None
            with suppress(UserError):  # the process is gone, or the next change ends it
                await self._tell((), ())
            await server.client.close()
