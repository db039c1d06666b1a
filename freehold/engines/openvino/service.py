"""What the engine's process answers on its socket."""

import asyncio
from collections.abc import AsyncIterator
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
        response = web.StreamResponse(headers=_STREAM)
        is_begun = False
        async for chunk in self._chunks(asked):
            if not is_begun:  # not before there is something: the engine may still refuse
                await response.prepare(request)
                is_begun = True
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _whole(self, asked: Request) -> web.Response:
        chunks = [chunk async for chunk in self._chunks(asked)]
        return _json(asked.whole(chunks))

    async def _chunks(self, asked: Request) -> AsyncIterator[dict[str, Any]]:
        """An answer's chunks, the usage last."""
        made: asyncio.Queue[Made] = asyncio.Queue()
        self._generation.add(asked.job(made.put_nowait))
        while not asked.answer.reason:
            one = await made.get()
            chunk = asked.take(one)
            if asked.answer.reason and not one.reason:  # a stop sequence ended it
                self._generation.abort(asked.sequence.id)
            if chunk is not None:
                yield chunk
        yield asked.usage()


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
