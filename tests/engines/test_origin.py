"""How an upstream is reached: kept connections, TLS, the company's proxy, large bodies."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from freehold.core.engine import CHAT, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.engines.openai_http import OpenAIHttp
from freehold.secure.authority import Authority

_ANSWER = b'{"choices": []}'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_GOOD = _HEAD + b"content-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)


class Listener:
    """Serves what connects, and ends with its connections."""

    port = 0

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.serve(reader, writer)
        finally:
            await _ended(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


async def _ended(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


class Server(Listener):
    """Answers every request alike, and remembers what it was sent."""

    def __init__(self, answer: bytes = _GOOD) -> None:
        super().__init__()
        self.answer = answer
        self.sizes: list[int] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            self.heads.append(head)
            self.sizes.append(len(await reader.readexactly(length)))
            writer.write(self.answer)
            await writer.drain()


class Impatient(Listener):
    """Refuses before it has read the body, and reads none of it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")
        await asyncio.sleep(60)


class Proxy(Listener):
    """An HTTP proxy: leads `CONNECT` on, and asks for what it is told whole."""

    def __init__(self, refusal: bytes = b"") -> None:
        super().__init__()
        self.refusal = refusal

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if self.refusal:
            writer.write(self.refusal)
            await asyncio.sleep(60)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _lead_on(target, b"", reader, writer)
        else:
            await _lead_on(target.split(b"/")[2], head, reader, writer)


async def _lead_on(
    to: bytes, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    host, _, port = to.decode().rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    far_writer.write(first)

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    try:
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    finally:
        await _ended(far_writer)


@contextlib.asynccontextmanager
async def _client(url: str, **options: Any) -> AsyncIterator[OpenAIHttp]:
    client = OpenAIHttp(
        url, who="The upstream u", is_upstream=True, credential=Secret("sk-mine"), **options
    )
    try:
        yield client
    finally:
        await client.close()


def _call(size: int = 1) -> EngineCall:
    return EngineCall(CHAT, "m", {"messages": [{"role": "user", "content": "x" * size}]}, "req_1")


def _secured(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side, and that of who trusts it."""
    authority = Authority(folder)
    issued = authority.server(["127.0.0.1"])
    (folder / "server.pem").write_bytes(issued.certificate + issued.key)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(folder / "server.pem")
    return serving, ssl.create_default_context(cafile=str(authority.certificate_file))


async def test_one_connection_serves_requests_after_each_other() -> None:
    server = Server()
    async with server.listening(), _client(f"http://127.0.0.1:{server.port}/v1") as client:
        for _ in range(3):
            assert await client.whole(_call()) == orjson.loads(_ANSWER)
        await asyncio.gather(*(client.whole(_call()) for _ in range(3)))
    assert len(server.heads) == 6
    assert server.connections <= 3
    assert server.heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer sk-mine\r\n" in server.heads[0]


@pytest.mark.parametrize(
    "answer",
    [
        _HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\n{}",
        _HEAD + b"content-length: 2\r\n\r\n{}" + _GOOD,
        _HEAD + b"content-length: 2\r\n\r\n{}stray",
    ],
    ids=["that ends", "with another after it", "with more than it says"],
)
async def test_a_connection_is_not_used_again_after_an_answer(answer: bytes) -> None:
    server = Server(answer)
    async with server.listening(), _client(f"http://127.0.0.1:{server.port}/v1") as client:
        for _ in range(2):
            with contextlib.suppress(UserError):
                assert await client.whole(_call()) == {}
    assert server.connections == 2


async def test_a_body_of_many_megabytes_arrives_whole_and_others_go_on() -> None:
    server, size = Server(), 24 * 2**20
    async with server.listening(), _client(f"http://127.0.0.1:{server.port}/v1") as client:
        large = asyncio.create_task(client.whole(_call(size)))
        await client.whole(_call())
        assert await large == orjson.loads(_ANSWER)
    assert max(server.sizes) > size


async def test_a_body_that_is_refused_before_it_is_sent_is_not_sent_on() -> None:
    server = Impatient()
    async with server.listening(), _client(f"http://127.0.0.1:{server.port}/v1") as client:
        with pytest.raises(UserError) as refused:
            await client.whole(_call(64 * 2**20))
    assert refused.value.code is Code.INVALID_VALUE


async def test_an_upstream_is_believed_by_its_certificate_alone(tmp_path: Path) -> None:
    serving, trusting = _secured(tmp_path)
    server = Server()
    async with server.listening(serving):
        url = f"https://127.0.0.1:{server.port}/v1"
        async with _client(url, trust=trusting) as client:
            for _ in range(2):
                assert await client.whole(_call()) == orjson.loads(_ANSWER)
        assert server.connections == 1
        async with _client(url) as client:  # nobody vouches for it here
            with pytest.raises(UserError) as refused:
                await client.whole(_call())
        async with _client(url.replace("127.0.0.1", "localhost"), trust=trusting) as client:
            with pytest.raises(UserError) as misnamed:
                await client.whole(_call())
    for each in (refused, misnamed):
        assert each.value.code is Code.ENGINE_UNAVAILABLE
        assert "network.ca_file" in each.value.message
    assert len(server.heads) == 2


async def test_a_proxy_leads_to_an_upstream_and_learns_nothing_of_it(tmp_path: Path) -> None:
    serving, trusting = _secured(tmp_path)
    server, proxy = Server(), Proxy()
    async with server.listening(serving), proxy.listening():
        url = f"https://127.0.0.1:{server.port}/v1"
        via = f"http://me:p%40ss@127.0.0.1:{proxy.port}"
        async with _client(url, trust=trusting, proxy=via) as client:
            for _ in range(2):
                assert await client.whole(_call()) == orjson.loads(_ANSWER)
        async with _client(url, proxy=via) as client:
            with pytest.raises(UserError):
                await client.whole(_call())
    first = proxy.heads[0]
    assert first.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % server.port)
    assert b"proxy-authorization: Basic bWU6cEBzcw==\r\n" in first
    assert b"sk-mine" not in b"".join(proxy.heads)
    assert b"proxy-authorization" not in b"".join(server.heads)
    assert len(server.heads) == 2


async def test_a_proxy_asks_upstreams_without_tls_itself() -> None:
    server, proxy = Server(), Proxy()
    async with server.listening(), proxy.listening():
        url = f"http://127.0.0.1:{server.port}/v1"
        async with _client(url, proxy=f"127.0.0.1:{proxy.port}") as client:
            assert await client.whole(_call()) == orjson.loads(_ANSWER)
    assert proxy.heads[0].startswith(f"POST {url}/chat/completions HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "refusal",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", b"SSH-2.0\r\n"],
    ids=["that refuses", "that is none"],
)
async def test_a_proxy_that_leads_nowhere_is_told_as_such(tmp_path: Path, refusal: bytes) -> None:
    proxy = Proxy(refusal)
    async with proxy.listening():
        via = f"http://127.0.0.1:{proxy.port}"
        async with _client("https://nowhere.invalid/v1", proxy=via) as client:
            with pytest.raises(UserError) as refused:
                await client.whole(_call())
    assert refused.value.code is Code.ENGINE_UNAVAILABLE


def test_a_proxy_of_another_kind_is_refused_at_the_start() -> None:
    with pytest.raises(UserError) as refused:
        OpenAIHttp("https://example.com/v1", who="The upstream u", proxy="socks5://127.0.0.1:1080")
    assert refused.value.code is Code.CONFIG_INVALID
    assert "HTTPS_PROXY" in refused.value.message
