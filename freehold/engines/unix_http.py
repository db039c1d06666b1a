"""HTTP/1.1 to an engine process on its unix socket, one connection a request.

An engine makes a chunk every few milliseconds and wants all cores meanwhile, so what is
spent on a chunk here is taken from it: a general client costs half as much again. llama.cpp
closes a connection after each stream though it announces keep-alive, so none is kept.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httptools

_MAX_HEADER_BYTES = 16 * 1024
_CONNECT_S = 10.0
_LENGTHS = frozenset({"content-length", "transfer-encoding"})
_SWITCHED = HTTPStatus.SWITCHING_PROTOCOLS


class BrokenAnswer(ValueError):
    """The engine ended too early, or what it sent is no HTTP."""


class Response(asyncio.Protocol):
    """One answer while it arrives. `read_ahead` bounds the bytes that wait here for a
    reader; `close` ends the connection, and with it the engine's work."""

    def __init__(self, read_ahead: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._read_ahead = read_ahead
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._head_bytes = self._trailer_bytes = 0
        self._is_paused = self._has_head = self._is_whole = False
        self._broken: BrokenAnswer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def content(self) -> "Response":
        """Where `read` is, as of the other client's answers."""
        return self

    async def head(self) -> None:
        """Returns when status and headers are known. Raises `BrokenAnswer`."""
        while not self._has_head:
            await self._wait()

    async def read(self, most: int) -> bytes:
        """What has come, a byte at least and `most` of them; nothing at the end. Raises
        `BrokenAnswer`."""
        while not self._parts:
            if self._is_whole:
                return b""
            await self._wait()
        found = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if len(found) > most:
            self._parts.append(found[most:])
            found = found[:most]
        self._waiting_bytes -= len(found)
        if self._is_paused and self._waiting_bytes < self._read_ahead and self._transport:
            self._is_paused = False
            self._transport.resume_reading()
        return found

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    release = close  # no connection is kept

    async def _wait(self) -> None:
        if self._broken is not None:
            raise BrokenAnswer(str(self._broken))
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, why: str) -> None:
        self._broken = self._broken or BrokenAnswer(why)
        self.close()
        self._wake()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._break("no HTTP")
            return
        if not self._has_head and self._head_bytes > _MAX_HEADER_BYTES:
            self._break("endless headers")
        elif self._waiting_bytes >= self._read_ahead and not self._is_paused:
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._has_head and _LENGTHS.isdisjoint(self.headers):
            self._is_whole = self._broken is None  # its end is the connection's
        if not self._is_whole:
            self._broken = self._broken or BrokenAnswer("an early end")
        self._wake()

    # the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:  # a trailer, of which nothing is read and no memory kept
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > _MAX_HEADER_BYTES:
                self._break("endless trailers")
            return
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.headers.get("content-encoding", "identity") != "identity":
            self._break("an encoding that nobody asked for")
        else:
            self._has_head = self.status >= HTTPStatus.OK or self.status == _SWITCHED

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_whole = True
            self.close()
        else:  # only informational: the answer follows
            self.headers.clear()


async def request(
    socket_path: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    content: bytes | None,
    read_ahead: int,
) -> Response:
    """The answer once its headers are there. Raises `OSError` (`TimeoutError` among
    them) when nobody listens, `BrokenAnswer` for anything that is no HTTP answer."""
    lines = [f"{method} {path} HTTP/1.1", "host: engine", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(content or b'')}", "", ""]
    async with asyncio.timeout(_CONNECT_S):
        transport, response = await asyncio.get_running_loop().create_unix_connection(
            lambda: Response(read_ahead), socket_path
        )
    try:
        transport.write("\r\n".join(lines).encode("latin-1") + (content or b""))
        await response.head()
    except BaseException:
        response.close()
        raise
    return response
