"""A full disk, of each of those that must hold a request or its record, alone: new work is
refused and told why, and goes on by itself once there is room, with no half record."""

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.secure import audit, checkpoints
from freehold.store import journal
from tests.harness import Running, running
from tests.store.disk import put_under

_SAID = {
    "database": "database or disk is full",
    "checkpoints": "the checkpoints: No space left on device",
    "copy": "a copy of the records: No space left on device",
    "journal": "the journal",
}
Fill = Callable[[Running], Callable[[], None]]  # and what empties it again


def _database(world: Running) -> Callable[[], None]:
    connection = world.gateway.store._writer.raw_connection()

    def most(pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]

    most(1)  # SQLite takes the size that it has already
    return lambda: most(2**30)


def _copy(world: Running) -> Callable[[], None]:
    """The file of today is a device without room, as the kernel has one."""
    (path,) = (world.home.path / "copy").iterdir()
    kept = path.with_suffix(".kept")
    path.rename(kept)
    path.symlink_to("/dev/full")
    return lambda: (path.unlink(), kept.rename(path))[0]


@pytest.mark.parametrize("full", _SAID)
async def test_new_work_is_refused_with_the_reason_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    fills: dict[str, Fill] = {"database": _database, "copy": _copy}
    if full in ("checkpoints", "journal"):
        disk = put_under({"checkpoints": checkpoints, "journal": journal}[full], monkeypatch)

        def fill(world: Running) -> Callable[[], None]:
            disk.break_calls(("pwrite",), errno.ENOSPC)
            return disk.mend

        fills[full] = fill
    copies = [str(tmp_path / "copy")] if full == "copy" else []
    async with running(tmp_path, audit={"copies": copies}) as world:
        await world.replica.ensure_ready(20)
        assert (await world.chat("before")).status_code == 200
        world.gateway.ledger.flush()
        empty = fills[full](world)
        async with asyncio.timeout(30):
            while (answer := await world.chat("meanwhile")).status_code == 200:
                await asyncio.sleep(0.01)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert _SAID[full] in answer.json()["error"]["message"]
        async with world.http() as client:
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert _SAID[full] in str(ready.json()["reasons"])
            if full in ("checkpoints", "copy"):
                refused = await client.post("/admin/v1/keys", json={"name": "x"})
                assert refused.status_code == 503, refused.text
            empty()
            async with asyncio.timeout(30):
                while (await world.chat("after")).status_code != 200:
                    await asyncio.sleep(0.05)
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
            made = await client.post("/admin/v1/keys", json={"name": "x"})
            assert made.status_code == 201, made.text
        rows = world.records()
        assert all(row["settled_at_us"] for row in rows)
        _is_whole(world, len(rows))


def _is_whole(world: Running, requests: int) -> None:
    store = world.gateway.store
    folder = Path(store.fact("audit_checkpoints") or "")
    public = checkpoints.Ed25519PublicKey.from_public_bytes(
        bytes.fromhex(store.fact("audit_key") or "")
    )
    signed = checkpoints.signed(folder, public)
    kinds: list[str] = []
    for stream in store.audit_heads():
        records = list(store.audit_trail(stream))
        assert audit.verify(stream, records, signed.hashes[stream]) == (len(records), None)
        kinds += [json.loads(record.body)["kind"] for record in records]
    assert kinds.count("request") == requests
    copy = world.home.path / "copy"
    if copy.exists():
        lines = [line for path in copy.iterdir() for line in path.read_text().splitlines()]
        assert len({json.loads(line)["hash"] for line in lines}) == len(lines) == len(kinds)
