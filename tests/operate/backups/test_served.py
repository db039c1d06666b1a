"""Backups that a gateway makes by itself or is asked for."""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.binding import Scope
from freehold.core.errors import Code, UserError
from freehold.operate.backups import archive
from freehold.operate.backups.served import Backups
from freehold.secure import age
from freehold.store.sql import SqlStore
from tests.harness import running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    SqlStore(made.database).close()
    return made


def _settings(folder: Path, **fields: object) -> tuple[Settings, str]:
    secret, public = age.new_identity()
    folder.mkdir(exist_ok=True)
    (folder / "recipient").write_text(public)
    found = {"recipient": str(folder / "recipient"), "folder": str(folder / "kept"), **fields}
    return Settings.model_validate({"backup": found}), secret


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_is_made_when_it_is_time_and_the_oldest_go(home: Home, tmp_path: Path) -> None:
    settings, _ = _settings(tmp_path / "b", every_h=1, keep=2)
    folder = tmp_path / "b" / "kept"
    folder.mkdir()
    old = [f"freehold-2020010{day}-000000.tar.gz.age" for day in (1, 2, 3)]
    for name in [*old, "mine.tar.gz.age", "freehold-20200101-000000.tar.gz"]:
        (folder / name).write_text("x")
        os.utime(folder / name, (1, 1))
    backups = Backups(home, settings, home.settings)
    backups.start()
    await _until(lambda: not (folder / old[1]).exists())
    await backups.stop()
    names = {path.name for path in folder.iterdir()}
    assert {"mine.tar.gz.age", "freehold-20200101-000000.tar.gz", old[2]} < names
    assert len(names) == 4
    again = Backups(home, settings, home.settings)
    again.start()  # the youngest is young
    await asyncio.sleep(0)
    await again.stop()
    assert {path.name for path in folder.iterdir()} == names


async def test_a_failure_of_one_is_told(home: Home, tmp_path: Path) -> None:
    settings, _ = _settings(tmp_path / "b", every_h=1)
    (tmp_path / "b" / "kept").write_text("a file where the folder should be")
    heard: list[str] = []
    backups = Backups(home, settings, home.settings, heard.append)
    backups.start()
    await _until(lambda: bool(heard))
    await backups.stop()
    assert "cannot be used" in heard[0]


async def test_a_gateway_that_is_asked_makes_one_that_opens(tmp_path: Path) -> None:
    settings, secret = _settings(tmp_path / "b")
    backup = settings.backup.model_dump()
    async with running(tmp_path / "home", backup=backup) as world, world.http() as client:
        made = await client.post("/admin/v1/backups")
        assert made.status_code == 201, made.text
        path = Path(made.json()["path"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        listed = (await client.get("/admin/v1/backups")).json()["data"]
        assert [each["name"] for each in listed] == [path.name]
        client.headers["authorization"] = f"Bearer {world.mint(Scope.ADMIN)}"
        for refused in (
            await client.get("/admin/v1/backups"), await client.post("/admin/v1/backups"),
        ):  # fmt: skip
            assert refused.status_code == 403
    opener = age.identities(secret)
    found = archive.unpack(path, opener, lambda name: None, lambda count: None)
    assert {"freehold.db", "secrets/pepper"} < found.digests.keys()


async def test_without_a_recipient_a_gateway_makes_none(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as world, world.http() as client:
        refused = await client.post("/admin/v1/backups")
        assert refused.status_code == 409
        assert "backup.recipient" in refused.text
        assert (await client.get("/admin/v1/backups")).json() == {"data": []}


async def test_secrets_are_not_backed_up_by_themselves_for_nobody(home: Home) -> None:
    with pytest.raises(UserError, match=r"needs backup\.recipient") as refused:
        Backups(home, Settings.model_validate({"backup": {"every_h": 24}}), home.settings)
    assert refused.value.code is Code.CONFIG_INVALID
