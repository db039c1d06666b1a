"""Policies that somebody writes hold at once, for who asks and for what is being answered."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.core.binding import Scope
from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy
from freehold.serve.policies import LivePolicies
from tests.harness import Running, running

_PATH = "/admin/v1/policies"
_NOBODY = '@id("closed") forbid (principal, action == Freehold::Action::"infer", resource);'


async def _write(world: Running, name: str, text: str, **more: Any) -> httpx2.Response:
    async with world.http() as client:
        return await client.post(_PATH, json={"name": name, "text": text, **more})


async def test_a_policy_holds_from_the_answer_on_and_is_gone_when_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        assert (await world.chat("hello")).is_success
        written = await _write(world, "nights", _NOBODY)
        assert written.status_code == 201
        refused = await world.chat("hello")
        assert refused.status_code == 403
        error = refused.json()["error"]
        assert error["code"] == "insufficient_permissions"
        assert "'nights/closed' forbids it" in error["message"]
        async with world.http() as client:
            assert (await client.get("/v1/models")).json()["data"] == []
            (listed,) = (await client.get(_PATH)).json()["data"]
            assert (listed["name"], listed["text"]) == ("nights", _NOBODY)
            assert (await client.delete(f"{_PATH}/nights")).is_success
            assert (await client.delete(f"{_PATH}/nights")).status_code == 404
        assert (await world.chat("hello")).is_success


async def test_a_running_answer_is_cut_when_a_policy_forbids_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        body = {
            "model": "fake-model", "stream": True, "max_tokens": 2000,
            "messages": [{"role": "user", "content": "[[slow 0.05]] [[tokens 2000]] go on"}],
        }  # fmt: skip
        seen = b""
        async with (
            world.http() as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            async for chunk in answer.aiter_raw():
                if not seen:
                    assert (await _write(world, "stop", _NOBODY)).status_code == 201
                seen += chunk
        assert b"access_ended" in seen
        assert b"[DONE]" not in seen


async def test_a_policy_of_one_tenant_leaves_the_others_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        world.gateway.store.add_tenant("ten_other", "other", 1)
        await world.gateway.access.refresh()
        assert (await _write(world, "stop", _NOBODY, tenant="other")).status_code == 201
        assert (await world.chat("hello")).is_success
        assert (await _write(world, "stop", _NOBODY, installation=True)).status_code == 201
        assert (await world.chat("hello")).status_code == 403
        async with world.http() as client:
            for of, count in (({}, 0), ({"tenant": "other"}, 1), ({"installation": "true"}, 1)):
                found = (await client.get(_PATH, params=of)).json()["data"]
                assert len(found) == count, of


async def test_a_wrong_policy_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        assert (await _write(world, "mine", "permit (principal, action, resource);")).is_success
        for text in ("forbid (", "forbid (principal, action, resource) when { nobody };", ""):
            refused = await _write(world, "mine", text)
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "policy_invalid"
        for name in ("", "A", "../x", "x" * 64):
            assert (await _write(world, name, _NOBODY)).status_code == 400
        assert (await world.chat("hello")).is_success


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [
        ((Scope.INFER,), 403, 403),
        ((Scope.ADMIN,), 200, 403),
        ((Scope.AUDIT,), 200, 403),
        ((Scope.OPERATE,), 200, 403),
        ((Scope.OWN,), 200, 201),
    ],
)
async def test_only_owners_write_policies(
    tmp_path: Path, scopes: tuple[Scope, ...], reads: int, writes: int
) -> None:
    async with running(tmp_path) as world:
        world.key = world.mint(*scopes)
        async with world.http() as client:
            assert (await client.get(_PATH)).status_code == reads
        assert (await _write(world, "mine", _NOBODY)).status_code == writes
        assert (await _write(world, "all", _NOBODY, installation=True)).status_code == writes


async def test_an_auditor_reads_what_it_needs_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        world.key = world.mint(Scope.AUDIT)
        async with world.http() as client:
            for path in ("usage", "requests", "keys", "routes", "adapters", "tenants", "models"):
                assert (await client.get(f"/admin/v1/{path}")).is_success, path
            made = await client.post("/admin/v1/keys", json={"name": "x", "scopes": ["audit"]})
            assert made.status_code == 403
            assert (await client.get("/admin/v1/status")).status_code == 403
        assert (await world.chat("hello")).status_code == 403


async def test_another_process_follows_within_a_second(tmp_path: Path) -> None:
    """It only sees that the count in the database has grown."""
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        world.gateway.store.put_policy(Policy("elsewhere", _NOBODY))
        while (await world.chat("hello")).is_success:
            await asyncio.sleep(0.05)
        world.gateway.store.remove_policy(None, "elsewhere")
        while not (await world.chat("hello")).is_success:
            await asyncio.sleep(0.05)


async def test_a_stored_policy_that_cannot_be_read_stops_the_start_and_no_running_gateway(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        world.gateway.store.put_policy(Policy("broken", "forbid ("))
        await world.gateway.access.refresh()
        assert (await world.chat("hello")).is_success
        with pytest.raises(UserError, match="'broken' is refused") as caught:
            LivePolicies(world.gateway.store, world.gateway.clock)
    assert caught.value.code is Code.POLICY_INVALID
