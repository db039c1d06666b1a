"""People and workloads with tokens of an identity provider, through a whole gateway."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy
from tests.harness import Running, running
from tests.issuer import AUDIENCE, RSA_FOREIGN, Issuer, serving, token

_MESSAGES = [{"role": "user", "content": "hello"}]


@contextlib.asynccontextmanager
async def _world(folder: Path, **provider: Any) -> AsyncIterator[tuple[Running, Issuer]]:
    """Of the group `ml` who may use models in dev and prod, and of `boss` who administers."""
    async with serving() as issuer:
        given = {
            "issuer": issuer.url,
            "audiences": [AUDIENCE],
            "access": [
                {"group": "ml", "scopes": ["infer"], "environments": ["dev", "prod"]},
                {"group": "boss", "scopes": ["infer", "admin"]},
                {"group": "later", "scopes": ["infer"], "environments": ["staging"]},
            ],
            **provider,
        }
        async with running(folder, identity_providers=[given], environments=("dev", "prod")) as w:
            await w.replica.ensure_ready(20)
            yield w, issuer


async def _ask(
    world: Running, bearer: str, body: dict[str, Any] | None = None, **headers: str
) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=world.url, timeout=30) as client:
        return await client.post(
            "/v1/chat/completions",
            json={"model": "fake-model", "messages": _MESSAGES, **(body or {})},
            headers={"authorization": f"Bearer {bearer}", **headers},
        )


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_token_is_taken_like_a_key_and_its_use_is_metered(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        for sub in ("zaphod", "zaphod", "trillian"):
            assert (await _ask(world, token(issuer, sub=sub))).is_success
        async with world.http() as client:
            rows = (await client.get("/admin/v1/usage")).json()["data"]
        counts = sorted(row["requests"] for row in rows if row["key_id"].startswith("per_"))
        assert counts == [1, 2]
        assert "zaphod" not in str(rows)


async def test_groups_say_what_somebody_may(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        async with httpx2.AsyncClient(base_url=world.url) as client:
            for groups, status in ((["ml"], 403), (["boss"], 200), (["ml", "boss"], 200)):
                bearer = {"authorization": f"Bearer {token(issuer, groups=groups)}"}
                asked = await client.get("/admin/v1/keys", headers=bearer)
                assert asked.status_code == status, groups
        for groups in ([], ["ML"], "boss ml", None, {"ml": 1}, ["m", "l"]):
            refused = await _ask(world, token(issuer, groups=groups))
            assert _code(refused) == (403, "insufficient_permissions"), groups


async def test_the_environment_is_one_that_the_groups_give(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        assert (await _ask(world, token(issuer))).is_success  # dev, their first
        named = {"x-freehold-environment": "prod"}
        in_prod = await _ask(world, token(issuer), None, **named)
        assert _code(in_prod) == (404, "model_not_found")  # which has no routes
        boss = await _ask(world, token(issuer, groups=["boss"]), None, **named)
        assert _code(boss) == (403, "insufficient_permissions")
        for wrong in ("staging", "production", ""):
            refused = await _ask(world, token(issuer), None, **{"x-freehold-environment": wrong})
            assert _code(refused) == (403, "insufficient_permissions"), wrong
        later = await _ask(world, token(issuer, groups=["later"]))
        assert _code(later) == (403, "environment_not_served")


async def test_wrong_tokens_are_refused_in_openais_shape(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        for bearer, code in (
            (token(issuer, key=RSA_FOREIGN), "invalid_token"),
            (token(issuer, iss="https://evil.example"), "invalid_token"),
            (token(issuer, aud="mail"), "invalid_token"),
            (token(issuer, exp=1), "expired_token"),
            ("ey.ey.ey", "invalid_token"),
            ("eyJhbGciOiJub25lIn0.e30.", "invalid_token"),
        ):
            assert _code(await _ask(world, bearer)) == (401, code)
        assert (await _ask(world, world.key)).is_success  # keys are as they were


async def test_a_repeated_request_of_a_person_is_answered_once_whatever_the_token(
    tmp_path: Path,
) -> None:
    async with _world(tmp_path) as (world, issuer):
        again = {"idempotency-key": "once"}
        first = await _ask(world, token(issuer), None, **again)
        second = await _ask(world, token(issuer, jti="another"), None, **again)
        assert first.is_success
        assert second.json() == first.json()
        other = await _ask(world, token(issuer, sub="bob"), None, **again)
        assert other.json()["id"] != first.json()["id"]


async def test_a_policy_can_speak_of_people_and_their_groups(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        text = (
            "forbid (principal is Freehold::Person, action, resource) "
            'when { principal.groups.contains("all") };'
        )
        world.gateway.store.put_policy(Policy("leavers", text))
        await world.gateway.access.refresh()
        assert (await _ask(world, token(issuer))).status_code == 403
        assert (await _ask(world, token(issuer, groups=["ml"]))).is_success
        assert (await _ask(world, world.key)).is_success


async def test_a_disabled_tenant_shuts_its_people_out(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        store = world.gateway.store
        store.disable_tenant(world.tenant_id, 1)
        await world.gateway.access.refresh()
        assert _code(await _ask(world, token(issuer))) == (403, "tenant_disabled")
        store.disable_tenant(world.tenant_id, None)
        await world.gateway.access.refresh()
        assert (await _ask(world, token(issuer))).is_success


async def test_keys_work_while_the_provider_is_down(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        issuer.is_down = True
        refused = await _ask(world, token(issuer))
        assert _code(refused) == (503, "provider_unreachable")
        assert refused.headers["retry-after"]
        assert (await _ask(world, world.key)).is_success


async def test_a_provider_of_a_tenant_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        from freehold.config.schema import ProviderSettings
        from freehold.serve.people import People

        given = ProviderSettings(issuer="https://login.example", audiences=("a",), tenant="nobody")
        gateway = world.gateway
        with pytest.raises(UserError, match="no tenant 'nobody'") as caught:
            People([given], gateway.tenants, (), gateway.store, gateway.clock)
        assert caught.value.code is Code.CONFIG_INVALID
