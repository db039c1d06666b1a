"""Tenants on one gateway: let in or not, computed together or apart, and in step with what
any other process writes into the same database."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.catalog.adapters import stage
from freehold.core.binding import Environment, Scope
from freehold.core.tenant import IsolationClass
from freehold.engines.fake import tokens_for
from freehold.secure.keys import KeyRequest
from tests.catalog.making import peft_folder
from tests.harness import Running, asked, running
from tests.serve.test_adapters import _stock

_TENANT = "ten_acme"


@contextlib.asynccontextmanager
async def _house(
    folder: Path, isolation: IsolationClass = IsolationClass.SHARED, **options: Any
) -> AsyncIterator[tuple[Running, str]]:
    """A gateway, and the key of a tenant whose alias `bot` leads to the model."""
    async with running(_stock(folder / "home"), **options) as world:
        await world.replica.ensure_ready(20)
        world.gateway.store.add_tenant(_TENANT, "acme", 1, isolation)
        await world.gateway.access.refresh()
        key = _key(world)
        await _led(world)
        yield world, key


def _key(world: Running, *scopes: Scope) -> str:
    wanted = KeyRequest(_TENANT, Environment.DEV, "k", frozenset(scopes or {Scope.INFER}))
    _, key = world.gateway.keyring.mint(wanted)
    assert key is not None
    return key.reveal()


async def _led(world: Running, alias: str = "bot", **fields: Any) -> None:
    body = {"alias": alias, "base": "fake-model", "tenant": "acme", **fields}
    await _done(world, "POST", "/admin/v1/routes", body)


async def _done(world: Running, method: str, path: str, body: Any = None) -> Any:
    async with world.http() as client:
        answer = await client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()


async def _ask(
    world: Running, key: str, prompt: str = "hello", model: str = "bot", **fields: Any
) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        base_url=world.url, headers=headers, timeout=60, verify=False
    ) as client:
        return await client.post("/v1/chat/completions", json=asked(prompt, model=model, **fields))


def _text(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def _pids(world: Running) -> dict[str, int | None]:
    return {
        name: replica.pid
        for name, pool in world.gateway.pools.items()
        for replica in pool.status().replicas
    }


# let in or not

_CUTS: dict[str, Callable[[Running, str], Any]] = {
    "the tenant is disabled": lambda world, _: _done(
        world, "PATCH", "/admin/v1/tenants/acme", {"disabled": True}
    ),
    "the tenant is removed": lambda world, _: _done(
        world, "DELETE", "/admin/v1/tenants/acme?force=true"
    ),
    "the key is revoked": lambda world, key: _done(
        world, "DELETE", f"/admin/v1/keys/{_id(key)}?tenant=acme"
    ),
    "another process disables the tenant": lambda world, _: _elsewhere(
        world, f"store.disable_tenant({_TENANT!r}, 5)"
    ),
    "another process revokes the key": lambda world, key: _elsewhere(
        world, f"store.revoke_key({_TENANT!r}, {_id(key)!r}, 5)"
    ),
}


def _id(key: str) -> str:
    return "key_" + key.split("_")[2]


async def _elsewhere(world: Running, call: str) -> None:
    program = (
        "import sys; from pathlib import Path; from freehold.store.sql import SqlStore\n"
        f"store = SqlStore(Path(sys.argv[1])); {call}; store.close()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(world.home.database)
    )
    assert await process.wait() == 0


@pytest.mark.parametrize("cut", _CUTS)
async def test_who_loses_access_is_refused_and_cut_and_nobody_else_is(
    tmp_path: Path, cut: str
) -> None:
    """An open stream gets its tokens billed and an error for its end."""
    async with _house(tmp_path) as (world, key):
        assert (await _ask(world, key)).status_code == 200
        prompt, other = "[[slow 0.05]] [[tokens 2000]] mine", "[[slow 0.05]] theirs"
        mine = asyncio.create_task(_ask(world, key, prompt, stream=True, max_tokens=2000))
        theirs = asyncio.create_task(_ask(world, world.key, other, model="fake-model", stream=True))
        await _until(lambda: len(world.gateway.watch) == 2)
        await _until(
            lambda: all(each.meter.tokens_out > 2 for each in world.gateway.watch.running())
        )

        await _CUTS[cut](world, key)

        answer = await asyncio.wait_for(mine, 10)
        assert answer.status_code == 200, "it had begun"
        assert "access_ended" in answer.text
        assert "[DONE]" not in answer.text
        assert "[DONE]" in (await theirs).text
        assert (await _ask(world, key)).status_code in (401, 403)
        assert (await _ask(world, world.key, model="fake-model")).status_code == 200
        world.gateway.ledger.flush()
        rows = world.gateway.store.records(_TENANT, 10)
        ended = [row for row in rows if row["error_code"] == "access_ended"]
        assert [row["outcome"] for row in ended] == ["refused"]
        assert ended[0]["tokens_out"] > 2


async def test_a_body_that_arrives_after_the_key_ended_is_not_answered(tmp_path: Path) -> None:
    async with (
        _house(tmp_path) as (world, key),
        httpx2.AsyncClient(base_url=world.url, timeout=30, verify=False) as client,
    ):
        held = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b'{"model": "bot",'
            await held.wait()
            yield b'"messages": [{"role": "user", "content": "x"}]}'

        headers = {"authorization": f"Bearer {key}"}
        await client.get("/v1/models", headers=headers)
        asking = asyncio.create_task(
            client.post("/v1/chat/completions", content=body(), headers=headers)
        )
        await asyncio.sleep(0.2)
        world.gateway.keyring.revoke(_TENANT, _id(key))
        held.set()
        assert _code(await asking) == (401, "invalid_api_key")


async def test_a_tenant_that_is_let_in_again_finds_all_as_it_was(tmp_path: Path) -> None:
    async with _house(tmp_path) as (world, key):
        before = _text(await _ask(world, key))
        for disabled, expected in ((True, 403), (False, 200), (True, 403), (False, 200)):
            body = {"disabled": disabled}
            shown = await _done(world, "PATCH", "/admin/v1/tenants/acme", body)
            assert shown["state"] == ("disabled" if disabled else "active")
            assert (await _ask(world, key)).status_code == expected
        assert _text(await _ask(world, key)) == before


async def test_only_who_operates_the_installation_sees_others_or_changes_tenants(
    tmp_path: Path,
) -> None:
    async with _house(tmp_path) as (world, _):
        admin = _key(world, Scope.ADMIN, Scope.INFER)
        world.gateway.store.add_tenant("ten_other", "other", 1)
        await world.gateway.access.refresh()
        async with httpx2.AsyncClient(
            base_url=world.url, headers={"authorization": f"Bearer {admin}"}
        ) as client:
            for method, path, body in (
                ("POST", "", {"name": "x"}), ("PATCH", "/acme", {"disabled": True}),
                ("PATCH", "/other", {"disabled": True}), ("DELETE", "/acme?force=true", None),
            ):  # fmt: skip
                answer = await client.request(method, f"/admin/v1/tenants{path}", json=body)
                assert _code(answer) == (403, "insufficient_permissions")
            listed = (await client.get("/admin/v1/tenants")).json()["data"]
            assert [each["name"] for each in listed] == ["acme"]
            assert (await client.get("/admin/v1/tenants/acme")).is_success
            for name in ("nobody", "other", "ten_other"):
                asked = await client.get(f"/admin/v1/tenants/{name}")
                assert _code(asked) == (404, "not_found")
            status = await client.get("/admin/v1/status")
            assert _code(status) == (403, "insufficient_permissions")


# computed together or apart


async def test_a_dedicated_tenant_has_a_process_of_its_own_and_its_adapters_are_there_only(
    tmp_path: Path,
) -> None:
    async with _house(tmp_path, IsolationClass.DEDICATED) as (world, key):
        assert _text(await _ask(world, key))
        own = f"fake-model@{_TENANT}"
        pids = _pids(world)
        assert set(pids) == {"fake-model", own}
        assert pids["fake-model"] != pids[own]
        ticket = stage(world.home.path, peft_folder(tmp_path / "a", 3))
        added = await _done(
            world, "POST", "/admin/v1/adapters",
            {"upload": ticket, "base": "fake-model", "name": "a", "tenant": "acme"},
        )  # fmt: skip
        await _led(world, "under", adapter="a")
        digest = added["digest"]
        assert _text(await _ask(world, key, model="under")) == "".join(
            tokens_for("hello", 16, digest)
        )
        pools = world.gateway.pools
        assert pools[own].adapters is not None
        assert digest in pools[own].adapters
        assert pools["fake-model"].adapters is not None
        assert digest not in pools["fake-model"].adapters
        assert _pids(world) == pids, "an adapter needs no new process"
        # Nobody else's route leads there, and who is told of the pools sees both.
        assert (
            world.gateway.directory.routes(world.tenant_id, Environment.DEV)["fake-model"].pool
            == "fake-model"
        )
        assert (await _ask(world, world.key, model="fake-model")).status_code == 200


async def test_a_route_into_the_pool_of_another_tenant_is_not_served(tmp_path: Path) -> None:
    async with _house(tmp_path, IsolationClass.DEDICATED) as (world, key):
        await _ask(world, key)
        shared = world.gateway.pools
        assert isinstance(shared, dict)
        shared["fake-model"] = shared[f"fake-model@{_TENANT}"]  # as a mistake of ours would be
        answer = await _ask(world, world.key, model="fake-model")
        assert _code(answer) == (500, "internal_error")


async def test_the_class_of_a_tenant_changes_under_load_without_an_error(tmp_path: Path) -> None:
    """Each way: what runs ends where it began, and pools that nobody needs are stopped."""
    async with _house(tmp_path) as (world, key):
        ticket = stage(world.home.path, peft_folder(tmp_path / "a", 4))
        added = await _done(
            world, "POST", "/admin/v1/adapters",
            {"upload": ticket, "base": "fake-model", "name": "a", "tenant": "acme"},
        )  # fmt: skip
        await _led(world, adapter="a")
        expected = "".join(tokens_for("hello", 16, added["digest"]))
        is_over, count = asyncio.Event(), 0

        async def keep_asking() -> None:
            nonlocal count
            while not is_over.is_set():
                assert _text(await _ask(world, key)) == expected
                count += 1

        asking = [asyncio.create_task(keep_asking()) for _ in range(3)]
        for isolation in ("dedicated", "weights", "shared", "weights", "dedicated", "shared"):
            before = count
            await _done(world, "PATCH", "/admin/v1/tenants/acme", {"isolation": isolation})
            route = world.gateway.directory.routes(_TENANT, Environment.DEV)["bot"]
            assert ("@" in route.pool, "+weights" in route.pool) == (
                isolation != "shared", isolation == "weights",
            )  # fmt: skip
            await _until(lambda: count > before + 3)  # noqa: B023
        is_over.set()
        await asyncio.gather(*asking)
        await _until(lambda: set(world.gateway.pools) == {"fake-model"})
        adapters = world.gateway.pools["fake-model"].adapters
        assert adapters is not None
        assert added["digest"] in adapters


async def test_own_weights_are_another_copy_that_goes_with_the_last_pool(tmp_path: Path) -> None:
    async with _house(tmp_path, IsolationClass.WEIGHTS) as (world, key):
        assert _text(await _ask(world, key))
        folder = world.home.cache / "tenants" / _TENANT / "weights"
        (copy,) = folder.iterdir()
        (original,) = (world.home.path / "blobs" / "sha256").glob(copy.name)
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_ino != original.stat().st_ino
        assert copy.stat().st_nlink == 1
        assert copy.stat().st_mode & 0o777 == 0o400
        await _done(world, "PATCH", "/admin/v1/tenants/acme", {"isolation": "dedicated"})
        await _until(lambda: not folder.exists())
        assert _text(await _ask(world, key))


async def test_own_pools_come_and_go_with_the_routes_and_the_tenant(tmp_path: Path) -> None:
    async with _house(tmp_path, IsolationClass.DEDICATED) as (world, key):
        own, alone = f"fake-model@{_TENANT}", {"fake-model"}
        assert set(world.gateway.pools) == alone | {own}
        await _done(world, "DELETE", "/admin/v1/routes/bot?tenant=acme")
        await _until(lambda: set(world.gateway.pools) == alone)
        await _led(world)
        assert set(world.gateway.pools) == alone | {own}
        assert (await _ask(world, key)).status_code == 200
        await _done(world, "PATCH", "/admin/v1/tenants/acme", {"disabled": True})
        await _until(lambda: set(world.gateway.pools) == alone)
        await _done(world, "PATCH", "/admin/v1/tenants/acme", {"disabled": False})
        assert set(world.gateway.pools) == alone | {own}
        assert (await _ask(world, key)).status_code == 200


async def test_a_tenants_own_pool_that_does_not_start_keeps_nobody_else_waiting(
    tmp_path: Path,
) -> None:
    """Without the file that its copy would be made of; it is made once that is there."""
    async with _house(tmp_path) as (world, key):
        (blob,) = (world.home.path / "blobs" / "sha256").iterdir()
        blob.rename(tmp_path / "away")
        await _done(world, "PATCH", "/admin/v1/tenants/acme", {"isolation": "weights"})
        assert _code(await _ask(world, key)) == (503, "engine_unavailable")
        assert (await _ask(world, world.key, model="fake-model")).status_code == 200
        assert (await _done(world, "GET", "/readyz"))["status"] == "ready"
        (tmp_path / "away").rename(blob)
        await world.gateway.fleet.start_missing()
        assert _text(await _ask(world, key))


async def test_what_anybody_may_read_names_no_tenant_and_no_alias(tmp_path: Path) -> None:
    async with _house(tmp_path, IsolationClass.DEDICATED) as (world, key):
        await _ask(world, key)
        async with httpx2.AsyncClient(base_url=world.url, verify=False) as anybody:
            told = (await anybody.get("/metrics")).text + (await anybody.get("/readyz")).text
        assert 'freehold_replicas{pool="fake-model",state="ready"} 2.0' in told
        assert 'model="fake-model"' in told
        for secret in ("bot", "acme", _TENANT):
            assert secret not in told
