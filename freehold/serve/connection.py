"""One client connection: uvicorn's, with what a gateway to slow engines adds.

Bounded headers, a bounded time to send them, an abrupt end for clients that do not
read, and a call when the client is gone, so that no request needs a task to watch.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEADER_BYTES = 64 * 1024
_HEADERS_S = 30.0


class Connection(HttpToolsProtocol):
    _header_bytes = 0
    _in_headers = True
    _slow: asyncio.TimerHandle | None = None
    _gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._slow = self.loop.call_later(_HEADERS_S, self._end_slow_headers)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > _MAX_HEADER_BYTES:
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"content-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()

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

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slow is not None:
            self._slow.cancel()
        super().connection_lost(exc)
        if self._gone is not None:
            self._gone()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Calls once when the client has closed; None forgets the earlier wish."""
        self._gone = call
        if call is not None and self.transport.is_closing():
            self.loop.call_soon(call)

    def abort(self) -> None:
        """Ends the connection now, with whatever the client has not read yet."""
        self.transport.abort()

    def _end_slow_headers(self) -> None:
        if self._in_headers:
            self.transport.abort()


def of(scope: Any) -> Connection | None:
    """The connection of a request; None under a server that is not ours (tests
    that call the application directly)."""
    found: Connection | None = scope.get("freehold.connection")
    return found
