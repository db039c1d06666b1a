"""Homes, settings and files that are not as they should be: `freehold` says so in one
sentence, ends with code 1, serves nothing and changes nothing."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freehold.cli.main import app
from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.store.base import Entries
from freehold.store.ledger import _reserved
from tests.catalog.making import gguf_bytes, write
from tests.store.making import reservation

Break = Callable[[Path], object]


def freehold(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", *words],
        env={**os.environ, "FREEHOLD_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(code: int, out: str, err: str) -> str:
    """The one sentence of a command that failed as it should."""
    assert code == 1, out + err
    assert "Traceback" not in out + err
    assert "unforeseen" not in err
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    return line


def told_by_a_process(home: Path, *words: str) -> str:
    ended = freehold(home, *words)
    return told(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def told_by(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The same without a process of its own, for what ends before anything runs."""
    monkeypatch.setenv("FREEHOLD_HOME", str(home))

    def run(*words: str) -> str:
        ended = CliRunner().invoke(app, words)
        assert isinstance(ended.exception, SystemExit)
        if "--json" not in words:
            return told(ended.exit_code, ended.stdout, ended.stderr)
        assert (ended.exit_code, ended.stderr.strip()) == (1, "")
        error = json.loads(ended.stdout)["error"]
        assert set(error) == {"message", "code"}
        return f"{error['code']}: {error['message']}"

    return run


def files(home: Path) -> dict[str, bytes]:
    """What must not change. Locks, logs and SQLite's own two files say nothing."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file()
        and path.parent.name not in ("run", "logs", "journal")
        and not path.name.endswith(("-wal", "-shm", ".lock"))
    }


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that has been in use: a key is in its database, and the record of a request."""
    home = tmp_path_factory.mktemp("used")
    assert freehold(home, "key", "create", "first").returncode == 0
    with reach.offline(Home(home)) as (store, _, tenant_id):
        entries = Entries()
        entries.add(_reserved(reservation("req_1", tenant_id=tenant_id)))
        store.apply(entries)
        assert store.settle_orphans(9) == 1
    return home


@pytest.fixture
def home(used: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(used, tmp_path / "home"))
    moved = (str(copy / "audit" / "checkpoints"),)
    with closing(sqlite3.connect(copy / "freehold.db")) as database, database:
        database.execute("UPDATE facts SET value = ? WHERE name = 'audit_checkpoints'", moved)
    return copy


def _gone(name: str) -> Break:
    return lambda home: (home / name).unlink()


def _emptied(name: str) -> Break:
    return lambda home: (home / name).write_bytes(b"")


