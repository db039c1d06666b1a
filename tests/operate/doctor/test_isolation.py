"""The examination of a running deployment: a sound one passes, each broken one is found, and
the tenants that it makes are gone in the end, however it ends."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from freehold.core.binding import Environment, Principal, Scope
from freehold.core.errors import Code, UserError
from freehold.operate.doctor.deployment import Deployment, reached
from freehold.operate.doctor.findings import Finding, State
from freehold.operate.doctor.isolation import checked
from freehold.secure import policy
from freehold.serve.admin import keys
from freehold.serve.gateway import Gateway
from tests.harness import Running, running
from tests.serve.test_adapters import _stock

_ROUNDS = 30
_BASE = "fake-model"


@contextlib.asynccontextmanager
async def _examined(world: Running) -> AsyncIterator[Deployment]:
    operator = world.gateway.keyring.open_locally(world.tenant_id).reveal()
    await world.replica.ensure_ready(20)
    async with reached(world.url, operator) as deployment:
        yield deployment


async def _found(world: Running) -> dict[str, Finding]:
    async with _examined(world) as deployment:
        found = {each.check: each async for each in checked(deployment, _ROUNDS, lambda _: None)}
    assert _guests(world) == []
    return found


def _guests(world: Running) -> list[str]:
    return [each.name for each in world.gateway.store.tenants() if each.name != "default"]


def _failed(found: dict[str, Finding]) -> set[str]:
    return {check for check, each in found.items() if each.state is State.FAIL}


async def test_a_sound_deployment_passes_every_check_that_applies(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), "--salted", "--keep-prefixes=own") as world:
        found = await _found(world)
    assert _failed(found) == set(), found
    assert {check for check, each in found.items() if each.state is State.PASS} == {
        "unauthenticated paths are closed",
        "what is another tenant's is not there",
        "identity headers change nothing",
        "a key acts in its own environment only",
        "a revoked key is refused",
        "an unknown alias is never the base",
        "engine fields are not a client's",
        "no answer holds what another tenant sent",
        "another tenant's takes as long as none",
        f"kept prefixes tell nobody ({_BASE})",
        "engines are reached by the gateway alone",
    }
    assert all(each.measured for each in found.values())


async def test_an_engine_that_leaks_other_requests_is_found(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), "--leak-prompts") as world:
        found = await _found(world)
    assert _failed(found) == {"no answer holds what another tenant sent"}
    kept = found[f"kept prefixes tell nobody ({_BASE})"]
    assert kept.state is State.NOT_APPLICABLE, "the control saw nothing either"


async def test_an_engine_that_finds_anybody_s_prefixes_is_found(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home"), "--salted", "--keep-prefixes=all") as world:
        found = await _found(world)
    assert _failed(found) == {f"kept prefixes tell nobody ({_BASE})"}
    assert "Another tenant can tell" in found[f"kept prefixes tell nobody ({_BASE})"].said


async def test_policies_that_do_not_divide_tenants_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = policy.default_text()
    begin, end = sound.index('@id("tenants-are-divided")'), sound.index('@id("environments-are')
    monkeypatch.setattr(policy, "default_text", lambda: sound[:begin] + sound[end:])
    async with running(_stock(tmp_path / "home")) as world:
        found = await _found(world)
    assert "what is another tenant's is not there" in _failed(found)
    assert "/admin/v1/keys?tenant={}" in found["what is another tenant's is not there"].said


async def test_keys_that_reach_into_other_environments_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def anywhere(
        gateway: Gateway,
        scope: Any,
        principal: Principal,
        tenant: str | None = None,
        environment: Environment | None = None,
    ) -> tuple[str, Environment]:
        return tenant or principal.tenant_id, environment or principal.environment

    monkeypatch.setattr(keys, "owner", anywhere)
    async with running(_stock(tmp_path / "home")) as world:
        found = await _found(world)
    assert "a key acts in its own environment only" in _failed(found)


async def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world, _examined(world) as deployment:
        left = "freehold-doctor-0123456789ab-host"
        for name in (left, "freehold-doctor-of-acme", "freehold-doctor-0123456789ab-hostel"):
            await deployment.operate("POST", "/admin/v1/tenants", {"name": name})
        wanted = {"alias": "x", "base": _BASE, "tenant": left}
        await deployment.operate("POST", "/admin/v1/routes", wanted)
        said: list[str] = []
        findings = checked(deployment, _ROUNDS, said.append)
        await anext(findings)
        assert left not in _guests(world)
        assert "Removed 1 tenants" in said[0]
        assert len(_guests(world)) == 4
        await findings.aclose()  # whoever stops in the middle leaves nothing
        assert _guests(world) == [
            "freehold-doctor-of-acme", "freehold-doctor-0123456789ab-hostel"
        ]  # fmt: skip


async def test_it_says_which_right_it_lacks_and_makes_nothing(tmp_path: Path) -> None:
    async with running(_stock(tmp_path / "home")) as world:
        key = world.mint(Scope.ADMIN, Scope.INFER)
        async with reached(world.url, key) as deployment:
            with pytest.raises(UserError, match="takes the scope 'operate'") as refused:
                await anext(checked(deployment, _ROUNDS, lambda _: None))
        assert refused.value.code is Code.FORBIDDEN
        assert _guests(world) == []
        assert len(world.gateway.store.keys(world.tenant_id)) == 2
