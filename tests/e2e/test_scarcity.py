"""Too few files, too little memory: the gateway turns away what it cannot take, does not
fall, and serves again as soon as there is room."""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.installation import Installation, stock_tiny

Begin = Callable[..., Installation]
_FAKE = ("--engine", "fake", "--model", "tiny")
_CROWD = 400


def _few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": prompt}], **fields}


def _client(gateway: Installation) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=gateway.url,
        headers={"authorization": f"Bearer {gateway.key}"},
        timeout=60,
        limits=httpx2.Limits(max_connections=_CROWD),
    )


async def _is_well(gateway: Installation) -> None:
    """It answers, and its engine has not been blamed."""
    async with asyncio.timeout(60), _client(gateway) as client:
        while True:
            try:
                if (await client.get("/healthz")).status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1)
        assert (await client.post("/v1/chat/completions", json=_body("well?"))).status_code == 200
        (pool,) = (await client.get("/admin/v1/status")).json()["pools"]
        assert pool["replicas"][0]["restarts"] == 0


async def _records(gateway: Installation) -> list[dict[str, Any]]:
    async with _client(gateway) as client:
        found = (await client.get("/admin/v1/requests", params={"limit": 1000})).json()["data"]
    assert all(row["settled_at_us"] for row in found)
    assert len({row["id"] for row in found}) == len(found)
    return list(found)


async def test_a_crowd_with_few_files_is_turned_away_and_nothing_falls(
    tmp_path: Path, begin: Begin
) -> None:
    stock_tiny(tmp_path)
    gateway = begin(tmp_path, *_FAKE, preexec_fn=_few_files)
    async with _client(gateway) as client:

        async def ask(number: int) -> str:
            prompt = f"[[slow 0.05]][[tokens 30]] one of many {number}"
            try:
                body = _body(prompt, stream=True)
                answer = await client.post("/v1/chat/completions", json=body)
            except httpx2.TransportError:
                return "refused"
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                return "refused"
            assert answer.status_code == 200
            assert answer.text.endswith("data: [DONE]\n\n")
            return "served"

        outcomes = Counter(await asyncio.gather(*(ask(number) for number in range(_CROWD))))
    assert outcomes["served"] >= 40
    assert outcomes["refused"] >= _CROWD - 96
    await _is_well(gateway)
    rows = await _records(gateway)
    assert sum(row["outcome"] == "ok" for row in rows) == outcomes["served"] + 1
    assert {row["outcome"] for row in rows} <= {"ok", "refused"}


async def test_hundreds_of_idle_connections_keep_nobody_out(tmp_path: Path, begin: Begin) -> None:
    """Each has asked once and stays; the longest idle make room for others."""
    stock_tiny(tmp_path)
    gateway = begin(tmp_path, *_FAKE, preexec_fn=_few_files)
    host, port = gateway.url.removeprefix("http://").split(":")
    writers = []
    for _ in range(_CROWD):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
    await _is_well(gateway)
    assert psutil.Process(gateway.process.pid).num_fds() < 200
    for writer in writers:
        writer.close()


async def test_hundreds_of_connections_that_say_nothing_keep_nobody_out(
    tmp_path: Path, begin: Begin
) -> None:
    stock_tiny(tmp_path)
    gateway = begin(tmp_path, *_FAKE, preexec_fn=_few_files)
    host, port = gateway.url.removeprefix("http://").split(":")
    pairs = [await asyncio.open_connection(host, int(port)) for _ in range(_CROWD)]
    await _is_well(gateway)
    for _, writer in pairs:
        writer.close()


@pytest.mark.parametrize("room", ["33554432", "1024"])
async def test_large_bodies_beyond_the_room_for_them_are_refused_and_small_ones_served(
    tmp_path: Path, begin: Begin, room: str
) -> None:
    stock_tiny(tmp_path)
    gateway = begin(tmp_path, *_FAKE, variables={"FREEHOLD_SERVER__MAX_BODIES_BYTES": room})
    process = psutil.Process(gateway.process.pid)
    most = process.memory_info().vms + 512 * 2**20
    resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
    async with _client(gateway) as client:

        async def ask(number: int) -> tuple[bool, int, str]:
            is_large = number % 3 > 0
            prompt = "a " * 3_000_000 if is_large else f"small {number}"
            answer = await client.post("/v1/chat/completions", json=_body(prompt))
            code = answer.json().get("error", {}).get("code", "")
            return is_large, answer.status_code, code

        answers = Counter(await asyncio.gather(*(ask(number) for number in range(90))))
        assert answers[False, 200, ""] == 30
        assert answers[True, 503, "overloaded"] >= 20
        large = {key: count for key, count in answers.items() if key[0]}
        assert set(large) <= {(True, 503, "overloaded"), (True, 400, "context_length_exceeded")}
        alone = await client.post("/v1/chat/completions", json=_body("a " * 3_000_000))
        assert alone.json()["error"]["code"] == "context_length_exceeded"
    await _is_well(gateway)
    assert sum(row["outcome"] == "ok" for row in await _records(gateway)) == 31
