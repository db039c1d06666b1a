"""Budgets and rates on real requests: reserved before, settled after, never overrun."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from freehold.core.binding import Environment, Scope
from freehold.secure.keys import KeyRequest
from freehold.secure.rotation import Rotation, rotate
from tests.harness import Running, asked, running, sha

# A dollar for a thousand tokens in, two for a thousand out.
_PRICES = {"models": [{"model": "fake-model", "input": 1000, "output": 2000}]}
_PATH = "/admin/v1/limits"


async def _set(world: Running, measure: str, amount: object, **fields: object) -> dict[str, Any]:
    async with world.http() as client:
        answer = await client.post(_PATH, json={"measure": measure, "amount": amount, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _standing(world: Running, limit: Mapping[str, Any]) -> dict[str, Any]:
    async with world.http() as client:
        found = (await client.get(_PATH)).json()["data"]
    (standing,) = [each for each in found if each["id"] == limit["id"]]
    return dict(standing)


def _error(answer: httpx2.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["type"]


async def test_a_budget_of_requests_lets_so_many_through(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        limit = await _set(world, "requests", 3, period="day")
        answers = [await world.chat(f"number {number}") for number in range(5)]
        assert [each.status_code for each in answers] == [200] * 3 + [402] * 2
        assert _error(answers[-1]) == (402, "budget_exceeded", "insufficient_quota")
        message = answers[-1].json()["error"]["message"]
        assert limit["id"] in message
        assert limit["frees_at"][:10] in message
        assert "retry-after" not in answers[-1].headers
        assert (await _standing(world, limit))["used"] == 3
        await world.settled(3)


async def test_64_clients_at_once_get_no_more_than_ten_requests_out_of_ten(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        limit = await _set(world, "tokens", 10 * (16 + 40), period="total")
        asks = (world.chat(f"[[slow 0.01]] {n}", max_tokens=16) for n in range(64))
        answers = await asyncio.gather(*asks)
        assert {each.status_code for each in answers} <= {200, 402, 429}
        admitted = sum(each.status_code == 200 for each in answers)
        assert 0 < admitted <= 10
        rows = await world.settled(admitted)
        seen = (await world.seen())["seen"]
        assert len(seen) - seen.count(sha("probe")) == admitted
        used = sum(row["tokens_in"] + row["tokens_out"] for row in rows)
        standing = await _standing(world, limit)
        assert (standing["used"], standing["held"]) == (used, 0)
        assert used <= 10 * (16 + 40)


async def test_money_is_spent_by_what_was_really_used_and_known_after_a_restart(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, prices=_PRICES) as world:
        limit = await _set(world, "money", "12.50", period="month")
        assert (limit["unit"], limit["amount"]) == ("micro-USD", 12_500_000)
        await world.chat("a dear word", max_tokens=5)
        (row,) = await world.settled(1)
        assert row["cost"] == 1000 * row["tokens_in"] + 2000 * row["tokens_out"]
        assert (await _standing(world, limit))["used"] == row["cost"]
    async with running(tmp_path, prices=_PRICES) as world:
        assert (await _standing(world, limit))["used"] == row["cost"]
        async with world.http() as client:
            usage = (await client.get("/admin/v1/usage")).json()["data"]
        assert (usage[0]["cost"], usage[0]["unpriced"]) == (row["cost"], 0)


async def test_a_limit_counts_what_was_used_before_it_was_set(tmp_path: Path) -> None:
    async with running(tmp_path, prices=_PRICES) as world:
        for number in range(3):
            await world.chat(f"before {number}")
        await world.settled(3)
        limit = await _set(world, "requests", 4, period="month")
        assert limit["used"] == 3
        assert [(await world.chat(f"after {n}")).status_code for n in range(2)] == [200, 402]


async def test_a_client_that_goes_pays_what_was_made_and_the_rest_is_free_again(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        limit = await _set(world, "tokens", 100_000, period="day")
        body = asked("[[slow 0.05]] [[tokens 1000]] long", stream=True)
        async with (
            world.http() as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            await anext(aiter(answer.aiter_lines()))
        (row,) = await world.settled(1)
        assert row["outcome"] == "client_gone"
        standing = await _standing(world, limit)
        assert standing["used"] == row["tokens_in"] + row["tokens_out"] < 1000
        assert standing["held"] == 0


async def test_a_prompt_is_counted_before_it_is_refused_by_its_bytes(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        prompt = "word " * 100
        await _set(world, "tokens", 160, period="total")
        assert (await world.chat(prompt, max_tokens=16)).status_code == 200
        refused = await world.chat(prompt, max_tokens=16)
        assert _error(refused)[:2] == (402, "budget_exceeded")
        assert "max_tokens" in refused.json()["error"]["message"]


async def test_a_repeated_answer_costs_nothing_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        limit = await _set(world, "requests", 5, period="day")
        async with world.http() as client:
            for _ in range(3):
                answer = await client.post(
                    "/v1/chat/completions", json=asked("same"), headers={"idempotency-key": "k"}
                )
                assert answer.status_code == 200
        standing = await _standing(world, limit)
        assert (standing["used"], standing["held"]) == (1, 0)


async def test_requests_a_minute_are_told_in_headers_and_refused_until_it_has_passed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await _set(world, "requests", 2, period="minute")
        await _set(world, "tokens", 10_000, period="minute")
        first = await world.chat("one")
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert int(first.headers["x-ratelimit-remaining-tokens"]) < 10_000
        await world.chat("two")
        refused = await world.chat("three")
        assert _error(refused) == (429, "rate_limit_exceeded", "rate_limit_error")
        assert 50 <= int(refused.headers["retry-after"]) <= 60


async def test_openais_client_knows_both_refusals(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        client = openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=world.key, max_retries=0)
        rate = await _set(world, "requests", 0, period="minute")
        messages: list[Any] = [{"role": "user", "content": "x"}]
        async with client:
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="fake-model", messages=messages)
            async with world.http() as http:
                removed = await http.delete(f"{_PATH}/{rate['id']}")
                assert removed.json() == {"id": rate["id"], "removed": True}
            await _set(world, "requests", 0, period="total")
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(model="fake-model", messages=messages)
        assert (refused.value.status_code, refused.value.code) == (402, "budget_exceeded")


async def test_only_so_many_requests_of_one_key_run_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(30)
        await _set(world, "concurrency", 2, key=f"key_{world.key.split('_')[2]}")
        asks = [world.chat(f"[[slow 0.1]] {number}") for number in range(4)]
        answers = await asyncio.gather(*asks)
        assert sorted(each.status_code for each in answers) == [200, 200, 429, 429]
        assert (await world.chat("later")).status_code == 200
        other, world.key = world.key, world.mint()
        answers = await asyncio.gather(*(world.chat(f"[[slow 0.1]] b{n}") for n in range(4)))
        assert {each.status_code for each in answers} == {200}
        world.key = other


async def test_a_key_that_replaces_another_goes_on_with_its_budget(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        keyring = world.gateway.keyring
        old = f"key_{world.key.split('_')[2]}"
        limit = await _set(world, "requests", 3, period="total", key=old)
        admin, _ = world.key, await world.chat("first")
        for _ in range(2):
            again = Rotation(world.tenant_id, Environment.DEV, old, 3600)
            record, key = rotate(keyring, again, None)
            assert key is not None
            old, world.key = record.id, key.reveal()
            assert (await world.chat(f"by {record.id}")).status_code == 200
        assert _error(await world.chat("once more"))[0] == 402
        world.key = admin
        assert (await world.chat("also by the first")).status_code == 402
        assert (await _standing(world, limit))["used"] == 3


async def test_without_a_price_a_budget_in_money_refuses_and_no_other_does(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _set(world, "tokens", 10**6, period="day")
        assert (await world.chat("unpriced")).status_code == 200
        (row,) = await world.settled(1)
        assert row["cost"] is None
        await _set(world, "money", 1000, period="day")
        refused = await world.chat("dear")
        assert _error(refused)[:2] == (503, "price_unknown")
        async with world.http() as client:
            usage = (await client.get("/admin/v1/usage")).json()["data"]
        assert (usage[0]["cost"], usage[0]["unpriced"]) == (0, 1)


async def test_a_tenants_admin_sets_its_own_limits_and_lifts_none_of_the_operators(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        operator = world.key
        given = await _set(world, "tokens", 1000, period="day")
        whole = await _set(world, "tokens", 5000, period="day", all_environments=True)
        assert (given["own"], whole["environment"]) == (False, None)
        world.key = world.mint(Scope.ADMIN, Scope.INFER)
        own = await _set(world, "tokens", 999_999, period="day")
        assert own["own"]
        assert own["id"] != given["id"], "beside it, not in its place"
        async with world.http() as client:
            for limit in (given, whole):
                assert (await client.delete(f"{_PATH}/{limit['id']}")).status_code == 403
            body = {"measure": "tokens", "period": "day", "amount": 1, "all_environments": True}
            assert (await client.post(_PATH, json=body)).status_code == 403
            assert (await client.delete(f"{_PATH}/{own['id']}")).status_code == 200
        world.key = operator
        changed = await _set(world, "tokens", 2000, period="day")
        assert (changed["id"], changed["amount"]) == (given["id"], 2000)


async def test_environments_and_tenants_have_budgets_of_their_own(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _set(world, "requests", 0, period="day")
        assert (await world.chat("in dev")).status_code == 402
        world.gateway.store.add_tenant("ten_b", "other-co", 1)
        await world.gateway.access.refresh()
        (route,) = world.gateway.store.routes(world.tenant_id, Environment.DEV)
        theirs = replace(route, id="rte_b", tenant_id="ten_b", alias="mine")
        world.gateway.store.put_routes("ten_b", Environment.DEV, [theirs])
        wanted = KeyRequest("ten_b", Environment.DEV, "b", frozenset({Scope.INFER, Scope.ADMIN}))
        _, key = world.gateway.keyring.mint(wanted)
        assert key is not None
        world.key = key.reveal()
        async with world.http() as client:
            answer = await client.post("/v1/chat/completions", json=asked("x") | {"model": "mine"})
            assert answer.status_code == 200, answer.text
            assert (await client.get(_PATH)).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"measure": "money", "amount": 1, "period": "minute"}, "body"),
        ({"measure": "concurrency", "amount": 1, "period": "day"}, "body"),
        ({"measure": "tokens", "amount": "1.5", "period": "day"}, "body"),
        ({"measure": "money", "amount": 1.5, "period": "day"}, "amount"),
        ({"measure": "tokens", "amount": -1, "period": "day"}, "amount"),
        ({"measure": "tokens", "amount": "lots", "period": "day"}, "amount"),
        ({"measure": "tokens", "amount": 1e30, "period": "day"}, "amount"),
        ({"measure": "money", "amount": "0.0000001", "period": "day"}, "amount"),
        ({"measure": "time", "amount": 1}, "measure"),
        ({"measure": "requests", "amount": 1, "period": "day", "person": "bob"}, "person"),
        (
            {
                "measure": "requests", "amount": 1, "period": "day", "all_environments": True,
                "environment": "dev",
            },
            "body",
        ),
    ],
)  # fmt: skip
async def test_a_limit_that_makes_no_sense_is_refused_and_sets_nothing(
    tmp_path: Path, body: dict[str, object], param: str
) -> None:
    async with running(tmp_path) as world, world.http() as client:
        refused = await client.post(_PATH, json=body)
        assert _error(refused)[:2] == (400, "invalid_value")
        assert refused.json()["error"]["param"] in (param, "")
        assert (await client.get(_PATH)).json()["data"] == []


async def test_while_the_database_is_away_a_limit_that_is_not_known_yet_refuses(
    tmp_path: Path,
) -> None:
    """What is known goes on: a budget is never guessed."""
    from tests.store.making import locked

    async with running(tmp_path) as world:
        await _set(world, "requests", 100, period="day")
        assert (await world.chat("known")).status_code == 200
        with locked(world.home.database):
            assert (await world.chat("known still")).status_code == 200
        await world.settled(2)
