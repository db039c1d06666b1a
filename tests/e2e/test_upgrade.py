"""An upgrade while requests run: the gateways of two versions on one database, and back."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from freehold.secure import audit
from freehold.store.postgres import Postgres
from freehold.store.sql import SqlStore
from freehold.store.subjects import AuditReader
from tests.harness import Running, asked, running
from tests.newer import REVISION, newer


class _Traffic:
    """Requests without an end to one gateway, some under keys that make them idempotent."""

    def __init__(self, world: Running) -> None:
        self.world = world
        self.answers: list[httpx2.Response] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        ended = asyncio.Event()
        async with self.world.http() as client, asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(self._ask(client, number, ended))
            await self.more()
            try:
                yield
                await self.more()
            finally:
                ended.set()

    async def more(self) -> None:
        count = len(self.answers) + 12
        async with asyncio.timeout(30):
            while len(self.answers) < count:
                await asyncio.sleep(0.005)

    async def _ask(self, client: httpx2.AsyncClient, number: int, ended: asyncio.Event) -> None:
        while not ended.is_set():
            given = {"idempotency-key": secrets.token_hex()} if number % 2 else {}
            path = "/v1/chat/completions" if number else "/admin/v1/audit?limit=1"
            body = asked(f"[[slow 0.01]] {number}", stream=number == 1) if number else None
            method = "POST" if number else "GET"
            self.answers.append(await client.request(method, path, json=body, headers=given))


@pytest.mark.slow
async def test_no_request_fails_while_another_gateway_upgrades_the_database_and_goes_back(
    tmp_path: Path,
    postgres_database: Callable[[], Postgres],
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = postgres_database()
    where = {name: replace(database, gateway=f"gw_{name}") for name in ("old", "new")}
    async with running(tmp_path / "old", database=where["old"]) as old:
        shutil.copytree(tmp_path / "old" / "secrets", tmp_path / "new" / "secrets")
        traffic = [_Traffic(old)]
        async with traffic[0].running():
            with newer(tmp_path):
                await asyncio.to_thread(_upgrade, where["new"])
                async with running(tmp_path / "new", database=where["new"]) as new:
                    assert new.gateway.store.newer_schema is None
                    new.key = old.key
                    traffic.append(_Traffic(new))
                    async with traffic[1].running():
                        await traffic[0].more()
            await traffic[0].more()
        count = _answered(traffic)
        assert len(await old.settled(count)) == count

    async with running(tmp_path / "old", database=where["old"]) as back:
        assert back.gateway.store.newer_schema == REVISION
        traffic.append(_Traffic(back))
        back.key = old.key
        async with traffic[2].running():
            pass
        count = _answered(traffic)
        rows = await back.settled(count)
        assert {row["outcome"] for row in rows} == {"ok"}
    assert "not_followed" not in caplog.text
    for name in ("old", "new"):
        _is_on_record(where[name])


def _upgrade(where: Postgres) -> None:
    SqlStore(where).close()


def _answered(traffic: list[_Traffic]) -> int:
    """How many requests for answers there were; none failed."""
    answers = [each for one in traffic for each in one.answers]
    assert [each.text for each in answers if each.status_code != 200] == []
    return sum(each.request.method == "POST" for each in answers)


def _is_on_record(where: Postgres) -> None:
    reader = AuditReader(where)
    try:
        path = Path(reader.fact(reader.own("audit_checkpoints")) or "")
        counts, findings = audit.verified(reader, path, audit.public_key(reader))
    finally:
        reader.close()
    assert findings == []
    assert counts
