"""A key that is used otherwise than it was is told of, and who administers it answers."""

import time
from pathlib import Path

import orjson

from freehold.core.event import Kind
from freehold.secure.pattern import Pattern, as_stored
from freehold.store.patterns import StoredPattern
from tests.harness import Running, running

_DAY_S = 86_400


def learned_elsewhere(world: Running, key_id: str, days: int = 21) -> None:
    """As if the key had been used for so long: from elsewhere, at another time of day."""
    pattern, now_s = Pattern(), int(time.time())
    for day in range(days, 0, -1):
        at_s = now_s - day * _DAY_S - 6 * 3600
        pattern.observe(at_s, "elsewhere", "another-model", 20, 4000)
    patterns = world.gateway.patterns
    content = orjson.dumps(as_stored(pattern), option=orjson.OPT_NON_STR_KEYS).decode()
    stored = StoredPattern(key_id, patterns._place, world.tenant_id, content, now_s * 1_000_000)
    world.gateway.store.keep_patterns([stored])


async def test_a_departure_is_told_once_and_can_be_confirmed(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as world, world.http() as client:
        await world.replica.ensure_ready(20)
        key = world.mint()
        key_id = "key_" + key.split("_")[2]
        learned_elsewhere(world, key_id)
        admin = client.headers["authorization"]
        client.headers["authorization"] = f"Bearer {key}"
        body = {"model": "fake-model", "messages": [{"role": "user", "content": "x"}]}
        for _ in range(3):
            assert (await client.post("/v1/chat/completions", json=body)).is_success
        await world.gateway.patterns.look()
        client.headers["authorization"] = admin
        told = (await client.get("/admin/v1/events")).json()["data"]
        (event,) = [each for each in told if each["kind"] == Kind.KEY_DEPARTED]
        assert event["subject"] == key_id
        assert {"network", "model"} < set(event["details"])
        assert "127.0.0" not in repr(event)
        confirmed = await client.post(f"/admin/v1/keys/{key_id}/confirm")
        assert confirmed.is_success
        assert confirmed.json()["id"] == key_id
        assert (await client.post("/admin/v1/keys/key_x/confirm")).status_code == 404
    async with running(tmp_path / "home") as world:
        kept = world.gateway.store.pattern(world.tenant_id, key_id, world.gateway.patterns._place)
        assert kept is not None
        found = orjson.loads(kept.content)
        assert found["departed_s"] == 0
        assert all(each["is_known"] for each in found["networks"].values())
        assert "127.0.0" not in kept.content


async def test_nothing_is_learned_where_that_is_turned_off(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as world:
        await world.replica.ensure_ready(20)
        world.gateway.patterns._is_on = False
        assert (await world.chat("x")).is_success
        await world.gateway.patterns.look()
        key_id = "key_" + world.key.split("_")[2]
        place = world.gateway.patterns._place
        assert world.gateway.store.pattern(world.tenant_id, key_id, place) is None
