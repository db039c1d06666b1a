"""Personal fields of audit records: sealed before anything is written, readable for those who
read the records, until somebody forgets whom they are about; also in older copies."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from freehold.cli.at_rest import opening
from freehold.config.home import Home
from freehold.core.binding import Scope
from freehold.core.errors import Fault, UserError
from freehold.secure import audit, checkpoints
from freehold.store.sql import SqlStore
from tests.harness import Running, asked, running
from tests.issuer import token
from tests.serve.test_people import _ask, _world

_MIRA = "Mira Jones <mira@example.com>"


async def _listed(world: Running, **query: Any) -> list[dict[str, Any]]:
    async with world.http() as client:
        answer = await client.get("/admin/v1/audit", params=query)
    assert answer.status_code == 200, answer.text
    return [each | {"body": json.loads(each["body"])} for each in answer.json()["data"]]


async def _requests(world: Running) -> list[dict[str, Any]]:
    return [each for each in await _listed(world) if each["body"]["kind"] == "request"]


async def _forget(world: Running, subject: str, key: str = "") -> httpx2.Response:
    headers = {"authorization": f"Bearer {key or world.key}"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers) as client:
        return await client.delete(f"/admin/v1/subjects/{quote(subject, safe='')}")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_record_tells_who_asked_from_where_and_for_whom_and_no_file_does(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, audit={"copies": [str(tmp_path / "copy")]}) as world:
        await world.replica.ensure_ready(20)
        assert (await world.chat("one", user=_MIRA)).is_success
        async with world.http() as client:
            headers = {"x-freehold-user": "of the header"}
            body = asked("two", user=_MIRA)
            two = await client.post("/v1/chat/completions", json=body, headers=headers)
            assert two.is_success
            for bad in ("", "x" * 257, "a\u0085b"):
                given = {"x-freehold-user": bad.encode("latin-1")}
                refused = await client.post("/v1/chat/completions", json=body, headers=given)  # type: ignore[arg-type]
                assert refused.status_code == 400, bad
        world.gateway.ledger.flush()
        first, second = (each["personal"] for each in await _requests(world))
        assert first == {"name": "test", "address": "127.0.0.1", "user": _MIRA}
        assert second["user"] == "of the header"
        for path, content in _files(tmp_path).items():
            assert b"Mira" not in content, path
            assert b"mira@" not in content, path
            assert b"of the header" not in content, path


async def test_whoever_is_forgotten_cannot_be_read_of_and_the_chain_holds(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        for user in (_MIRA, "somebody else", _MIRA):
            assert (await world.chat("hello", user=user)).is_success
        wrapped = [key.wrapped for key in world.gateway.store.every_subject_key()]
        answer = await _forget(world, _MIRA)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data_keys"] == 1
        assert answer.json()["id"].startswith("usr_")
        assert "Mira" not in answer.text
        known = [each["personal"] for each in await _requests(world)]
        assert known[0] == known[2] == "forgotten"
        assert known[1]["user"] == "somebody else"
        _is_whole(world)
        (act,) = await _listed(world, level="tenant", after=1)
        assert (act["body"]["act"], act["body"]["object"]) == (
            "subject.forget", answer.json()["id"],
        )  # fmt: skip
        left = [key.wrapped for key in world.gateway.store.every_subject_key()]
        (gone,) = set(wrapped) - set(left)
        for path, content in _files(tmp_path).items():
            assert gone is not None
            assert gone not in content, path
        assert (await world.chat("again", user=_MIRA)).is_success
        assert (await _requests(world))[-1]["personal"]["user"] == _MIRA, "that is known anew"


async def test_a_forgotten_key_loses_its_name_and_its_acts_their_address(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(20)
        async with world.http() as client:
            made = (await client.post("/admin/v1/keys", json={"name": "Mira's"})).json()
            act = (await _listed(world))[-1]
            assert act["personal"] == {"name": "test", "address": "127.0.0.1", "about": "Mira's"}
            assert (await _forget(world, made["id"])).is_success
            assert (await _listed(world))[-1]["personal"] == "forgotten"
            keys = (await client.get("/admin/v1/keys")).json()["data"]
        assert [key["name"] for key in keys if key["id"] == made["id"]] == ["forgotten"]
        again = await _forget(world, made["id"])
        assert again.status_code == 200
        assert (await _forget(world, "key_nobody")).status_code == 404
        assert (await _forget(world, made["id"], world.mint(Scope.AUDIT))).status_code == 403


async def test_a_person_is_known_by_name_until_forgotten(tmp_path: Path) -> None:
    async with _world(tmp_path) as (world, issuer):
        assert (await _ask(world, token(issuer, sub="mira", email="mira@example.com"))).is_success
        (record,) = await _requests(world)
        assert record["personal"] == {
            "issuer": issuer.url, "subject": "mira", "email": "mira@example.com",
            "address": "127.0.0.1",
        }  # fmt: skip
        assert (await _forget(world, record["body"]["principal"])).is_success
        (record,) = await _requests(world)
        assert record["personal"] == "forgotten"


async def test_an_older_database_that_is_put_back_forgets_again(tmp_path: Path) -> None:
    home, old = tmp_path / "home", tmp_path / "old.db"
    async with running(home) as world:
        await world.replica.ensure_ready(20)
        assert (await world.chat("hello", user=_MIRA)).is_success
        world.gateway.ledger.flush()
    shutil.copy(home / "freehold.db", old)
    async with running(home) as world:
        assert (await _forget(world, _MIRA)).is_success
    for path in home.glob("freehold.db*"):
        path.unlink()
    shutil.copy(old, home / "freehold.db")
    kept = home / "audit" / "checkpoints"
    forgotten = (kept / "forgotten.jsonl").read_bytes()
    for path in checkpoints.days(kept):  # as docs/audit.md says for a backup
        path.rename(tmp_path / path.name)
    store = SqlStore(home / "freehold.db")
    opening.open_audit(Home(home), store, begin=True).close()  # `freehold audit begin`
    store.close()
    async with running(home) as world:
        (record,) = await _requests(world)
        assert record["personal"] == "forgotten"
        _is_whole(world)
    store = SqlStore(home / "freehold.db")
    (kept / "forgotten.jsonl").write_bytes(forgotten.replace(b"usr_", b"usr-"))
    with pytest.raises(UserError, match="not as it was written"):
        opening.open_audit(Home(home), store)
    (kept / "forgotten.jsonl").unlink()
    witness = opening.open_audit(Home(home), store)
    with pytest.raises(UserError, match="Fewer are forgotten"):
        opening.forget_again(store, witness)
    witness.close()
    store.close()


async def test_what_is_no_personal_field_is_never_sealed_as_one(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        with pytest.raises(Fault, match="prompt"):
            world.gateway.subjects.seal_apart([("ten_a", "key_a")], {"prompt": "x"}, "req_1")
        await asyncio.sleep(0)


def _is_whole(world: Running) -> None:
    store = world.gateway.store
    folder = Path(store.fact("audit_checkpoints") or "")
    key = checkpoints.Ed25519PublicKey.from_public_bytes(
        bytes.fromhex(store.fact("audit_key") or "")
    )
    signed = checkpoints.signed(folder, key)
    for stream in store.audit_heads():
        records = list(store.audit_trail(stream, signed.first[stream] - 1))
        first = signed.first[stream]
        _, found = audit.verify(stream, records, signed.hashes[stream], first, first)
        assert found is None
