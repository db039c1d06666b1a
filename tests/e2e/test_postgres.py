"""Gateways on a real PostgreSQL: two of them on one database, and one whose database goes away
and comes back."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from freehold.cli.main import app
from freehold.core.binding import Environment
from freehold.core.departure import OnDeparture
from freehold.serve import peers
from freehold.store.postgres import Postgres
from tests import postgres
from tests.harness import Running, asked, running
from tests.serve.test_adapters import _added, _led, _post, _stock
from tests.serve.test_patterns import learned_elsewhere


@contextlib.asynccontextmanager
async def _two(folder: Path, where: Postgres) -> AsyncIterator[tuple[Running, Running]]:
    """With the same secrets, as two gateways on one database must have."""
    async with running(folder / "a", database=replace(where, gateway="gw_a")) as first:
        shutil.copytree(folder / "a" / "secrets", folder / "b" / "secrets")
        async with running(folder / "b", database=replace(where, gateway="gw_b")) as second:
            yield first, second


async def _ask(
    world: Running, key: str, model: str = "fake-model", **headers: str
) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=world.url, timeout=30) as client:
        return await client.post(
            "/v1/chat/completions",
            json=asked("hi") | {"model": model},
            headers={"authorization": f"Bearer {key}", **headers},
        )


async def _until(
    world: Running, key: str, status: int, model: str = "fake-model"
) -> httpx2.Response:
    async with asyncio.timeout(20):
        while (answer := await _ask(world, key, model)).status_code != status:
            await asyncio.sleep(0.02)
    return answer


async def test_a_key_that_one_gateway_revokes_is_refused_by_the_other(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _two(tmp_path, postgres_database()) as (first, second):
        key = first.mint()
        for world in (first, second):
            assert (await _ask(world, key)).status_code == 200
        record = next(
            each
            for each in first.gateway.store.keys(first.tenant_id)
            if each.name == "test" and each.scopes == {"infer"}
        )
        async with first.http() as client:
            ended = await client.delete(f"/admin/v1/keys/{record.id}")
            assert ended.status_code == 200
        assert (await _ask(first, key)).status_code == 401
        await _until(second, key, 401)
        assert (await _ask(second, second.key)).status_code == 200


async def test_a_route_that_one_gateway_sets_is_served_by_the_other(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _two(tmp_path, postgres_database()) as (first, second):
        assert (await _ask(second, second.key, "support")).status_code == 404
        store, tenant = first.gateway.store, first.tenant_id
        (bare,) = store.routes(tenant, Environment.DEV)
        store.set_route(tenant, replace(bare, id="rte_1", alias="support"))
        await _until(second, second.key, 200, "support")
        store.remove_route(tenant, Environment.DEV, "support")
        await _until(second, second.key, 404, "support")


async def test_one_idempotency_key_runs_once_on_two_gateways(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _two(tmp_path, postgres_database()) as (first, second):
        given = {"idempotency-key": "k"}
        one = await _ask(first, first.key, **given)
        assert one.status_code == 200
        await asyncio.to_thread(first.gateway.ledger.flush)
        again = await _ask(second, first.key, **given)
        assert again.content == one.content
        assert again.headers["x-freehold-replay-of"]
        assert len(second.records()) == 1


async def test_the_records_of_both_gateways_are_read_in_pages_by_time_each_once(
    tmp_path: Path,
    postgres_database: Callable[[], Postgres],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("freehold.cli.audit._PAGE", 2)
    async with _two(tmp_path, postgres_database()) as both:
        for world in both * 3:
            assert (await _ask(world, both[0].key)).status_code == 200
            await asyncio.to_thread(world.gateway.ledger.flush)
        async with both[0].http() as client:
            every = (await client.get("/admin/v1/audit?limit=1000")).json()["data"]
            assert len({each["stream"] for each in every}) == 2
            places = [
                (orjson.loads(each["body"])["at_us"], each["stream"], each["number"])
                for each in every
            ]
            assert places == sorted(set(places))
            assert len(places) > len({number for _, _, number in places})
            seen, following = [], ""
            for _ in places:
                page = await client.get(f"/admin/v1/audit?limit=1{following}")
                seen += page.json()["data"]
                following = f"&cursor={page.json()['next']}"
            assert (seen, following) == (every, "&cursor=None")
            wrong = await client.get("/admin/v1/audit?cursor=3")
            assert wrong.status_code == 400
        exported = await _command(both[1], "audit", "export")
        assert [orjson.loads(line) for line in exported.stdout.splitlines()] == every
        first = await _command(both[1], "audit", "list", "--json", "--limit", "2")
        cursor = first.stderr.split()[-1].rstrip("`.")
        second = await _command(both[1], "audit", "list", "--json", "--cursor", cursor)
        listed = [*orjson.loads(first.stdout), *orjson.loads(second.stdout)]
        assert [(each["stream"], each["number"]) for each in listed] == [
            place[1:] for place in places
        ]


async def _command(world: Running, *words: str) -> Result:
    """Of somebody who has the key, on another machine."""
    given = {"FREEHOLD_API_KEY": world.key, "FREEHOLD_URL": world.url}
    ended = await asyncio.to_thread(CliRunner(env=given).invoke, app, words)
    assert ended.exit_code == 0, ended.output
    return ended


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    """One that this test may stop."""
    alone = postgres.start(tmp_path_factory.mktemp("alone"))
    yield alone
    alone.process.cleanup()


async def test_a_database_that_goes_away_costs_nothing_that_was_admitted_and_lets_nobody_in(
    tmp_path: Path, server: postgres.Server
) -> None:
    async with running(tmp_path, database=server.new()) as world:
        known, unused = world.mint(), world.mint()
        await world.gateway.access.refresh()  # the first look lets all keys be asked for again
        assert (await _ask(world, known)).status_code == 200
        await asyncio.to_thread(server.process.stop)

        for _ in range(3):
            answer = await _ask(world, known)
            assert answer.status_code == 200, answer.text
        for key in (unused, "fh_dev_0_wrong"):
            refused = await _ask(world, key)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
        claimed = await _ask(world, known, **{"idempotency-key": "k"})
        assert claimed.status_code == 503
        async with world.http() as client:
            assert (await client.get("/admin/v1/keys")).status_code == 503

        await asyncio.to_thread(server.process.start)
        await _until(world, unused, 200)
        assert (await _ask(world, "fh_dev_0_wrong")).status_code == 401
        assert (await _ask(world, known, **{"idempotency-key": "k"})).status_code == 200
        rows = await world.settled(6)
        assert {row["outcome"] for row in rows} == {"ok"}
        async with world.http() as client:
            await _ready(client, 200)


async def test_a_gateway_that_hears_nothing_of_its_database_for_long_serves_nobody_until_it_does(
    tmp_path: Path, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, database=server.new()) as world:
        await world.gateway.access.refresh()
        assert (await _ask(world, world.key)).status_code == 200
        await asyncio.to_thread(server.process.stop)
        monkeypatch.setattr(peers, "_BLIND_S", 0.5)
        async with world.http() as client:
            unready = await _ready(client, 503)
            assert "the database does not answer" in unready.text
            refused = await _ask(world, world.key)
            assert refused.status_code == 503
            assert "revoked" in refused.text
            monkeypatch.undo()
            await asyncio.to_thread(server.process.start)
            await _until(world, world.key, 200)
            await _ready(client, 200)


async def _ready(client: httpx2.AsyncClient, status: int) -> httpx2.Response:
    async with asyncio.timeout(20):
        while (answer := await client.get("/readyz")).status_code != status:
            await asyncio.sleep(0.02)
    return answer


async def test_a_key_that_one_gateway_suspends_is_refused_by_the_other_until_it_is_confirmed(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    async with _two(tmp_path, postgres_database()) as (first, second):
        key = first.mint(on_departure=OnDeparture.SUSPEND)
        key_id = "key_" + key.split("_")[2]
        learned_elsewhere(first, key_id)
        for world in (second, first):
            assert (await _ask(world, key)).status_code == 200
        await first.gateway.patterns.look()
        for world in (second, first):
            refused = await _until(world, key, 403)
            assert refused.json()["error"]["code"] == "key_suspended"
        async with second.http() as client:
            assert (await client.post(f"/admin/v1/keys/{key_id}/confirm")).is_success
        assert (await _ask(second, key)).status_code == 200
        await _until(first, key, 200)


async def test_what_a_key_signed_that_one_gateway_revokes_is_served_by_the_other_no_more(
    tmp_path: Path, postgres_database: Callable[[], Postgres]
) -> None:
    where, peer = _stock(tmp_path / "a"), tmp_path / "b"
    async with _two(tmp_path, postgres_database()) as (first, second):
        await first.replica.ensure_ready(20)
        await _added(first, "support")
        shutil.copytree(where / "blobs", peer / "blobs", dirs_exist_ok=True)
        signing = "/admin/v1/adapters/support/signatures"
        assert (await _post(first, signing, None)).status_code == 201
        key = first.gateway.adapters.signatures.current
        await _led(first, "to-support", "support")
        for world in (first, second):
            await _until(world, world.key, 200, "to-support")
        for path in ("", f"/{key}/revoke"):
            answer = await _post(first, f"/admin/v1/signing-keys{path}", {} if path else None)
            assert answer.is_success, answer.text
        assert (await _ask(first, first.key, "to-support")).status_code == 503
        refused = await _until(second, second.key, 503, "to-support")
        assert f"by the key {key[:16]}, which was revoked here" in refused.text
        assert (await _post(first, signing, None)).status_code == 201
        await _until(second, second.key, 200, "to-support")
