"""SIGTERM: what has begun is finished, what is new is refused, then everything ends."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from freehold.store.ledger import recover
from freehold.store.sql import SqlStore
from tests.installation import Installation, stock_tiny

Begin = Callable[..., Installation]
_FAKE = ("--engine", "fake", "--model", "tiny")


def _body(prompt: str) -> dict[str, Any]:
    return {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": prompt}]}


def _client(gateway: Installation) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {gateway.key}"}
    return httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=60)


async def _running(client: httpx2.AsyncClient) -> int:
    status = (await client.get("/admin/v1/status")).json()
    return int(status["pools"][0]["replicas"][0]["in_flight"])


async def _ended(gateway: Installation) -> int:
    async with asyncio.timeout(60):
        while (code := gateway.process.poll()) is None:
            await asyncio.sleep(0.05)
    return code


def _outcomes(home: Path) -> list[str]:
    store = SqlStore(home / "freehold.db")
    recover(store, home / "journal")
    tenant_id = store.tenant_named("default")
    assert tenant_id is not None
    rows = store.records(tenant_id, 1000)
    store.close()
    assert all(row["settled_at_us"] for row in rows)
    return sorted(row["outcome"] for row in rows)


async def test_running_streams_end_well_and_new_requests_are_refused(
    tmp_path: Path, begin: Begin
) -> None:
    stock_tiny(tmp_path)
    gateway = begin(tmp_path, *_FAKE)
    engines = psutil.Process(gateway.process.pid).children()
    async with _client(gateway) as client:
        streams = [
            asyncio.create_task(
                client.post("/v1/chat/completions", json=_body(f"[[slow 0.15]] running {number}"))
            )
            for number in range(20)
        ]
        while await _running(client) < 20:
            await asyncio.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        while (await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.01)
        assert "draining" in (await client.get("/readyz")).text
        refused = await client.post("/v1/chat/completions", json=_body("too late"))
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert int(refused.headers["retry-after"]) >= 1
        answers = await asyncio.gather(*streams)
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert await _ended(gateway) == 0
    assert not psutil.wait_procs(engines, timeout=60)[1]
    assert _outcomes(tmp_path) == ["ok"] * 20
    assert not (tmp_path / "run" / "gateway.json").exists()


@pytest.mark.parametrize("signals", [1, 2])
async def test_streams_that_outlast_the_drain_end_with_an_error_and_are_billed_so_far(
    tmp_path: Path, begin: Begin, signals: int
) -> None:
    stock_tiny(tmp_path)
    drain_s = "0.5" if signals == 1 else "600"
    gateway = begin(tmp_path, *_FAKE, variables={"FREEHOLD_SERVER__DRAIN_S": drain_s})
    async with _client(gateway) as client:
        streams = [
            asyncio.create_task(
                client.post(
                    "/v1/chat/completions",
                    json=_body(f"[[slow 0.1]][[tokens 5000]] running {number}"),
                )
            )
            for number in range(5)
        ]
        while await _running(client) < 5:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        for _ in range(signals):
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        for answer in await asyncio.gather(*streams):
            assert '"code":"shutting_down"' in answer.text
            assert "[DONE]" not in answer.text
    assert await _ended(gateway) == 0
    assert _outcomes(tmp_path) == ["shutdown"] * 5
