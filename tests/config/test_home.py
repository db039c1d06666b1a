"""The home folder: for its owner only, for one process at a time, its files whole."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from freehold.config.home import Home, read_or_create_secret, write_private
from freehold.core.errors import Code, UserError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    before = os.umask(0)
    try:
        home.create()
        with home.lock():
            write_private(home.admin_key, b"x")
    finally:
        os.umask(before)

    folders = [home.path, *(path for path in home.path.rglob("*") if path.is_dir())]
    assert len(folders) == 6
    assert {_mode(path) for path in folders} == {0o700}
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"lock", "admin.key"}
    assert {_mode(path) for path in files} == {0o600}


def test_folders_that_others_may_read_are_closed_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.path.chmod(0o755)
    home.secrets.chmod(0o777)
    home.create()
    assert _mode(home.path) == _mode(home.secrets) == 0o700


def test_a_home_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(UserError) as refused:
            Home(path).create()
        assert refused.value.code is Code.CONFIG_INVALID
        assert str(path) in refused.value.message


def test_everything_of_an_installation_is_inside_its_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    names = [name for name, value in vars(Home).items() if isinstance(value, property)]
    assert len(names) >= 9
    for name in names:
        assert getattr(home, name).is_relative_to(tmp_path), name


_HOLD = """
import sys
from pathlib import Path
from freehold.config.home import Home
with Home(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone_however_it_went(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError) as refused, home.lock():
            pass
        assert refused.value.code is Code.HOME_IN_USE
        assert "freehold down" in refused.value.message
        with Home(tmp_path / "other").lock():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with home.lock():
        pass
    with home.lock():
        pass


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.lock():
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with home.lock():
            pass
    finally:
        child.kill()
        child.wait()


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "record"
    sizes = {0, 100_000}
    write_private(path, b"")
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(len(path.read_bytes()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(60):
        write_private(path, b"x" * (100_000 * (number % 2)))
    stop.set()
    watcher.join()

    assert seen <= sizes
    assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pepper"
    write_private(path, b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pepper"
    synced: list[bytes] = []
    real = os.fsync

    def watch(handle: int) -> None:
        real(handle)
        synced.extend(file.read_bytes() for file in tmp_path.iterdir() if file != path)

    monkeypatch.setattr(os, "fsync", watch)
    write_private(path, b"whole")
    assert synced == [b"whole"]


def test_a_secret_is_made_once_and_read_ever_after(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    first = read_or_create_secret(path, 32, may_create=True)
    assert len(first) == 32
    assert len(set(first)) > 8
    assert _mode(path) == 0o600
    assert read_or_create_secret(path, 32, may_create=True) == first
    assert read_or_create_secret(path, 32, may_create=False) == first
    assert read_or_create_secret(tmp_path / "other", 32, may_create=True) != first


def test_a_secret_that_data_need_is_never_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    with pytest.raises(UserError, match="restore it from a backup") as missing:
        read_or_create_secret(path, 32, may_create=False)
    assert missing.value.code is Code.CONFIG_INVALID
    assert not path.exists()

    path.write_bytes(b"cut off")
    with pytest.raises(UserError, match="holds 7 bytes where 32 are expected"):
        read_or_create_secret(path, 32, may_create=True)
    assert path.read_bytes() == b"cut off"
