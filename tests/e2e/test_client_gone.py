"""Clients that leave in the middle, with the real engine: it stops at once, the next
client is served, and what was made until then is billed."""

import asyncio
import contextlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.installation import Installation, share

_MODEL = "smollm2-135m-instruct"
_MOST = 400  # tokens that an answer may have
_SLACK = 30  # tokens that may be made until the engine notices


def _body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": _MODEL, "messages": [{"role": "user", "content": prompt}], **fields}


async def _leave_after(client: httpx2.AsyncClient, tokens: int) -> int:
    """How many tokens of a stream came until its client left; it has all 400, greedily."""
    body = _body("Tell a very long story.", stream=True, max_tokens=_MOST, temperature=0)
    got = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        async for line in reply.aiter_lines():
            got += '"content":"' in line
            if got >= tokens:
                break
    return got


async def _leave_while_it_runs(client: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    while True:
        pools = (await client.get("/admin/v1/status")).json()["pools"]
        if pools[0]["replicas"][0]["in_flight"]:
            break
    await asyncio.sleep(0.05)
    request.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await request


@pytest.mark.slow
async def test_the_real_engine_stops_for_clients_that_leave_at_any_point(
    tmp_path: Path, stored: Path, begin: Callable[..., Installation]
) -> None:
    share(stored, tmp_path)
    one_place = {"FREEHOLD_ENGINES__LLAMA_CPP__STREAMS": "1"}
    gateway = begin(tmp_path, "--engine", "llama_cpp", variables=one_place)
    (log,) = (tmp_path / "logs").glob("engine-*.log")

    def worked() -> list[int]:
        """Tokens read and made, of each request that the engine has ended."""
        return [
            int(found)
            for found in re.findall(r"stop processing: n_tokens = (\d+)", log.read_text())
        ]

    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:

        async def next_is_served() -> int:
            """The work that was spent on the one before, on an engine with one place."""
            answer = await client.post("/v1/chat/completions", json=_body("Hi", max_tokens=1))
            assert answer.status_code == 200
            return worked()[-2]

        chooser = random.Random(5)
        points = [1, 2, *(chooser.randrange(3, 60) for _ in range(6))]
        got = []
        for point in points:
            got.append(await _leave_after(client, point))
            assert await next_is_served() < 40 + got[-1] + _SLACK
        for body, most in (
            (_body("Tell a very long story.", max_tokens=_MOST, temperature=0), 40 + _MOST // 2),
            (_body("word " * 3500, max_tokens=_MOST), 3000),
        ):
            await _leave_while_it_runs(client, body)
            assert await next_is_served() < most
        rows = (await client.get("/admin/v1/requests")).json()["data"][::-1]
    gone = [row for row in rows if row["outcome"] == "client_gone"]
    assert len(gone) == len(points) + 2
    assert [row["outcome"] for row in rows] == ["client_gone", "ok"] * len(gone)
    for row, tokens in zip(gone, got, strict=False):
        assert row["tokens_in"] == 36
        assert tokens <= row["tokens_out"] <= tokens + _SLACK
    assert gone[-1]["tokens_in"] > 3500
    assert gone[-1]["tokens_out"] == 0
