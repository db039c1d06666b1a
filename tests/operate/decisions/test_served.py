"""A running gateway plans beside itself, holds decisions against what it served, and tells once
what departed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from freehold.core.decision import Decision
from freehold.operate.decisions import served
from freehold.operate.decisions.watched import DAY_US
from tests.harness import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WORKLOAD = {
    "requests_per_day": "20k", "prompt": 800, "answer": 250, "models": ["qwen3-0.6b", "gpt-5-nano"]
}  # fmt: skip
_ASKED = {"workload": _WORKLOAD, "name": "bot"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("decisions")) as found:
        await found.replica.ensure_ready(20)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own(world: Running) -> Decision:
    """For the cheapest machines of one's own, decided long ago."""
    first = await _post(world, "decisions", _ASKED)
    option = next(each["id"] for each in first["runners_up"] if each["way"] == "owned")
    made = await _post(world, "decisions", {**_ASKED, "option": option})
    new = world.gateway.store.decision(world.tenant_id, made["id"])
    assert new is not None
    return replace(new, id="dec_" + "0" * 26, at_us=new.at_us - 100 * DAY_US)


async def _post(world: Running, path: str, body: Any = None) -> dict[str, Any]:
    async with world.http() as client:
        answer = await client.post(f"/admin/v1/{path}", json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _keep(world: Running, decision: Decision) -> None:
    world.gateway.store.add_decision(world.tenant_id, decision)


async def test_a_check_says_what_was_really_served_and_what_that_cost(
    world: Running, own: Decision
) -> None:
    _keep(world, own)
    for number in range(3):
        answer = await world.chat(f"question {number}")
        assert answer.status_code == 200
    rows = await world.settled(3)
    found = await _post(world, f"decisions/{own.id}/check?days=10")
    tokens_in, tokens_out = (sum(row[name] for row in rows) for name in ("tokens_in", "tokens_out"))
    assert found["requests"] == 3
    assert (found["tokens_in"], found["tokens_out"]) == (tokens_in, tokens_out)
    assert found["days"] == 10
    figures = {each["name"]: each for each in found["figures"]}
    assert figures["requests_a_day"]["predicted"] == 20_000
    assert figures["requests_a_day"]["measured"] == pytest.approx(0.3)
    assert figures["prompt_tokens"]["measured"] == pytest.approx(tokens_in / 3)
    hosted = own.content["predicted"]["machines_a_month"]
    served_a_month = (tokens_in + tokens_out) / 10 * 365 / 12
    reserved = figures["per_million_reserved"]["measured"]
    assert reserved == pytest.approx(hosted / served_a_month * 1e6)
    first = sorted(row["ttft_us"] / 1000 for row in rows)
    assert figures["ttft_p50_ms"]["measured"] == pytest.approx(first[1])
    assert not found["holds"]
    kinds = {each["kind"] for each in found["departures"]}
    assert {"volume", "cost", "utilization"} <= kinds
    assert "api_cheaper" not in kinds, "it was cheaper when it was decided"


async def test_a_decision_of_today_is_not_judged_by_minutes(world: Running) -> None:
    made = await _post(world, "decisions", {**_ASKED, "aliases": ["nobody's"]})
    found = await _post(world, f"decisions/{made['id']}/check")
    assert (found["requests"], found["holds"], found["is_judged"]) == (0, True, False)


async def test_what_departed_is_an_event_once_and_its_end_another(
    world: Running, own: Decision
) -> None:
    _keep(world, replace(own, id="dec_" + "1" * 26, name="night shift"))
    gateway = world.gateway

    async def told() -> list[tuple[str, str | None]]:
        await gateway.events.flush()
        events = gateway.store.every_event(1000)
        found = [(each.what.kind.value, each.what.subject) for each in events]
        return [each for each in found if each[1] == "dec_" + "1" * 26]

    await gateway.decisions.look(24)
    assert await told() == [("decision_departed", "dec_" + "1" * 26)]
    (event,) = [e for e in gateway.store.every_event(1000) if e.what.subject == "dec_" + "1" * 26]
    assert "night shift" in event.what.text
    assert "requests a day, where" in event.what.text
    assert event.severity.value == "warning"
    await gateway.decisions.look(24)
    assert gateway.store.begin_check(world.tenant_id, "dec_" + "1" * 26, 0, 1) is False
    assert len(await told()) == 1, "a day has not gone by"
    _due_again(world)
    # Who asks meanwhile waits for what the gateway does by itself, and is not sent away.
    checking = asyncio.create_task(gateway.decisions.look(1))
    while not gateway.decisions._turn.locked():
        await asyncio.sleep(0.01)
    await _post(world, "decide", _ASKED)
    await checking
    assert len(await told()) == 1, "nothing else departed"
    gateway.store.departed(world.tenant_id, "dec_" + "1" * 26, ["rules licence"])
    _due_again(world)
    await gateway.decisions.look(1)
    assert len(await told()) == 2, "it departed in another way than it was known to"


def _due_again(world: Running) -> None:
    """As if a day went by."""
    now_us = world.gateway.clock.wall_us()
    for each in world.gateway.store.decisions(world.tenant_id):
        assert world.gateway.store.begin_check(each.tenant_id, each.id, now_us, 1)


async def test_one_plan_is_made_at_a_time_and_requests_are_served_meanwhile(
    world: Running,
) -> None:
    async with world.http() as client:
        plans = [client.post("/admin/v1/decide", json=_ASKED) for _ in range(3)]
        *answers, chat = await asyncio.gather(*plans, world.chat("meanwhile"))
    assert chat.status_code == 200
    assert sorted(each.status_code for each in answers) == [200, 503, 503]
    refused = next(each for each in answers if each.status_code == 503)
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["retry-after"]


async def test_a_plan_that_takes_too_long_is_ended(
    world: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "_MOST_S", 0.05)
    async with world.http() as client:
        answer = await client.post("/admin/v1/decide", json=_ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    monkeypatch.undo()
    assert (await _post(world, "decide", {**_ASKED, "top": 1}))["ranked"]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"workload": {}}, "file_invalid", "requests_per_day"),
        ({"workload": {**_WORKLOAD, "prompt": -1}}, "file_invalid", "prompt"),
        ({"workload": {**_WORKLOAD, "models": ["x"]}}, "model_not_found", "No model 'x'"),
        ({"workload": _WORKLOAD, "top": 1000}, "invalid_value", "top"),
        ({"workload": _WORKLOAD, "name": "a/b"}, "invalid_value", "name"),
    ],
)
async def test_what_cannot_be_planned_is_refused_by_name(
    world: Running, body: dict[str, Any], code: str, said: str
) -> None:
    async with world.http() as client:
        answer = await client.post("/admin/v1/decide", json=body)
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert error["code"] == code
    assert said in error["message"]


async def test_whether_a_model_fits_is_asked_over_the_api_too(world: Running) -> None:
    body = {"model": "llama-3.1-8b", "on": "h100_sxm, t4", "precision": "bf16", "streams": 4}
    found = await _post(world, "fit", body)
    rows = {(each["accelerator"], each["count"]): each for each in found["rows"]}
    assert rows["h100_sxm", 1]["fits"]
    assert not rows["t4", 1]["fits"]
    assert rows["h100_sxm", 1]["tokens_per_s_of_one"] > 0
    async with world.http() as client:
        for wrong, said in (({"model": "nobody's"}, "No model"), (body | {"on": "x"}, "'x'")):
            answer = await client.post("/admin/v1/fit", json=wrong)
            assert answer.status_code in (400, 404)
            assert said in answer.json()["error"]["message"]
