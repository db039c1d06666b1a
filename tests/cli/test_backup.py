"""`freehold backup` and `freehold restore`: all comes back, or nothing changes."""

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import Result

from freehold.store import journal
from tests.adapt import tickets
from tests.catalog.making import peft_folder
from tests.cli.conftest import Run
from tests.installation import start, stock_tiny

_COUNT = 4
_PHRASE = "a passphrase for tests"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home at rest, in which some requests were answered."""
    home = tmp_path_factory.mktemp("used") / "home"
    home.mkdir(mode=0o700)
    stock_tiny(home)
    gateway = start(home, "--engine", "fake", "--model", "tiny")
    adapter = peft_folder(home.parent / "adapter", 8)
    added = gateway.run("adapter", "add", str(adapter), "--base", "tiny", "--name", "mine")
    assert added.returncode == 0, added.stderr
    file = str(tickets.write(home.parent / "tickets.jsonl", 20))
    words = ("--name", "tickets", "--licence", "LicenseRef-own", "--origin", "help desk")
    assert gateway.run("data", "add", file, *words).returncode == 0
    (home / "evals" / "of-tickets").mkdir(parents=True)
    (home / "evals" / "of-tickets" / "result.json").write_text("{}")
    for number in range(_COUNT):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"question {number}"}]}
        headers = {"authorization": f"Bearer {gateway.key}"}
        url = f"{gateway.url}/v1/chat/completions"
        assert httpx2.post(url, json=body, headers=headers, timeout=60).is_success
    gateway.stop()
    return home


@pytest.fixture
def run(used: Path, tmp_path: Path, commands: Callable[[Path], Run]) -> Run:
    """On a copy of that home, which a test may change."""
    shutil.copytree(used, tmp_path / "home", symlinks=True)
    (tmp_path / "phrase").write_text(f"{_PHRASE}\n")
    with closing(sqlite3.connect(tmp_path / "home" / "freehold.db")) as database, database:
        moved = (str(tmp_path / "home" / "audit" / "checkpoints"),)
        database.execute("UPDATE facts SET value = ? WHERE name = 'audit_checkpoints'", moved)
    return commands(tmp_path / "home")


def _said(ended: Result) -> Any:
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def _error(ended: Result) -> str:
    assert ended.exit_code == 1, ended.output
    message: str = json.loads(ended.stdout)["error"]["message"]
    assert "Traceback" not in ended.output
    return message


def _key(run: Run, folder: Path) -> Path:
    public = _said(run("backup", "key", str(folder / "identity"), "--json"))["recipient"]
    assert stat.S_IMODE((folder / "identity").stat().st_mode) == 0o600
    (folder / "recipient").write_text(public)
    return folder / "recipient"


def test_all_of_it_comes_back_in_another_home(run: Run, tmp_path: Path) -> None:
    home, new, recipient = tmp_path / "home", tmp_path / "new", _key(run, tmp_path)
    file = tmp_path / "b.age"
    made = _said(run("backup", str(file), "--recipient", str(recipient), "--json"))
    assert made["notes"] == []
    assert made["encrypted"] is True
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    assert (home / "secrets" / "pepper").read_bytes() not in content
    assert not list((home / "cache").glob("backup*"))

    identity = ("--identity", str(tmp_path / "identity"))
    checked = _said(run("backup", "verify", str(file), *identity, "--json"))
    assert checked["audit_records"] >= _COUNT
    assert checked["missing"] == []
    done = _said(run("restore", str(file), "--home", str(new), *identity, "--json"))
    assert done["home"] == str(new)
    assert done["moved_aside"] is None
    assert done["lacks_models"] == ["tiny"]
    assert done["lacks_secrets"] is False
    for name in ("secrets/pepper", "secrets/audit", "admin.key"):
        assert (new / name).read_bytes() == (home / name).read_bytes()
        assert stat.S_IMODE((new / name).stat().st_mode) == 0o600
    kept = {path.name for path in (new / "blobs" / "sha256").iterdir()}
    assert len(kept) == 2  # the adapter's two files
    assert kept < {path.name for path in (home / "blobs" / "sha256").iterdir()}
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    data = _files(new / "data")
    assert len(data) == 3
    assert data == _files(home / "data")
    assert (new / "evals" / "of-tickets" / "result.json").read_text() == "{}"


def test_secrets_are_never_written_in_clear(run: Run, tmp_path: Path) -> None:
    refused = run("backup", str(tmp_path / "b"), "--json")
    assert "--without-secrets" in _error(refused)
    assert not (tmp_path / "b").exists()
    for wrong in (["--passphrase-file", str(tmp_path / "phrase")], ["--recipient", "x"]):
        both = run("backup", str(tmp_path / "b"), "--without-secrets", *wrong)
        assert both.exit_code == 2
    (tmp_path / "short").write_text("short\n")
    short = run(
        "backup", str(tmp_path / "b"), "--passphrase-file", str(tmp_path / "short"), "--json"
    )
    assert "at least 12" in _error(short)

    file = tmp_path / "b.tar.gz"
    _said(run("backup", str(file), "--without-secrets", "--json"))
    content = gzip.decompress(file.read_bytes())
    home = tmp_path / "home"
    for name in ("secrets/pepper", "secrets/audit", "admin.key"):
        assert (home / name).read_bytes().strip() not in content
    done = _said(run("restore", str(file), "--home", str(tmp_path / "new"), "--json"))
    assert done["lacks_secrets"] is True
    # In place of the home that it came from, what it lacks is still there.
    done = _said(run("restore", str(file), "--replace", "--json"))
    assert done["lacks_secrets"] is False
    assert done["lacks_models"] == []
    assert (home / "secrets" / "pepper").exists()
    assert Path(done["moved_aside"], "freehold.db").exists()


def test_what_was_revoked_since_stays_revoked_in_the_home_itself(run: Run, tmp_path: Path) -> None:
    phrase = ("--passphrase-file", str(tmp_path / "phrase"))
    (tmp_path / "other").write_text("quite another phrase")
    key = _said(run("key", "create", "lost", "--json"))
    rotated = _said(run("key", "create", "rotated", "--json"))
    _said(run("tenant", "create", "gone", "--json"))
    file = tmp_path / "b.age"
    _said(run("backup", str(file), *phrase, "--json"))
    wrong = run("restore", str(file), "--replace", *phrase[:1], str(tmp_path / "other"), "--json")
    assert "does not open with this passphrase" in _error(wrong)
    _said(run("key", "revoke", key["id"], "--json"))
    _said(run("key", "rotate", rotated["id"], "--grace", "0", "--json"))
    _said(run("tenant", "disable", "gone", "--json"))

    full = run("restore", str(file), *phrase, "--json")
    assert "--replace" in _error(full)
    told = run("restore", str(file), *phrase, "--replace")
    assert told.exit_code == 0, told.output
    assert "3 keys and tenants that had ended after that stay ended" in told.output
    states = {each["id"]: each["state"] for each in _said(run("key", "list", "--json"))}
    assert states[key["id"]] == "revoked"
    assert states[rotated["id"]] == "expired"
    tenants = {each["name"]: each["state"] for each in _said(run("tenant", "list", "--json"))}
    assert tenants["gone"] == "disabled"
    # Elsewhere nothing knows of it, and that is said.
    told = run("restore", str(file), *phrase, "--home", str(tmp_path / "new"))
    assert "not so any more" in told.output


def test_lines_that_the_database_does_not_have_yet_are_in_it(
    run: Run, tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    home, new = tmp_path / "home", tmp_path / "new"
    with closing(sqlite3.connect(home / "freehold.db")) as database:
        (tenant,) = database.execute("SELECT id FROM tenants").fetchone()
    reserved = ["r", "req_X", tenant, "dev", "key_x", "tiny", "chat/completions", "fake",
                None, None, None, "interactive", False, 1_790_000_000_000_000, ""]  # fmt: skip
    settled = ["s", "req_X", "ok", 7, 9, 0, False, None, 5, 1_790_000_000_000_001, None]
    segment = home / "journal" / "000000000099.journal"
    segment.write_bytes(journal.line(reserved) + journal.line(settled) + bytes(1000))
    phrase = ("--passphrase-file", str(tmp_path / "phrase"))
    _said(run("backup", str(tmp_path / "b"), *phrase, "--json"))
    assert segment.exists(), "it was only read"
    _said(run("restore", str(tmp_path / "b"), "--home", str(new), *phrase, "--json"))
    rows = _said(commands(new)("usage", "--days", "3000", "--json"))
    (row,) = [each for each in rows if each["key_id"] == "key_x"]
    assert (row["tokens_in"], row["tokens_out"]) == (7, 9)
    assert _said(commands(new)("audit", "verify", "--json"))["findings"] == []


def test_a_damaged_or_foreign_file_changes_nothing(run: Run, tmp_path: Path) -> None:
    recipient, identity = _key(run, tmp_path), ("--identity", str(tmp_path / "identity"))
    whole, clear = tmp_path / "whole", tmp_path / "clear"
    _said(run("backup", str(whole), "--recipient", str(recipient), "--json"))
    _said(run("backup", str(clear), "--without-secrets", "--json"))
    bad = tmp_path / "bad"
    for file in (whole, clear):
        content = file.read_bytes()
        size = len(content)
        changed = [content[:cut] for cut in (0, 30, size // 2, size - 1)]
        changed += [
            content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :]
            for at in (5, size // 3, size // 2, size - 2)
            if file is whole or _differs(content, at)
        ]
        changed.append(content + b"more")
        for each in changed:
            bad.write_bytes(each)
            opened = identity if file is whole else ()
            for words in (("backup", "verify", str(bad)), _elsewhere(bad, tmp_path)):
                assert "\n" not in _error(run(*words, *opened, "--json"))
            assert not (tmp_path / "new").exists()
    for words in (("backup", "verify", str(whole)), _elsewhere(whole, tmp_path)):
        assert "is encrypted" in _error(run(*words, "--json"))
    phrase = ("--passphrase-file", str(tmp_path / "phrase"))
    assert "is locked for keys" in _error(run(*_elsewhere(whole, tmp_path), *phrase, "--json"))
    assert "cannot be read" in _error(run("backup", "verify", str(tmp_path / "none"), "--json"))
    assert {each.name for each in tmp_path.iterdir()} == {
        "bad", "clear", "home", "identity", "phrase", "recipient", "whole",
    }  # fmt: skip


def _differs(content: bytes, at: int) -> bool:
    """Some bits of a gzipped file mean nothing: what is unpacked is the same without them."""
    changed = content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :]
    try:
        return at < 10 or gzip.decompress(changed) != gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return True


def _elsewhere(file: Path, folder: Path) -> tuple[str, ...]:
    return ("restore", str(file), "--home", str(folder / "new"))


def _entry(name: str, content: bytes = b"{}", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


_HOSTILE: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "a path that leads out": [_entry("about.json"), _entry("../escaped")],
    "an absolute path": [_entry("about.json"), _entry("/tmp/escaped")],
    "a path through a folder": [_entry("about.json"), _entry("blobs/sha256/../../escaped")],
    "a symbolic link": [
        _entry("about.json"), _entry("freehold.db", b"", type=tarfile.SYMTYPE, linkname="/etc"),
    ],
    "a hard link": [
        _entry("about.json"), _entry("freehold.db", b"", type=tarfile.LNKTYPE, linkname="x"),
    ],
    "a device": [
        _entry("about.json"), _entry("freehold.db", b"", type=tarfile.CHRTYPE, devmajor=1),
    ],
    "a pipe": [_entry("about.json"), _entry("freehold.db", b"", type=tarfile.FIFOTYPE)],
    "a folder": [_entry("about.json"), _entry("blobs", b"", type=tarfile.DIRTYPE)],
    "a file twice": [_entry("about.json"), _entry("freehold.db"), _entry("freehold.db")],
    "no database": [_entry("about.json"), _entry("manifest.json")],
    "nothing": [],
    "no description": [_entry("manifest.json")],
    "a program": [_entry("about.json"), _entry("run/gateway.json")],
}  # fmt: skip


_INCOMPLETE = {"a file twice", "no database", "nothing", "no description"}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_nothing_but_a_backups_own_files_is_taken(run: Run, tmp_path: Path, kind: str) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as made:
        for header, content in _HOSTILE[kind]:
            made.addfile(header, io.BytesIO(content))
    file = tmp_path / "hostile.tar.gz"
    _zipped(plain.getvalue(), file)
    before = sorted(tmp_path.rglob("*"))
    for words in (("backup", "verify", str(file)), _elsewhere(file, tmp_path)):
        said = _error(run(*words, "--json"))
        assert ("which none of ours does" in said) is (kind not in _INCOMPLETE)
    _error(run("restore", str(file), "--replace", "--json"))
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.lexists("/tmp/escaped")


def test_a_backup_of_a_newer_version_is_left_to_it(run: Run, tmp_path: Path) -> None:
    database = tmp_path / "home" / "freehold.db"
    _said(run("usage", "--json"))
    file = tmp_path / "b.tar.gz"
    _said(run("backup", str(file), "--without-secrets", "--json"))
    for change, said in (
        (lambda about, copy: about.update(format=99), "format 99"),
        (lambda about, copy: _renumber(copy), "newer Freehold"),
    ):
        changed = tmp_path / "changed.tar.gz"
        _rewritten(file, changed, tmp_path, change)
        assert said in _error(run(*_elsewhere(changed, tmp_path), "--json"))
    assert not (tmp_path / "new").exists()
    assert database.exists()


def _renumber(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")


def _rewritten(file: Path, target: Path, folder: Path, change: Callable[..., None]) -> None:
    """A sound backup of changed parts, as whoever holds one in clear could make it."""
    parts: dict[str, bytes] = {}
    with tarfile.open(file) as found:
        for each in found:
            content = found.extractfile(each)
            assert content is not None
            parts[each.name] = content.read()
    copy = folder / "copy.db"
    copy.write_bytes(parts["freehold.db"])
    about, manifest = json.loads(parts["about.json"]), json.loads(parts["manifest.json"])
    change(about, copy)
    parts["about.json"], parts["freehold.db"] = json.dumps(about).encode(), copy.read_bytes()
    copy.unlink()
    del parts["manifest.json"]
    manifest["files"] = {n: hashlib.sha256(c).hexdigest() for n, c in parts.items()}
    parts["manifest.json"] = json.dumps(manifest).encode()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as made:
        for name, content in parts.items():
            header, _ = _entry(name, content)
            made.addfile(header, io.BytesIO(content))
        size = made.offset + 2 * tarfile.BLOCKSIZE
    _zipped(plain.getvalue()[:size], target)


def _zipped(content: bytes, target: Path) -> None:
    with target.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as zipped:
        zipped.write(content)


def test_tampered_audit_records_are_found_in_a_backup(run: Run, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "home" / "freehold.db")) as database, database:
        database.execute("UPDATE audit SET body = replace(body, '\"ok\"', '\"no\"')")
    file = tmp_path / "b.tar.gz"
    _said(run("backup", str(file), "--without-secrets", "--json"))
    assert "was changed" in _error(run("backup", "verify", str(file), "--json"))


def test_a_spoilt_or_missing_file_is_told_and_the_rest_is_kept(run: Run, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "home" / "freehold.db")) as database:
        config, weights = database.execute(
            "SELECT config_digest, weights_digest FROM adapters"
        ).fetchone()
    blobs = tmp_path / "home" / "blobs" / "sha256"
    (blobs / config[7:]).unlink()
    (blobs / weights[7:]).chmod(0o600)
    (blobs / weights[7:]).write_bytes(b"spoilt")
    file = tmp_path / "b.tar.gz"
    made = _said(run("backup", str(file), "--without-secrets", "--json"))
    assert len(made["notes"]) == 2
    checked = _said(run("backup", "verify", str(file), "--json"))
    assert sorted(checked["missing"]) == sorted([config, weights])
    _said(run(*_elsewhere(file, tmp_path), "--json"))
    assert not list((tmp_path / "new" / "blobs" / "sha256").iterdir())


def test_a_dataset_that_was_changed_is_told_by_backup_and_doctor(
    run: Run, tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    assert "are what they were" in run("doctor").stdout
    (train,) = (tmp_path / "home" / "data").rglob("train.jsonl")
    train.write_bytes(train.read_bytes()[:-1])
    place = str(train.parent.relative_to(tmp_path / "home"))
    assert f"tickets@1 in {place} are missing or were changed" in run("doctor").stdout
    file = tmp_path / "b.tar.gz"
    made = _said(run("backup", str(file), "--without-secrets", "--json"))
    assert made["notes"] == [f"The files of {place} are missing or changed in this home."]
    assert _said(run("backup", "verify", str(file), "--json"))["missing"] == [place]
    shutil.rmtree(train.parent)
    again = _said(run("backup", str(tmp_path / "c.tar.gz"), "--without-secrets", "--json"))
    assert again["notes"] == made["notes"]
    _said(run(*_elsewhere(tmp_path / "c.tar.gz", tmp_path), "--json"))
    assert not (tmp_path / "new" / "data").exists()


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_backups_are_listed(run: Run, tmp_path: Path) -> None:
    assert "no folder" in _error(run("backup", "list", "--json"))
    phrase = ("--passphrase-file", str(tmp_path / "phrase"))
    first = _said(run("backup", *phrase, "--json"))
    assert Path(first["path"]).parent == tmp_path / "home" / "backups"
    again = run("backup", first["path"], *phrase, "--json")
    assert "is there already" in _error(again)
    (tmp_path / "home" / "backups" / "other.tar.gz").write_text("no backup")
    into = _said(run("backup", str(tmp_path / "home" / "backups"), "--without-secrets", "--json"))
    listed = _said(run("backup", "list", "--json"))
    assert {each["path"]: each["encrypted"] for each in listed} == {
        first["path"]: True, into["path"]: False,
    }  # fmt: skip
    assert "encrypted" in run("backup", "list").stdout
    nowhere = run("backup", "--without-secrets", "/proc/none/b", "--json")
    assert "cannot be used" in _error(nowhere)


def test_a_home_without_an_installation_has_nothing_to_back_up(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    empty = commands(tmp_path / "empty")
    assert "no installation" in _error(empty("backup", "--without-secrets", "--json"))