def _cut(name: str) -> Break:
    def change(home: Path) -> None:
        content = (home / name).read_bytes()
        (home / name).write_bytes(content[: len(content) // 2])

    return change


def _noise(name: str, content: bytes = b"x" * 32) -> Break:
    return lambda home: (home / name).write_bytes(content)


def _folder(name: str) -> Break:
    def change(home: Path) -> None:
        (home / name).unlink()
        (home / name).mkdir()

    return change


def _no_checkpoints(home: Path) -> None:
    shutil.rmtree(home / "audit" / "checkpoints")


def _checkpoints(change: Callable[[bytes], bytes]) -> Break:
    def to(home: Path) -> None:
        (file,) = (home / "audit" / "checkpoints").glob("????-??-??.jsonl")
        file.write_bytes(change(file.read_bytes()))

    return to


def _nowhere(name: str) -> Break:
    def change(home: Path) -> None:
        (home / name).unlink()
        (home / name).symlink_to(home / "nothing")

    return change


def _itself(name: str) -> Break:
    def change(home: Path) -> None:
        (home / name).unlink()
        (home / name).symlink_to(home / name)

    return change


def _pepper(content: bytes | None) -> Break:
    def change(home: Path) -> None:
        path = home / "secrets" / "pepper"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    return change


def _pepper_is_a_folder(home: Path) -> None:
    _pepper(None)(home)
    (home / "secrets" / "pepper").mkdir()


def _database(change: Callable[[bytes], bytes] | None) -> Break:
    def replace(home: Path) -> None:
        path = home / "freehold.db"
        content = path.read_bytes()
        for each in home.glob("freehold.db*"):
            each.unlink()
        if change is not None:
            path.write_bytes(change(content))

    return replace


BROKEN = {
    "no pepper": (_pepper(None), "pepper is missing but the database needs it: restore it"),
    "an empty pepper": (_pepper(b""), "pepper holds 0 bytes where 32 are expected: restore it"),
    "a longer pepper": (_pepper(b"x" * 33), "pepper holds 33 bytes where 32 are expected"),
    "another pepper": (_pepper(b"x" * 32), "is not the file that this database was made with"),
    "a folder as pepper": (_pepper_is_a_folder, "pepper cannot be read (Is a directory)"),
    "no database": (_database(None), "freehold.db is missing or empty"),
    "an empty database": (_database(lambda _: b""), "freehold.db is missing or empty"),
    "a database of noise": (_database(lambda _: b"noise" * 9000), "file is not a database"),
    "half a database": (_database(lambda all_of_it: all_of_it[:9000]), "malformed"),
    "half a pepper": (_cut("secrets/pepper"), "pepper holds 16 bytes where 32 are expected"),
    "a pepper that leads nowhere": (_nowhere("secrets/pepper"), "pepper is missing but the"),
    "a pepper that leads to itself": (_itself("secrets/pepper"), "pepper cannot be read"),
    "no key of the audit": (_gone("secrets/audit"), "audit is missing but the database needs it"),
    "an empty key of the audit": (_emptied("secrets/audit"), "audit holds 0 bytes where 32"),
    "half a key of the audit": (_cut("secrets/audit"), "audit holds 16 bytes where 32"),
    "another key of the audit": (_noise("secrets/audit"), "is not the key that the audit records"),
    "a folder as key of the audit": (_folder("secrets/audit"), "audit cannot be read (Is a dir"),
    "no key of subjects": (_gone("secrets/subjects"), "subjects is missing but the database"),
    "half a key of subjects": (_cut("secrets/subjects"), "subjects holds 16 bytes where 32"),
    "another key of subjects": (_noise("secrets/subjects"), "subjects is not the file that"),
    "no checkpoints": (_no_checkpoints, "are missing or empty, but there are records"),
    "empty checkpoints": (_checkpoints(lambda _: b""), "are missing or empty, but there are"),
    "cut checkpoints": (_checkpoints(lambda whole: whole[:40]), "are missing or empty, but there"),
    "checkpoints of noise": (_checkpoints(lambda _: b"x y\n"), "Line 1 of the audit checkpoints"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_home_that_lacks_a_part_is_not_used_and_not_changed(
    what: str, home: Path, told_by: Callable[..., str]
) -> None:
    change, sentence = BROKEN[what]
    change(home)
    before = files(home)
    assert sentence in told_by("key", "list")
    assert sentence in told_by("key", "create", "another", "--json")
    assert sentence in told_by("usage", "--json")
    assert files(home) == before


@pytest.mark.parametrize(
    "what", ["no pepper", "half a database", "no key of the audit", "no checkpoints"]
)
def test_a_home_that_lacks_a_part_is_not_served(what: str, home: Path) -> None:
    change, sentence = BROKEN[what]
    change(home)
    before = files(home)
    assert sentence in told_by_a_process(home, "up", "--no-local-models", "--port", "0")
    assert files(home) == before


def test_settings_that_were_there_at_the_last_start_do_not_silently_go(home: Path) -> None:
    """What they demanded of clients, of proxies, of groups would go with them."""
    settings = home / "freehold.yaml"
    with closing(sqlite3.connect(home / "freehold.db")) as database, database:
        database.execute("INSERT INTO facts VALUES ('settings_file', 'there')")
    before = files(home)
    up = ("up", "--no-local-models", "--port", "0")
    assert f"{settings} is missing or empty, but the last start" in told_by_a_process(home, *up)
    assert files(home) == before
    settings.write_text("")
    assert "write `{}` into it" in told_by_a_process(home, *up)


SETTINGS = {
    "an unknown name": ("servr:\n  host: x\n", "there is no setting 'servr'"),
    "an unknown name inside": ("server:\n  hots: x\n", "there is no setting 'server.hots'"),
    "broken YAML": ("server: [\n", "line 2 is not valid YAML"),
    "a wrong type": ("server:\n  drain_s: soon\n", "server.drain_s: must be a valid number"),
    "a number that is none": ("limits: {queue_s: .nan}\n", "limits.queue_s: must be greater"),
    "a list as a whole": ("- server\n", "must hold settings as `name: value` lines"),
    "code": ("!!python/object/apply:os.abort []\n", "is not valid YAML"),
    "no certificate": (
        "server: {tls_certificate: /none.pem, tls_key: /none.key}\n",
        "TLS cannot be served with /none.pem and /none.key (No such file or directory)",
    ),
    "no certificate in the file": (
        "server: {tls_certificate: /etc/hostname}\n", "TLS cannot be served with /etc/hostname"
    ),
    "a key without a certificate": (
        "server: {tls_key: /etc/hostname}\n", "server.tls_key is of no use alone"
    ),
    "clients' certificates without TLS": (
        "server: {client_ca: /etc/hostname}\n", "server.client_ca needs TLS here"
    ),
    "a proxy's certificate that nobody verifies": (
        "server: {proxy_certificates: [edge]}\n", "server.proxy_certificates needs client_ca"
    ),
    "no authorities for what is called": (
        "network: {ca_file: /none.pem}\n",
        "/none.pem cannot be used as network.ca_file (No such file or directory)",
    ),
    "authorities that are none": (
        "network: {ca_file: /etc/hostname}\n", "(no certificates in it)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_that_cannot_be_stop_the_start(
    what: str, home: Path, told_by: Callable[..., str]
) -> None:
    text, sentence = SETTINGS[what]
    (home / "freehold.yaml").write_text(text)
    before = files(home)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that nothing can be served
        port = str(taken.getsockname()[1])
        assert sentence in told_by("up", "--no-local-models", "--port", port)
    assert files(home) == before


@pytest.mark.parametrize(
    "host",
    ["0" + ".0" * 3, "0", "0x0", "000.0", "::", "0::0", "::ffff:0.0.0.0", "192.0.2.7",
     "2001:db8::7", "::ffff:192.0.2.7"],
)  # fmt: skip
def test_nothing_is_served_in_the_clear_to_a_network_however_it_is_written(
    host: str, home: Path, told_by: Callable[..., str]
) -> None:
    (home / "freehold.yaml").write_text("models: [nobody]\n")
    assert f"in the clear on {host}: set" in told_by("up", "--host", host, "--port", "0")
    for word in ("true", "yes"):
        (home / "freehold.yaml").write_text(
            f"models: [nobody]\nserver: {{tls_ends_in_front: {word}}}\n"
        )
        told = told_by("up", "--host", host, "--port", "0")
        assert "no stored model 'nobody'" in told or "Cannot listen on" in told


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "127.0.0.9", "0x7f000001", "localhost"])
def test_every_spelling_of_this_machine_alone_may_be_served_in_the_clear(
    host: str, home: Path, told_by: Callable[..., str]
) -> None:
    (home / "freehold.yaml").write_text("models: [nobody]\n")
    assert "no stored model 'nobody'" in told_by("up", "--host", host, "--port", "0")


@pytest.mark.parametrize("host", ["unix:/tmp/x", "a..b", "x" * 80])
def test_what_is_no_address_is_not_listened_on(
    host: str, home: Path, told_by: Callable[..., str]
) -> None:
    (home / "freehold.yaml").write_text("models: [nobody]\n")
    assert f"Cannot listen on {host}" in told_by("up", "--host", host, "--port", "0")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: [nobody]\n", "There is no stored model 'nobody'"),
        (
            "upstreams: [{name: a, base_url: 'https://a.example', api_key_file: /none, "
            "models: [{alias: q, upstream_name: q}]}]\nmodels: []\n",
            "The key of upstream a cannot be read from /none: put it there",
        ),
    ],
)
def test_what_settings_name_must_be_there(text: str, sentence: str, home: Path) -> None:
    (home / "freehold.yaml").write_text(text)
    local = ["--no-local-models"] if "upstreams" in text else []
    assert sentence in told_by_a_process(home, "up", "--port", "0", *local)


def test_a_record_of_a_gateway_that_is_none_is_no_gateway(
    home: Path, told_by: Callable[..., str]
) -> None:
    for content in (b"", b"[]", b"{}", b"\xff", b'{"pid": "x", "url": 1}'):
        (home / "run" / "gateway.json").write_bytes(content)
        assert "start one with `freehold up`" in told_by("status")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("status", "gateway_not_running"),
        ("down", "gateway_not_running"),
        ("chat hi", "gateway_not_running"),
        ("model show nobody", "model_not_found"),
        ("model pull gopher:x", "source_not_found"),
        ("model rm nobody", "model_not_found"),
        ("key revoke key_nobody", "not_found"),
        ("key create x --sha256 zz", "invalid_value"),
        ("key create x --days 99999", "invalid_value"),
    ],
)
def test_every_command_tells_people_and_machines_what_failed(
    words: str, code: str, home: Path, told_by: Callable[..., str]
) -> None:
    before = files(home)
    sentence = told_by(*words.split()).removeprefix("Error: ")
    assert told_by(*words.split(), "--json") == f"{code}: {sentence}"
    assert files(home) == before


def test_a_model_that_was_changed_on_the_disk_is_not_served(home: Path) -> None:
    file = write(home.parent / "tiny.gguf", gguf_bytes())
    assert freehold(home, "model", "pull", f"file:{file}", "--keep-format").returncode == 0
    (blob,) = (home / "blobs" / "sha256").iterdir()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)
    sentence = told_by_a_process(home, "up", "--model", "tiny", "--port", "0")
    assert "tiny cannot be loaded" in sentence
    assert "`freehold model verify tiny`" in sentence
    verified = freehold(home, "model", "verify", "tiny")
    assert verified.returncode == 1
    assert "was changed on the disk" in verified.stderr
