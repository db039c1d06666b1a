"""What is said is kept for tenants that want it, sealed and bounded, and for nobody else."""

from pathlib import Path
from typing import Any

import httpx2

from freehold.core.binding import Environment, Scope
from freehold.engines.fake import tokens_for
from freehold.secure.keys import KeyRequest
from freehold.serve.request.content import MOST_BYTES
from tests.harness import Running, running
from tests.serve.test_subjects import _files, _forget, _is_whole, _listed, _requests

_CANARY = "what nobody may find on the disk"


async def _keep(world: Running, is_kept: bool) -> None:
    async with world.http() as client:
        answer = await client.patch("/admin/v1/tenants/default", json={"audit_content": is_kept})
    assert answer.json()["audit_content"] is is_kept


async def _content(
    world: Running, asked: httpx2.Response, method: str = "GET", **query: Any
) -> Any:
    request_id = asked.headers["x-freehold-request-id"]
    async with world.http() as client:
        return await client.request(method, f"/admin/v1/audit/content/{request_id}", params=query)


async def test_nothing_is_kept_until_a_tenant_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        before = await world.chat(_CANARY)
        await _keep(world, True)
        during = await world.chat(_CANARY)
        streamed = await world.chat(_CANARY, stream=True)
        await _keep(world, False)
        after = await world.chat(_CANARY)
        for asked in (before, after):
            assert (await _content(world, asked)).status_code == 404
        found = (await _content(world, during)).json()
        assert _CANARY in found["asked"]
        assert found["answered"] == during.text
        assert found["cut"] is False
        assert (await _content(world, streamed)).json()["answered"] == streamed.text
        kept = [each["body"]["content"] for each in await _requests(world)]
        assert [each is not None for each in kept] == [False, True, True, False]
        acts = await _listed(world, level="tenant")
        fields = [each["body"]["fields"] for each in acts if each["body"]["act"] == "tenant.change"]
        assert fields == [["audit_content"]] * 2
        words = "".join(tokens_for(_CANARY, 16)).encode()
        for path, content in _files(tmp_path).items():
            assert _CANARY.encode() not in content, path
            assert words not in content, path
        _is_whole(world)


async def test_reading_is_recorded_and_needs_its_own_right_in_its_own_environment(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        await _keep(world, True)
        asked = await world.chat("hello")
        path = f"/admin/v1/audit/content/{asked.headers['x-freehold-request-id']}"
        wanted = KeyRequest(world.tenant_id, Environment.PROD, "other", frozenset({Scope.AUDIT}))
        _, prod = world.gateway.keyring.mint(wanted)
        assert prod is not None
        for key, status in (
            (world.mint(Scope.ADMIN), 403), (world.mint(Scope.AUDIT), 200), (prod.reveal(), 404),
        ):  # fmt: skip
            headers = {"authorization": f"Bearer {key}"}
            async with httpx2.AsyncClient(base_url=world.url, headers=headers) as client:
                assert (await client.get(path)).status_code == status
        acts = [each["body"] for each in await _listed(world, kind="act")]
        read = [act for act in acts if act["act"] == "content.read"]
        assert [act["object"] for act in read] == [asked.headers["x-freehold-request-id"]]
        assert (await _content(world, asked, "DELETE")).status_code == 200
        assert (await _content(world, asked)).status_code == 404
        assert (await _content(world, asked, "DELETE")).status_code == 404
        _is_whole(world)


async def test_what_is_kept_is_bounded_and_goes_with_its_subject(tmp_path: Path) -> None:
    async with running(tmp_path, context=10**6) as world:
        await world.replica.ensure_ready(20)
        await _keep(world, True)
        long = await world.chat("a " * MOST_BYTES, user="mira")
        assert long.status_code == 200, long.text
        found = (await _content(world, long)).json()
        assert (len(found["asked"]), found["cut"]) == (MOST_BYTES, True)
        assert (await _forget(world, "mira")).is_success
        assert (await _content(world, long)).status_code == 404
