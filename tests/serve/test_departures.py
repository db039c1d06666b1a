"""What is done to a key that is used otherwise than before, and how it comes back."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.core.binding import Scope
from freehold.core.errors import Code, UserError
from tests.harness import Running, asked, running
from tests.serve.test_adapters import _stock
from tests.serve.test_patterns import learned_elsewhere

_CHAT = "/v1/chat/completions"


def _id(key: str) -> str:
    return "key_" + key.split("_")[2]


async def _ask(
    world: Running, key: str, method: str, path: str, body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:  # fmt: skip
    async with world.http() as client:
        sent = {"authorization": f"Bearer {key}", **(headers or {})}
        return await client.request(method, path, json=body, headers=sent)


async def _administer(world: Running, method: str, path: str, body: Any = None) -> dict[str, Any]:
    answer = await _ask(world, world.key, method, f"/admin/v1/{path}", body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _use(world: Running, key: str, model: str = "fake-model") -> None:
    answer = await _ask(world, key, "POST", _CHAT, asked("x") | {"model": model})
    assert answer.is_success, answer.text


async def _departs(world: Running, key: str) -> dict[str, Any]:
    """The key as it is shown once it was used from here, which it never was."""
    await _use(world, key)
    await world.gateway.patterns.look()
    return await _shown(world, key)


async def _shown(world: Running, key: str) -> dict[str, Any]:
    keys = (await _administer(world, "GET", "keys"))["data"]
    found: dict[str, Any] = next(each for each in keys if each["id"] == _id(key))
    return found


def _used_before(world: Running, *scopes: Scope, days: int = 21) -> str:
    key = world.mint(*scopes)
    learned_elsewhere(world, _id(key), days)
    return key


async def _acts(world: Running, key: str) -> list[tuple[str, str, str]]:
    """What was done to a key, by whom, and how they came."""
    records = await _administer(world, "GET", "audit?kind=act&limit=1000")
    bodies = [json.loads(each["body"]) for each in records["data"]]
    return [
        (each["act"], each["principal"], each["via"])
        for each in bodies if each["object"] == _id(key) and each["act"] != "key.create"
    ]  # fmt: skip


async def test_a_suspended_key_is_refused_and_cut_until_somebody_confirms_it(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "home") as world:
        await world.replica.ensure_ready(20)
        key = _used_before(world)
        chosen = await _administer(world, "PATCH", f"keys/{_id(key)}", {"on_departure": "suspend"})
        assert (chosen["on_departure"], chosen["state"]) == ("suspend", "active")
        slow = asked("[[slow 0.05]] [[tokens 2000]] x", stream=True, max_tokens=2000)
        stream = asyncio.create_task(_ask(world, key, "POST", _CHAT, slow))
        async with asyncio.timeout(10):
            while not any(each.meter.tokens_out > 2 for each in world.gateway.watch.running()):
                await asyncio.sleep(0.02)

        shown = await _departs(world, key)

        assert shown["state"] == "suspended"
        assert shown["restrained_at"]
        cut = (await asyncio.wait_for(stream, 10)).text
        assert "key_suspended" in cut
        assert "[DONE]" not in cut
        for method, path in (("POST", _CHAT), ("GET", "/v1/models"), ("GET", "/admin/v1/keys")):
            refused = await _ask(world, key, method, path, asked("x") if method == "POST" else None)
            assert refused.status_code == 403
            error = refused.json()["error"]
            assert error["code"] == "key_suspended"
            assert "otherwise than before" in error["message"]
            assert "freehold key confirm" in error["message"]
        told = (await _administer(world, "GET", "events"))["data"]
        kinds = [each["kind"] for each in told if each["subject"] == _id(key)]
        assert sorted(kinds) == ["key_departed", "key_suspended"]
        explained = await _administer(
            world, "POST", "policies/explain", {"key": _id(key), "model": "fake-model"}
        )
        assert not explained["allowed"]
        assert "suspended" in explained["answer"]
    async with running(tmp_path / "home") as world:
        await world.replica.ensure_ready(20)
        refused = await _ask(world, key, "GET", "/v1/models")
        assert refused.json()["error"]["code"] == "key_suspended"
        confirmed = await _administer(world, "POST", f"keys/{_id(key)}/confirm")
        assert (confirmed["state"], confirmed["restrained_at"]) == ("active", None)
        assert confirmed["on_departure"] == "suspend"
        assert (await _departs(world, key))["state"] == "active", "this is usual now"
        admin = _id(world.key)
        *_, suspended, lifted = await _acts(world, key)
        assert suspended == ("key.suspend", "freehold", "gateway")
        assert lifted == ("key.confirm", admin, "api")


async def test_a_key_that_was_stepped_down_keeps_models_at_batch_priority_alone(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "home") as world:
        await world.replica.ensure_ready(20)
        key = _used_before(world, Scope.INFER, Scope.ADMIN)
        await _administer(world, "PATCH", f"keys/{_id(key)}", {"on_departure": "step-down"})
        everything = {"name": "all", "text": "permit (principal, action, resource);"}
        await _administer(world, "POST", "policies", everything)
        assert (await _ask(world, key, "GET", "/admin/v1/keys")).is_success

        assert (await _departs(world, key))["state"] == "stepped_down"

        headers = {"x-freehold-priority": "interactive"}
        answer = await _ask(world, key, "POST", _CHAT, asked("x"), headers)
        assert answer.is_success
        assert (await _ask(world, key, "GET", "/v1/models")).is_success
        priorities = [row["priority"] for row in await world.settled(2)]
        assert sorted(priorities) == ["batch", "interactive"]
        for method, path, body in (
            ("GET", "/admin/v1/keys", None), ("POST", "/admin/v1/keys", {"name": "more"}),
            ("POST", f"/admin/v1/keys/{_id(key)}/confirm", None),
        ):  # fmt: skip
            refused = await _ask(world, key, method, path, body)
            assert refused.status_code == 403, path
            assert "batch priority" in refused.json()["error"]["message"]
        who = (await _ask(world, key, "GET", "/admin/v1/whoami")).json()
        assert who["roles"] == ["user"]
        asking = {"key": _id(key), "action": "read_keys"}
        explained = await _administer(world, "POST", "policies/explain", asking)
        assert not explained["allowed"]
        assert "stepped down" in explained["answer"]
        assert ("key.step_down", "freehold", "gateway") in await _acts(world, key)

        await _administer(world, "POST", f"keys/{_id(key)}/confirm")
        assert (await _ask(world, key, "GET", "/admin/v1/keys")).is_success
        await _use(world, key)
        assert [row["priority"] for row in await world.settled(3)].count("interactive") == 2


async def test_the_keys_own_choice_goes_before_its_tenants_and_that_before_the_settings(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "home", patterns={"on_departure": "suspend"}) as world:
        await world.replica.ensure_ready(20)
        tenant = await _administer(world, "PATCH", "tenants/default", {"on_departure": "step-down"})
        assert tenant["on_departure"] == "step-down"
        own = _used_before(world)
        await _administer(world, "PATCH", f"keys/{_id(own)}", {"on_departure": "notify"})
        assert (await _departs(world, own))["state"] == "active"
        assert (await _departs(world, _used_before(world)))["state"] == "stepped_down"
        await _administer(world, "PATCH", "tenants/default", {"on_departure": "default"})
        assert (await _departs(world, _used_before(world)))["state"] == "suspended"
        back = await _administer(world, "PATCH", f"keys/{_id(own)}", {"on_departure": "default"})
        assert (back["on_departure"], back["state"]) == ("default", "active")


async def test_nothing_is_done_to_a_key_of_which_too_little_is_known(tmp_path: Path) -> None:
    async with running(tmp_path / "home", patterns={"on_departure": "suspend"}) as world:
        await world.replica.ensure_ready(20)
        for days, state in ((4, "active"), (21, "suspended")):
            key = _used_before(world, days=days)
            assert (await _departs(world, key))["state"] == state, days


async def test_a_key_does_not_answer_for_its_own_use(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as world:
        key = _used_before(world, Scope.INFER, Scope.ADMIN)
        mine = f"/admin/v1/keys/{_id(key)}"
        for method, path, body in (
            ("POST", f"{mine}/confirm", None), ("PATCH", mine, {"on_departure": "notify"}),
        ):  # fmt: skip
            refused = await _ask(world, key, method, path, body)
            assert refused.status_code == 403
            assert "another administrator" in refused.json()["error"]["message"]
        wrong = await _ask(world, world.key, "PATCH", mine, {"on_departure": "shout"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "on_departure")


async def test_who_confirms_in_time_finds_the_key_as_it_was(tmp_path: Path) -> None:
    """The departure is seen only as it is confirmed."""
    async with running(tmp_path / "home", patterns={"on_departure": "suspend"}) as world:
        await world.replica.ensure_ready(20)
        key = _used_before(world)
        await _use(world, key)
        confirmed = await _administer(world, "POST", f"keys/{_id(key)}/confirm")
        assert confirmed["state"] == "active"
        assert await _acts(world, key) == [
            ("key.suspend", "freehold", "gateway"), ("key.confirm", _id(world.key), "api"),
        ]  # fmt: skip
        await _use(world, key)


async def test_a_suspension_that_cannot_be_recorded_is_made_as_soon_as_it_can(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "home", patterns={"on_departure": "suspend"}) as world:
        await world.replica.ensure_ready(20)
        key = _used_before(world)
        await _use(world, key)
        await world.settled(1)
        store = world.gateway.store
        witness = store.witness

        def full(_: object) -> None:
            raise OSError(28, "No space left on device")

        store.witness = full
        try:
            with pytest.raises(UserError) as refused:
                await world.gateway.patterns.look()
        finally:
            store.witness = witness
        assert refused.value.code is Code.AUDIT_UNAVAILABLE
        assert (await _shown(world, key))["state"] == "active"
        await world.gateway.patterns.look()
        assert (await _shown(world, key))["state"] == "suspended"


async def test_the_key_that_replaces_another_has_its_choice_and_not_its_suspension(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "home") as world:
        await world.replica.ensure_ready(20)
        key = _used_before(world)
        await _administer(world, "PATCH", f"keys/{_id(key)}", {"on_departure": "suspend"})
        assert (await _departs(world, key))["state"] == "suspended"
        new = await _administer(world, "POST", f"keys/{_id(key)}/rotate", {})
        assert (new["state"], new["on_departure"]) == ("active", "suspend")
        await _use(world, new["key"])
        assert (await _ask(world, key, "GET", "/v1/models")).status_code == 403


async def test_a_model_that_is_new_for_all_is_nothing_unusual_for_one(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), patterns={"on_departure": "suspend"}) as world:
        await world.replica.ensure_ready(20)
        key = _used_before(world)
        await _administer(world, "POST", "routes", {"alias": "launched", "base": "fake-model"})
        moved = {"alias": "fake-model", "base": "fake-model"}
        await _administer(world, "POST", "routes", moved)
        await _use(world, key, "launched")
        await world.gateway.patterns.look()
        assert (await _shown(world, key))["state"] == "active"
        assert (await _departs(world, key))["state"] == "suspended", "this alias is old"
        told = (await _administer(world, "GET", "events"))["data"]
        (event,) = [each for each in told if each["kind"] == "key_departed"]
        assert "model" in event["details"]
