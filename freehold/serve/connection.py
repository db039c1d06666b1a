"""One client connection: uvicorn's, with what a gateway to slow engines adds.

Bounded headers, a bounded time to send them, a bounded number of connections, an
abrupt end for clients that do not read, and a call when the client is gone, so that
no request needs a task to watch.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.secure import certificates
from freehold.serve import errors

_MAX_HEADER_BYTES = 64 * 1024
_HEADERS_S = 30.0
_FIRST_WORD_S = 1.0
_WAITING_BYTES = 32 * 1024
_UNSENT_BYTES = 64 * 1024
_HEAD = tuple(f"HTTP/1.1 {digit}".encode() for digit in range(2, 6))  # 1xx are no responses


def _said(code: Code, message: str) -> bytes:
    return orjson.dumps(errors.body_of(UserError(code, message)))


_FULL = _said(Code.OVERLOADED, "Too many connections are open: try again.")
_TOO_LARGE = _said(
    Code.REQUEST_TOO_LARGE, f"The headers are larger than {_MAX_HEADER_BYTES:,} bytes: send less."
)
_NO_HTTP = _said(Code.INVALID_VALUE, "The request is not valid HTTP/1.1: correct it.")


class _Joining:
    """A transport on which the head of a response waits for what follows it: uvicorn writes
    the two apart, which are two calls of the system and two packets."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            return
        self._transport.write(data)

    def write_head(self) -> None:
        """What nothing follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.write_head()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    slow_client_s = 30.0
    most_connections = 4096
    _header_bytes = 0
    _in_headers = True
    _slow: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _unread = 0
    _idle_since = 0.0
    _gone: Callable[[], None] | None = None
    certificate: frozenset[str] = frozenset()  # the client's names, verified

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(_Joining(transport))  # type: ignore[arg-type]
        self.transport.set_write_buffer_limits(_WAITING_BYTES)
        spoken = self.transport.get_extra_info("ssl_object")
        shown = None if spoken is None else spoken.getpeercert(binary_form=True)
        if shown:  # only what was verified is asked for
            self.certificate = certificates.of_peer(shown)
        self._slow = self.loop.call_later(_HEADERS_S, self._end_slow_headers)
        self._idle_since = self.loop.time()
        if len(self.connections) > self.most_connections and not self._end_an_idle_one():
            self._answer(b"503 Service Unavailable\r\nretry-after: 1", _FULL)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if not self._in_headers:
            return
        if self._slow is None:  # a later request on this connection
            self._slow = self.loop.call_later(_HEADERS_S, self._end_slow_headers)
        if self._header_bytes > _MAX_HEADER_BYTES:
            self._answer(b"431 Request Header Fields Too Large", _TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        self._answer(b"400 Bad Request", _NO_HTTP)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self.scope["freehold.connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self.transport.write_head()  # type: ignore[attr-defined]
        super().on_response_complete()
        self._idle_since = self.loop.time()
        if self.transport.is_closing():
            self._expect_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._slow, self._stall):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        if self._gone is not None:
            self._gone()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Calls once when the client has closed; None forgets the earlier wish."""
        self._gone = call
        if call is not None and self.transport.is_closing():
            self.loop.call_soon(call)

    @property
    def has_whole_body(self) -> bool:
        """Whether nothing is waited for any more to read the request that runs."""
        return self.cycle is not None and not self.cycle.more_body

    def abort(self) -> None:
        """Ends the connection now, with whatever the client has not read yet."""
        self.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Between two requests, or silent since it came, and not being closed."""
        if self._header_bytes or self.transport.is_closing():
            return False
        if self.cycle is None:  # its first request may be on the way
            return self.loop.time() - self._idle_since > _FIRST_WORD_S
        return self.cycle.response_complete

    def _end_slow_headers(self) -> None:
        if self._in_headers:
            self.transport.abort()

    def _expect_reading(self) -> None:
        """Ends the connection of a client that does not read what is left for it. While
        somebody waits for its end, ending it is theirs: they know how to settle."""
        if self._stall is None:
            self._unread = self.transport.get_write_buffer_size()
            self._stall = self.loop.call_later(self.slow_client_s, self._look_at_reading)

    def _look_at_reading(self) -> None:
        self._stall = None
        unread = self.transport.get_write_buffer_size()
        if unread and unread >= self._unread and self._gone is None:
            self.transport.abort()
        elif unread:
            self._expect_reading()

    def _end_an_idle_one(self) -> bool:
        """Makes room by closing the connection that asks nothing for the longest time, if
        there is one."""
        idle = [
            other
            for other in self.connections
            if isinstance(other, Connection) and other is not self and other.is_idle
        ]
        if not idle:
            return False
        min(idle, key=lambda other: other._idle_since).transport.close()
        return True

    def _answer(self, status: bytes, body: bytes) -> None:
        """A last word outside of any request."""
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"x-freehold-request-id: %b\r\nconnection: close\r\n\r\n%b"
            % (status, len(body), new_id("req").encode(), body)
        )
        self.transport.close()


def limited(slow_client_s: float, most_connections: int) -> type[Connection]:
    """The protocol for uvicorn with the limits of one gateway."""
    limits = {"slow_client_s": slow_client_s, "most_connections": most_connections}
    return type("LimitedConnection", (Connection,), limits)


def bound_unsent(listener: socket.socket) -> None:
    """Has the system hold little for clients that read slowly: left to itself it takes
    4 MB for each of them, and a stream that fits in there looks as if it were read."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def of(scope: Any) -> Connection | None:
    """The connection of a request; None under a server that is not ours (tests
    that call the application directly)."""
    found: Connection | None = scope.get("freehold.connection")
    return found
