"""A clock that is set while requests run: an hour or a day on, or back. Timers do not mind,
each request is settled once and recorded in its order, and what expires does so by the clock."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from freehold.config.schema import LimitSettings
from freehold.core.clock import SystemClock
from tests.harness import Running, asked, running
from tests.store.making import locked

_HOUR_US = 3600 * 1_000_000
_JUMPS = {"an hour on": 1, "an hour back": -1, "a day on": 24, "a day back": -24}

Jump = Callable[[int], None]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Sets the wall of every clock by so many hours."""

    def by(hours: int) -> None:
        def wall_us(_: SystemClock) -> int:
            return time.time_ns() // 1000 + hours * _HOUR_US

        monkeypatch.setattr(SystemClock, "wall_us", wall_us)

    return by


async def _streamed(world: Running, at_the_first: Callable[[], None]) -> str:
    body = asked("[[tokens 12]] [[slow 0.01]]", stream=True)
    said = b""
    async with world.http() as client, client.stream(
        "POST", "/v1/chat/completions", json=body
    ) as answer:  # fmt: skip
        assert answer.status_code == 200
        async for part in answer.aiter_bytes():
            if not said:
                at_the_first()
            said += part
    return said.decode()


@pytest.mark.parametrize("how", _JUMPS)
async def test_a_stream_goes_on_and_is_settled_once_whatever_the_clock_does(
    how: str, tmp_path: Path, jump: Jump
) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        said = await _streamed(world, lambda: jump(_JUMPS[how]))
        assert said.endswith("data: [DONE]\n\n")
        assert (await world.chat("after")).is_success
        jump(0)
        assert (await world.chat("and back")).is_success
        rows = await world.settled(3)
        for row in rows:
            assert row["outcome"] == "ok"
            assert 0 <= row["ttft_us"] <= row["duration_us"] < 60_000_000
        records = world.gateway.store.audit_records(world.tenant_id, "dev", 10)
        assert [each.number for each in records] == list(range(1, len(records) + 1))
        assert sum(b'"kind":"request"' in each.body for each in records) == 3


async def test_what_expires_does_so_by_the_clock_and_guesses_are_counted_without_it(
    tmp_path: Path, jump: Jump
) -> None:
    async with running(tmp_path) as world:
        ends = world.mint(expires_at_us=time.time_ns() // 1000 + _HOUR_US // 2)
        async with httpx2.AsyncClient(base_url=world.url) as client:

            async def asks(key: str) -> int:
                headers = {"authorization": f"Bearer {key}"}
                return (await client.get("/v1/models", headers=headers)).status_code

            for hours, status in ((0, 200), (1, 401), (-24, 200), (24, 401), (0, 200)):
                jump(hours)
                assert await asks(ends) == status, hours
                assert await asks(world.key) == 200, "a key without an end"
                assert await asks("wrong") == 401


async def test_guesses_stay_counted_when_the_clock_is_set(tmp_path: Path, jump: Jump) -> None:
    headers, codes = {"authorization": "Bearer wrong"}, []
    async with (
        running(tmp_path, limits=LimitSettings(wrong_keys_a_minute=3)) as world,
        httpx2.AsyncClient(base_url=world.url) as client,
    ):
        for hours in (0, 1, -1, 24, -24, 0):
            jump(hours)
            codes.append((await client.get("/v1/models", headers=headers)).status_code)
    assert codes == [401, 401, 401, 429, 429, 429]


async def test_a_locked_database_keeps_no_request_waiting(tmp_path: Path) -> None:
    """Requests of known keys are served and billed afterwards; what must write is told 503."""
    async with running(tmp_path) as world:
        assert (await world.chat("before")).is_success
        with locked(world.home.database):
            answers = await asyncio.gather(*(world.chat(f"{n}") for n in range(4)))
            assert [each.status_code for each in answers] == [200] * 4
            async with world.http() as client:
                refused = await client.post("/admin/v1/keys", json={"name": "x"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "storage_unavailable"
            assert refused.headers["retry-after"] == "2"
        assert len(await world.settled(5)) == 5
