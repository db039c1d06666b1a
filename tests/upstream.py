"""An upstream elsewhere, for tests: what it says is bytes of the test's own choice."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freehold.config.schema import UpstreamModel, UpstreamSettings

KEY = "sk-canary-of-the-upstream"


@dataclass
class Asked:
    """One request that the upstream got."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][0]["content"])

    async def say(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()


Answer = Callable[[Asked], Awaitable[None]]


@dataclass
class Upstream:
    url: str
    answer: Answer
    seen: list[Asked] = field(default_factory=list)
    gone: int = 0  # connections that ended while an answer was made
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (asked := await _read(reader, writer)) is not None:
                self.seen.append(asked)
                await self._answer_while_wanted(asked, reader)
        except ConnectionError:
            self.gone += 1
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_while_wanted(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        """Raises `ConnectionResetError` when the other side goes in the middle."""
        answering = asyncio.ensure_future(self.answer(asked))
        ended = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait([answering, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ConnectionResetError
            answering.result()
        finally:
            for task in (answering, ended):
                task.cancel()
            await asyncio.gather(answering, ended, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first.split()[1], headers, json.loads(content or b"{}"), writer)


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[Upstream]:
    found = Upstream("", answer)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await found.serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**22)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def settings(found: Upstream, folder: Path, **fields: Any) -> UpstreamSettings:
    """How a gateway is told of it; its alias is `far`."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "upstream.key"
    key.write_text(KEY)
    return UpstreamSettings(
        name="far",
        base_url=f"{found.url}/v1",
        api_key_file=str(key),
        models=(UpstreamModel(alias="far", upstream_name="far-1"),),
        **fields,
    )


# what an upstream says


def status(code: int, body: Any = None, **headers: str) -> bytes:
    content = json.dumps(body or {"error": {"message": "no"}}).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/1.1 {code} X\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n{lines}\r\n"
    ).encode() + content


def whole(text: str, tokens: int = 3) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    return status(
        200, {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}
    )


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def piece(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def token(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return piece(b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n")


def end(tokens: int) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    last = {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [json.dumps(last), json.dumps({"id": "x", "choices": [], "usage": usage}), "[DONE]"]
    return piece(b"".join(b"data: %b\n\n" % event.encode() for event in events)) + LAST


def zeros(size: int) -> bytes:
    """So many zeros, small as they travel."""
    return gzip.compress(bytes(size), 9)
