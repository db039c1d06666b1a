"""What the engine's process answers on its socket."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from freehold.core.engine import CHAT, COMPLETIONS, AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.engines.adapter_http import UNKNOWN_ADAPTER
from freehold.engines.openvino.generation import Generation, Made
from freehold.engines.openvino.model import Model
from freehold.engines.openvino.request import Request

_MOST_BODY_BYTES = 64 * 1024 * 1024
_STREAM = {"content-type": "text/event-stream"}


class Service:
    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop) -> None:
        self._model = model
        self._generation = Generation(model.runner, model.scheduler, model.slots, loop)
        self._generation.start()

    def end(self) -> None:
        self._generation.end()
        self._generation.join()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MOST_BODY_BYTES)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/count", self._count)
        app.router.add_post("/v1/adapters", self._adapters)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        return _json({"object": "list", "data": [{"id": self._model.digest}]})

    async def _count(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        try:
            read = await asyncio.to_thread(self._model.prompt, body.pop("endpoint"), body)
        except UserError as error:
            return _refusal(error)
        return _json({"tokens": len(read.tokens)})

    async def _adapters(self, request: web.Request) -> web.Response:
        told = orjson.loads(await request.read())
        add = [
            AdapterFiles(each["digest"], Path(each["config"]), Path(each["weights"]))
            for each in told["add"]
        ]
        refused = await asyncio.to_thread(self._model.change_adapters, add, told["drop"])
        return _json({"refused": refused})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, CHAT)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, COMPLETIONS)

    async def _answer(self, request: web.Request, endpoint: str) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        try:
            asked = await asyncio.to_thread(self._model.admit, endpoint, body)
        except UserError as error:
            return _refusal(error)
        try:
            if body.get("stream"):
                return await self._stream(request, asked)
            return await self._whole(asked)
        finally:
            self._generation.abort(asked.sequence.id)
            self._model.release(asked)

    async def _stream(self, request: web.Request, asked: Request) -> web.StreamResponse:
        stream = _Stream(request, asked)
        self._generation.add(asked.job(stream.take))
        response = web.StreamResponse(headers=_STREAM)
        await stream.first  # the engine may still fail before there is anything to say
        await response.prepare(request)
        stream.open()
        await stream.end
        await response.write_eof()
        return response

    async def _whole(self, asked: Request) -> web.Response:
        """Read from the same chunks as a streamed answer."""
        chunks: list[dict[str, Any]] = []
        end = asyncio.get_running_loop().create_future()

        def take(made: Made) -> None:
            if end.done():
                return
            try:
                chunk = asked.take(made)
            except UserError as error:
                end.set_exception(error)
                return
            if chunk is not None:
                chunks.append(chunk)
            if asked.answer.reason:
                end.set_result(None)

        self._generation.add(asked.job(take))
        await end
        return _json(asked.whole([*chunks, asked.usage()]))


class _Stream:
    """Writes each token's chunk as soon as the loop hears of it. With many streams on the
    cores that compute, a task and a queue for each token would cost more than the chunk."""

    def __init__(self, request: web.Request, asked: Request) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.end: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._asked = asked
        self._waiting: list[bytes] | None = []  # until the response's head is out

    def take(self, made: Made) -> None:
        if self.end.done():
            return  # a stop sequence ended it before this token
        try:
            chunk = self._asked.take(made)
        except UserError as error:
            self._fail(error)
            return
        events = [] if chunk is None else [chunk]
        if self._asked.answer.reason:
            events.append(self._asked.usage())
        for event in events:
            self._write(b"data: " + orjson.dumps(event) + b"\n\n")
        if self._asked.answer.reason:
            self._write(b"data: [DONE]\n\n")
            self.end.set_result(None)
        if events and not self.first.done():
            self.first.set_result(None)

    def open(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._write(b"".join(waiting))

    def _write(self, data: bytes) -> None:
        """One chunk of HTTP's chunked encoding, as the response's head announces it."""
        if self._waiting is not None:
            self._waiting.append(data)
            return
        transport = self._request.transport
        if transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _fail(self, error: UserError) -> None:
        self.end.set_exception(error)
        if not self.first.done():
            self.first.set_exception(error)
            self.end.exception()  # told by the first


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def _refusal(error: UserError) -> web.Response:
    """Codes and numbers only; the gateway says the rest."""
    told: dict[str, Any] = {"code": error.code.value, "param": error.param}
    status = 400
    if error.code is Code.NOT_FOUND:
        told, status = {"code": UNKNOWN_ADAPTER}, 404
    elif error.code is Code.OVERLOADED:
        status = 503
    elif error.code is Code.CONTEXT_LENGTH_EXCEEDED:
        told = {"code": "context_length_exceeded"}
    return _json({"error": told}, status)
