"""Two gateways on one PostgreSQL hold requests against the same budgets: none is overrun,
and nothing stays held of what has ended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from freehold.core.binding import Scope
from freehold.core.usage import Outcome
from freehold.store.postgres import Postgres
from tests.e2e.test_postgres import _ask, _two
from tests.harness import Running, asked, sha

_PATH = "/admin/v1/limits"


@asynccontextmanager
async def _pair(
    folder: Path, database: Callable[[], Postgres]
) -> AsyncIterator[tuple[Running, Running]]:
    async with _two(folder, database()) as (first, second):
        second.key = first.key
        for world in (first, second):
            await world.replica.ensure_ready(30)
        yield first, second


async def _set(worlds: tuple[Running, Running], **body: object) -> dict[str, Any]:
    """And waits until both know of it."""
    async with worlds[0].http() as client:
        answer = await client.post(_PATH, json=body)
        assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    async with asyncio.timeout(20):
        while made["id"] not in {each["id"] for each in await _list(worlds[1])}:
            await asyncio.sleep(0.05)
    return made


async def _list(world: Running) -> list[dict[str, Any]]:
    async with world.http() as client:
        found: list[dict[str, Any]] = (await client.get(_PATH)).json()["data"]
    return found


async def _standing(world: Running, limit: dict[str, Any]) -> tuple[int, int]:
    (found,) = [each for each in await _list(world) if each["id"] == limit["id"]]
    return found["used"], found["held"]


async def _settled(worlds: tuple[Running, Running], limit: dict[str, Any]) -> int:
    """What is used once nothing is held any more."""
    async with asyncio.timeout(20):
        while (standing := await _standing(worlds[0], limit))[1]:
            await asyncio.sleep(0.05)
    assert standing == await _standing(worlds[1], limit)
    return standing[0]


@pytest.mark.slow
async def test_64_clients_at_two_gateways_get_ten_requests_out_of_ten(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _pair(tmp_path, postgres_database) as worlds:
        for turn in range(3):
            key = worlds[0].mint(Scope.INFER)
            limit = await _set(
                worlds, measure="requests", period="total", amount=10,
                key="key_" + key.split("_")[2],
            )  # fmt: skip
            answers = await asyncio.gather(*(_ask(worlds[number % 2], key) for number in range(64)))
            assert {each.status_code for each in answers} <= {200, 402, 429}
            assert sum(each.status_code == 200 for each in answers) == 10, turn
            assert await _settled(worlds, limit) == 10
        seen = [(await world.seen())["seen"].count(sha("hi")) for world in worlds]
        assert sum(seen) == 30


async def test_tokens_are_what_both_engines_made(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _pair(tmp_path, postgres_database) as worlds:
        limit = await _set(worlds, measure="tokens", period="day", amount=2000)
        answers = await asyncio.gather(
            *(worlds[n % 2].chat(f"[[slow 0.01]] {n}", max_tokens=8) for n in range(60))
        )
        used = await _settled(worlds, limit)
        made = [each.json()["usage"]["total_tokens"] for each in answers if each.is_success]
        assert 0 < len(made) < 60
        assert used == sum(made) <= 2000


async def test_a_place_is_free_as_soon_as_the_answer_has_ended(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _pair(tmp_path, postgres_database) as worlds:
        await _set(worlds, measure="concurrency", amount=1)
        for number in range(20):
            answer = await worlds[number % 2].chat(f"one after the other {number}")
            assert answer.status_code == 200, answer.text
        both = await asyncio.gather(*(world.chat("[[slow 0.1]] at once") for world in worlds))
        assert sorted(each.status_code for each in both) == [200, 429]


async def test_a_minute_is_counted_across_both(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _pair(tmp_path, postgres_database) as worlds:
        await _set(worlds, measure="requests", period="minute", amount=3)
        await _set(worlds, measure="tokens", period="minute", amount=100_000)
        answers = [await worlds[number % 2].chat(f"number {number}") for number in range(4)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
        assert 50 <= int(answers[3].headers["retry-after"]) <= 60
        (tokens,) = [each for each in await _list(worlds[0]) if each["measure"] == "tokens"]
        told = sum(each.json()["usage"]["total_tokens"] for each in answers[:3])
        async with asyncio.timeout(20):
            while (await _standing(worlds[0], tokens))[0] != told:  # as they really were
                await asyncio.sleep(0.05)


async def test_what_was_not_let_in_after_all_holds_nothing(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _pair(tmp_path, postgres_database) as worlds:
        limit = await _set(worlds, measure="requests", period="day", amount=100)
        async with worlds[0].http() as client:
            for _ in range(3):
                answer = await client.post(
                    "/v1/chat/completions", json=asked("same"), headers={"idempotency-key": "k"}
                )
                assert answer.status_code == 200
        assert await _settled(worlds, limit) == 1


async def test_what_a_gateway_held_that_died_is_free_once_it_is_swept(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _pair(tmp_path, postgres_database) as (first, second):
        limit = await _set((first, second), measure="tokens", period="day", amount=5000)
        running = asyncio.create_task(
            first.chat("[[slow 0.2]] [[tokens 400]] long", max_tokens=400)
        )
        async with asyncio.timeout(20):
            while not (await _standing(second, limit))[1]:
                await asyncio.sleep(0.05)
        first.gateway.ledger.flush()
        store = second.gateway.store
        assert store.sweep(-(10**12)) == 1  # as if it had been silent for long
        used, held = await _standing(second, limit)
        assert held == 0
        assert used < 400
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        outcomes = {row["outcome"] for row in store.records(first.tenant_id, 10)}
        assert Outcome.ORPHANED in outcomes
        assert (await _standing(second, limit)) == (used, 0), "its own word comes too late"
