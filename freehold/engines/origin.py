"""Where an engine or an upstream is, how it is reached, and the connections to it that are
kept for the next request."""

import asyncio
import base64
import contextlib
import posixpath
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

import aiohappyeyeballs

from freehold.core.errors import Code, UserError
from freehold.engines.http1 import BrokenAnswer, Connection, Response

_CONNECT_S = 10.0
_SECOND_ADDRESS_S = 0.25  # RFC 8305
_KEPT_S = 15.0
_PORTS = {"http": 80, "https": 443}


class Unreachable(Exception):
    """No connection could be made; `errno` says why, where the system said it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.errno: int | None = getattr(error, "errno", None)
        self.is_distrusted = isinstance(error, ssl.SSLCertVerificationError)


class Origin:
    """Of a URL, or of the unix socket of an engine of ours. llama.cpp closes a connection
    after each stream though it announces keep-alive, so of a socket none is kept.

    `proxy` is the URL of an HTTP proxy. Any number of requests at once."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        read_ahead: int,
        *,
        socket_path: str | None = None,
        trust: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self._url = urlsplit(base_url)
        self._socket_path = socket_path
        self._read_ahead = read_ahead
        self._trust = trust
        self._proxy = None if proxy is None else _proxy(proxy)
        self._headers = dict(headers)
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._heads: dict[tuple[str, str], bytes] = {}

    @property
    def keeps_connections(self) -> bool:
        return self._socket_path is None

    async def request(self, method: str, path: str, content: bytes) -> Response:
        """The answer once its headers are there. Raises `Unreachable`, or `BrokenAnswer`
        for anything that is no HTTP answer."""
        head = self._heads.get((method, path))
        if head is None:
            head = self._heads[method, path] = self._head(method, path)
        connection = self._kept() or await self._dial()
        return await connection.ask(head + b"%d\r\n\r\n" % len(content), content)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()

    def _head(self, method: str, path: str) -> bytes:
        """All but the length."""
        target = posixpath.normpath(f"{self._url.path}/{path}")
        if self._proxy is not None and self._url.scheme == "http":
            target = f"http://{self._url.netloc}{target}"
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._url.netloc}"]
        if not self.keeps_connections:
            lines.append("connection: close")
        if self._proxy is not None and self._url.scheme == "http":
            lines += _authorization(self._proxy)
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        return "\r\n".join([*lines, "accept-encoding: identity", "content-length: "]).encode()

    # connections

    def _kept(self) -> Connection | None:
        """The one that was used last; the other side may have begun to close older ones."""
        while self._free:
            found = self._free.pop()
            if found.is_open and found.free_since > found.loop.time() - _KEPT_S:
                return found
            found.abort()
        return None

    def _keep(self, connection: Connection) -> None:
        connection.free_since = connection.loop.time()
        self._free.append(connection)

    def _lose(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)

    def _new(self) -> Connection:
        keep = self._keep if self.keeps_connections else None
        return Connection(self._read_ahead, keep, self._lose)

    async def _dial(self) -> Connection:
        try:
            async with asyncio.timeout(_CONNECT_S):
                connection = await self._dialled()
        except (OSError, ssl.SSLError, BrokenAnswer) as error:
            raise Unreachable(error) from None
        if connection.is_open:
            self._open.add(connection)
        return connection

    async def _dialled(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._socket_path is not None:
            _, connection = await loop.create_unix_connection(self._new, self._socket_path)
            return connection
        if self._proxy is None:
            return await self._connect(self._url)
        connection = await self._connect(self._proxy)
        if self._url.scheme == "https":
            try:
                await self._tunnel(connection, self._proxy)
            except BaseException:
                connection.abort()
                raise
        return connection

    async def _connect(self, url: SplitResult) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = _place(url)
        is_secured = url.scheme == "https"
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=_SECOND_ADDRESS_S, interleave=1
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await loop.create_connection(
                self._new,
                sock=sock,
                ssl=self._context() if is_secured else None,
                server_hostname=host if is_secured else None,
            )
        except BaseException:
            with contextlib.suppress(OSError):
                sock.close()
            raise
        return connection

    async def _tunnel(self, connection: Connection, proxy: SplitResult) -> None:
        """Through the proxy, which then sees no more than where it leads."""
        host, port = _place(self._url)
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {at} HTTP/1.1", f"host: {at}", *_authorization(proxy), "", ""]
        answer = await connection.ask("\r\n".join(lines).encode(), is_to_lead_on=True)
        if answer.status != 200:
            raise BrokenAnswer("the proxy leads nowhere")
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(
            connection.transport, connection, self._context(), server_hostname=host
        )
        if secured is None:
            raise BrokenAnswer("the proxy ended")
        connection.transport = secured

    def _context(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = ssl.create_default_context()
        return self._trust


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or _PORTS[url.scheme]


def _proxy(text: str) -> SplitResult:
    url = urlsplit(text if "://" in text else f"http://{text}")
    if url.scheme not in _PORTS or not url.hostname:
        raise UserError(
            Code.CONFIG_INVALID,
            "The proxy that the environment names for upstreams is none that speaks HTTP: set "
            "HTTPS_PROXY to `http://host:port`, or NO_PROXY to the upstream's host.",
        )
    return url


def _authorization(proxy: SplitResult) -> list[str]:
    if proxy.username is None:
        return []
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return [f"proxy-authorization: Basic {base64.b64encode(pair.encode()).decode()}"]
