"""Clients that read slowly or not at all cost little, and only themselves."""

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.config.schema import LimitSettings
from freehold.core.errors import Code
from freehold.serve import connection, wire
from tests.apart import Apart, apart
from tests.harness import Running, asked, running

_SLOW = 300
_MOST_GROWTH_MB = 96  # some 200 KB a reader, and what a busy machine leaves to be collected


async def test_hundreds_of_slow_readers_cost_little_memory_and_are_cut(tmp_path: Path) -> None:
    limits = {"slow_client_s": 4}
    async with apart(tmp_path, streams=1024, limits=limits) as world, world.http() as client:
        await _neighbours(client, 20)
        before_mb = world.rss_mb
        enough = asyncio.Event()
        with contextlib.ExitStack() as stack:
            slow = [await _slow_reader(world, number, stack) for number in range(_SLOW)]
            drips = asyncio.create_task(_read_a_byte_each_second(slow[: _SLOW // 2]))
            peak = asyncio.create_task(_peak_mb(world, enough))
            await _neighbours(client, 20)
            rows = await world.settled(_SLOW + 40, within_s=60)
            drips.cancel()
        await _neighbours(client, 5)
        enough.set()
        outcomes = [row["outcome"] for row in rows]
        assert outcomes.count("client_too_slow") == _SLOW
        assert outcomes.count("ok") == 40
        cut = [row for row in rows if row["outcome"] == "client_too_slow"]
        assert all(row["tokens_in"] and 0 < row["tokens_out"] < 1000 for row in cut)
        assert await peak - before_mb < _MOST_GROWTH_MB


async def test_answers_of_any_size_that_nobody_reads_are_settled_and_let_go(
    tmp_path: Path,
) -> None:
    """Also those of which only the very end is left when the client stops reading."""
    limits = LimitSettings(slow_client_s=0.5)
    async with running(tmp_path, limits=limits) as world:
        await world.replica.ensure_ready(30)
        with contextlib.ExitStack() as stack:
            for number in range(100):
                body = asked(f"[[tokens {number * 3}]][[wide 500]] {number}", stream=True)
                await _connected(world.url, stack, _raw(world.key, body))
            rows = await world.settled(100)
            async with asyncio.timeout(30):
                while len(world.gateway.watch):
                    await asyncio.sleep(0.02)
        assert {row["outcome"] for row in rows} == {"ok", "client_too_slow"}
        assert (await world.chat("somebody else")).status_code == 200


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"])
@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp", b"POST / HTTP/1.1\r\nhost: local"])
async def test_headers_that_never_end_are_cut_also_on_a_connection_that_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "_HEADERS_S", 0.4)
    async with running(tmp_path, keep_alive_s=0.4) as world:
        with contextlib.ExitStack() as stack:
            client = await _connected(world.url, stack, before)
            loop = asyncio.get_running_loop()
            if before:
                assert b"200 OK" in await loop.sock_recv(client, 1000)
            await loop.sock_sendall(client, sent)
            async with asyncio.timeout(30):
                assert await _rest(client) == b""


async def test_a_body_that_never_comes_is_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_BODY_S", 0.4)
    async with running(tmp_path) as world:
        whole = _raw(world.key, asked("never"))
        for sent in (whole[: whole.index(b"\r\n\r\n") + 4], whole[:-5]):
            with contextlib.ExitStack() as stack:
                client = await _connected(world.url, stack, sent)
                async with asyncio.timeout(30):
                    answer = await asyncio.get_running_loop().sock_recv(client, 1000)
            assert b" 408 " in answer
            assert b"client_too_slow" in answer
        assert world.records() == []


async def test_a_crowd_is_turned_away_at_the_door_and_idle_connections_make_room(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_connections=4) as world:
        await world.replica.ensure_ready(30)
        busy = [asyncio.create_task(world.chat(f"[[slow 0.1]] {number}")) for number in range(4)]
        while (await _running(world)) < 4:
            await asyncio.sleep(0.01)
        async with world.http() as client:
            refused = await client.get("/healthz")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == Code.OVERLOADED
            assert {answer.status_code for answer in await asyncio.gather(*busy)} == {200}
            assert (await client.get("/healthz")).status_code == 200
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(12):  # each keeps its connection
                client = await stack.enter_async_context(world.http())
                assert (await client.get("/healthz")).status_code == 200
        await world.settled(4)


async def _running(world: Running) -> int:
    return int((await world.seen())["running"])


async def _neighbours(client: httpx2.AsyncClient, count: int) -> None:
    answers = await asyncio.gather(
        *(
            client.post("/v1/chat/completions", json=asked(f"neighbour {number}", stream=True))
            for number in range(count)
        )
    )
    assert all("[DONE]" in answer.text for answer in answers)


async def _slow_reader(world: Apart, number: int, stack: contextlib.ExitStack) -> socket.socket:
    prompt = f"[[tokens 4000]][[wide 1000]] slow reader {number}"
    return await _connected(world.url, stack, _raw(world.key, asked(prompt, stream=True)))


async def _connected(url: str, stack: contextlib.ExitStack, content: bytes) -> socket.socket:
    """A client that has sent `content` and of itself takes in very little."""
    loop = asyncio.get_running_loop()
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    host, port = url.removeprefix("http://").split(":")
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, content)
    return client


def _raw(key: str, body: dict[str, Any]) -> bytes:
    """A chat request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def _rest(client: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    whole = b""
    with contextlib.suppress(ConnectionResetError):
        while part := await asyncio.get_running_loop().sock_recv(client, 65_536):
            whole += part
    return whole


async def _read_a_byte_each_second(clients: list[socket.socket]) -> None:
    while True:
        await asyncio.sleep(1)
        for client in clients:
            try:
                client.recv(1)
            except (BlockingIOError, ConnectionResetError):
                continue


async def _peak_mb(world: Apart, enough: asyncio.Event) -> float:
    """The most memory that the gateway had until then."""
    peak = 0.0
    while not enough.is_set():
        peak = max(peak, world.rss_mb)
        await asyncio.sleep(0.05)
    return peak
