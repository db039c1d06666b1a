"""HTTP/1.1 on one connection, as the gateway speaks it to engines and upstreams.

An engine makes a chunk every few milliseconds and wants all cores meanwhile, so what is
spent on a chunk here is taken from it; before an upstream it is the gateway's own rate. A
general client costs several times as much. One request at a time is on a connection, and
what the other side sends is bounded before it is understood.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools

_MAX_HEADER_BYTES = 16 * 1024
_AT_ONCE_BYTES = 1024 * 1024
_PART_BYTES = 256 * 1024
_LENGTHS = frozenset({"content-length", "transfer-encoding"})
_SWITCHED = HTTPStatus.SWITCHING_PROTOCOLS


class BrokenAnswer(ValueError):
    """The other side ended too early, or what it sent is no HTTP."""


class Response:
    """One answer while it arrives. `read_ahead` bounds the bytes that wait here for a
    reader; `close` ends the connection, and with it the other side's work, unless the
    answer is whole."""

    def __init__(self, connection: "Connection", read_ahead: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_head = self.is_whole = False
        self.is_last = False  # nothing may be asked on this connection afterwards
        self._connection = connection
        self._read_ahead = read_ahead
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._head_bytes = self._trailer_bytes = 0
        self._broken: BrokenAnswer | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")

    async def head(self) -> None:
        """Returns when status and headers are known. Raises `BrokenAnswer`."""
        while not self.has_head:
            await self.wait()

    async def read(self, most: int) -> bytes:
        """What has come, a byte at least and `most` of them; nothing at the end. Raises
        `BrokenAnswer`."""
        while not self._parts:
            if self.is_whole:
                return b""
            await self.wait()
        found = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if len(found) > most:
            self._parts.append(found[most:])
            found = found[:most]
        self._waiting_bytes -= len(found)
        if not self.is_whole and self._waiting_bytes < self._read_ahead:
            self._connection.go_on_reading()
        return found

    def close(self) -> None:
        if not self.is_whole:
            self._connection.abort()

    async def wait(self) -> None:
        """Until something comes, or there is room to send. Raises `BrokenAnswer`."""
        if self._broken is not None:
            raise BrokenAnswer(str(self._broken))
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # the connection's side

    def feed(self, data: bytes) -> None:
        if not self.has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._break("no HTTP")
            return
        if not self.has_head and self._head_bytes > _MAX_HEADER_BYTES:
            self._break("endless headers")
        elif not self.is_whole and self._waiting_bytes >= self._read_ahead:
            self._connection.stop_reading()
        self.wake()

    def end(self, exc: Exception | None) -> None:
        """The connection is lost: which may be how the answer ends."""
        if exc is None and self.has_head and _LENGTHS.isdisjoint(self.headers):
            self.is_whole = self._broken is None
        if not self.is_whole:
            self._broken = self._broken or BrokenAnswer("an early end")
        self.wake()

    def let_go(self) -> None:
        """Nothing more is fed. Parser and answer name each other: only Python's search for
        cycles would find them, after a thousand requests."""
        self._parser = None

    def _break(self, why: str) -> None:
        self._broken = self._broken or BrokenAnswer(why)
        self._connection.abort()
        self.wake()

    # the parser's side

    def on_message_begin(self) -> None:
        self.is_last |= self.is_whole  # another answer, which nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_whole:
            return
        if self.has_head:  # a trailer, of which nothing is read and no memory kept
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > _MAX_HEADER_BYTES:
                self._break("endless trailers")
            return
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.is_whole:
            return
        self.status = self._parser.get_status_code()
        if self.headers.get("content-encoding", "identity") != "identity":
            self._break("an encoding that nobody asked for")
        else:
            self.has_head = self.status >= HTTPStatus.OK or self.status == _SWITCHED

    def on_body(self, body: bytes) -> None:
        if not self.is_whole:
            self._parts.append(body)
            self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_last |= not self._parser.should_keep_alive()
            self.is_whole = True
        else:  # only informational: the answer follows
            self.headers.clear()


class Connection(asyncio.Protocol):
    """`when_free` is called when another request may follow, `when_lost` at the end."""

    def __init__(
        self,
        read_ahead: int,
        when_free: "Callable[[Connection], None] | None" = None,
        when_lost: "Callable[[Connection], None] | None" = None,
    ) -> None:
        self.transport: asyncio.Transport
        self.loop: asyncio.AbstractEventLoop  # kept: asking for it is a call of the system
        self.free_since = 0.0
        self._read_ahead = read_ahead
        self._when_free = when_free
        self._when_lost = when_lost
        self._answer: Response | None = None
        self._is_sending = self._is_full = self._is_paused = self._is_to_lead_on = False

    @property
    def is_open(self) -> bool:
        return not self.transport.is_closing()

    async def ask(
        self, head: bytes, content: bytes = b"", *, is_to_lead_on: bool = False
    ) -> Response:
        """The answer once its headers are there; with `is_to_lead_on` nothing but those
        belongs to it, and what follows is said by somebody else. Raises `BrokenAnswer`."""
        answer = self._answer = Response(self, self._read_ahead)
        self._is_to_lead_on = is_to_lead_on
        try:
            if len(content) <= _AT_ONCE_BYTES:
                self.transport.write(head + content)
            else:
                await self._send(answer, head, content)
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    async def _send(self, answer: Response, head: bytes, content: bytes) -> None:
        """In parts: at once it would hold up the event loop. Ends when it is answered."""
        self._is_sending = True
        self.transport.write(head)
        for at in range(0, len(content), _PART_BYTES):
            self.transport.write(content[at : at + _PART_BYTES])
            while self._is_full and not answer.has_head:
                await answer.wait()
            if answer.has_head:  # before it was asked whole: a refusal
                return
            await asyncio.sleep(0)
        self._is_sending = False

    def abort(self) -> None:
        self.transport.abort()

    def stop_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def go_on_reading(self) -> None:
        if self._is_paused and self.is_open:
            self._is_paused = False
            self.transport.resume_reading()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked: the next request would take it for its own
            self.abort()
            return
        answer.feed(data)
        if self._is_to_lead_on:
            if answer.has_head:
                self._let_go(answer)
        elif answer.is_whole:
            self._let_go(answer)
            if answer.is_last or self._is_sending or self._when_free is None:
                self.abort()
            else:
                self.go_on_reading()
                self._when_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.end(exc)
            self._let_go(self._answer)
        if self._when_lost is not None:
            self._when_lost(self)

    def _let_go(self, answer: Response) -> None:
        answer.let_go()
        self._answer = None

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._answer is not None:
            self._answer.wake()
