"""`freehold doctor`: what is wrong is named with the next step, what is sound passes, and a
run against a gateway leaves nothing there."""

import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from freehold.secure import authority
from tests.cli.conftest import Run
from tests.cli.spoken import failed, said
from tests.installation import Installation

Break = Callable[[Path], object]


def _found(run: Run, fails: bool) -> dict[str, dict[str, Any]]:
    ended = run("doctor", "--json")
    assert ended.exit_code == int(fails), ended.output
    told = json.loads(ended.stdout)
    assert bool(told["failed"]) == fails
    return {each["check"]: each for each in told["findings"]}


def test_a_sound_installation_is_told_so(online: Run) -> None:
    found = _found(online, fails=False)
    assert {check for check, each in found.items() if each["state"] == "pass"} >= {
        "permissions", "secrets", "database", "audit", "clock", "engines"
    }  # fmt: skip
    shown = online("doctor")
    assert shown.exit_code == 0
    assert "Every engine serves. (1 replicas)" in shown.stdout
    assert "0 fail" not in shown.stdout.splitlines()[-1]


@pytest.fixture
def home(served: Installation, tmp_path: Path) -> Path:
    """A copy at rest of a home that is used, with its checkpoints moved along."""
    import sqlite3
    from contextlib import closing

    home = tmp_path / "home"
    shutil.copytree(served.home, home, ignore=shutil.ignore_patterns("blobs", "*.sock", "journal"))
    (home / "run" / "gateway.json").unlink()
    for folder in (home, home / "secrets", home / "run"):
        folder.chmod(0o700)
    with closing(sqlite3.connect(home / "freehold.db")) as database, database:
        moved = (str(home / "audit" / "checkpoints"),)
        database.execute("UPDATE facts SET value = ? WHERE name = 'audit_checkpoints'", moved)
    return home


def _ending(days: float) -> Break:
    def change(home: Path) -> None:
        made = authority.Authority(home / "tls")
        issued = made.server(["localhost"])
        certificate = x509.load_pem_x509_certificate(issued.certificate)
        now = datetime.datetime.now(datetime.UTC)
        again = x509.CertificateBuilder(
            certificate.issuer, certificate.subject, certificate.public_key(), 7,
            now - datetime.timedelta(days=90), now + datetime.timedelta(days=days),
        )  # fmt: skip
        signed = again.sign(made._key, x509.base.hashes.SHA256())  # type: ignore[attr-defined]
        from cryptography.hazmat.primitives.serialization import Encoding

        file = home / "ending.pem"
        file.write_bytes(signed.public_bytes(Encoding.PEM))
        _settings(f"server: {{tls_certificate: {file}}}")(home)

    return change


def _settings(text: str) -> Break:
    return lambda home: (home / "freehold.yaml").write_text(text)


def _database_damaged(home: Path) -> None:
    content = bytearray((home / "freehold.db").read_bytes())
    content[4096 * 3 : 4096 * 3 + 2000] = b"x" * 2000
    (home / "freehold.db").write_bytes(content)


def _clock_went_back(home: Path) -> None:
    later = time.time() + 3600
    os.utime(home / "freehold.db", (later, later))


_BROKEN: dict[str, tuple[Break, str, str, str]] = {
    "an open home": (lambda home: home.chmod(0o755), "permissions", "fail", "`chmod go=`"),
    "an open pepper": (
        lambda home: (home / "secrets" / "pepper").chmod(0o644), "permissions", "fail", "pepper"
    ),
    "no pepper": (
        lambda home: (home / "secrets" / "pepper").unlink(), "secrets", "fail", "secrets/pepper"
    ),
    "another key of the audit": (
        lambda home: (home / "secrets" / "audit").write_bytes(b"x" * 32), "secrets", "fail",
        "restore it from a backup now",
    ),
    "a damaged database": (_database_damaged, "database", "fail", "restore a backup"),
    "no checkpoints": (
        lambda home: shutil.rmtree(home / "audit" / "checkpoints"), "audit", "fail", "cannot be"
    ),
    "a clock that went back": (_clock_went_back, "clock", "fail", "set it (NTP)"),
    "a certificate that ends soon": (
        _ending(3), "certificates: server.tls_certificate", "warning", "renew it"
    ),
    "a certificate that has ended": (
        _ending(-1), "certificates: server.tls_certificate", "fail", "put a new one there"
    ),
    "no authority": (
        _settings("server: {client_ca: /none.pem}"), "certificates: server.client_ca", "fail",
        "the next start fails",
    ),
    "all hosts": (_settings("server: {allowed_hosts: ['*']}"), "settings", "warning", "list the"),
    "clear text behind a proxy": (
        _settings("server: {host: 0.0.0.0, tls_ends_in_front: true}"), "settings", "warning",
        "in the clear",
    ),
    "everybody is a proxy": (
        _settings("server: {trusted_proxies: [0.0.0.0/0]}"), "settings", "warning", "anybody may"
    ),
    "guesses without end": (
        _settings("limits: {wrong_keys_a_minute: 1000000}"), "settings", "warning", "lower it"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", _BROKEN)
def test_what_is_wrong_is_named_with_what_to_do(
    what: str, home: Path, commands: Callable[[Path], Run]
) -> None:
    change, check, state, words = _BROKEN[what]
    change(home)
    ended = commands(home)("doctor", "--json")
    told = json.loads(ended.stdout)["findings"]
    found = [each for each in told if each["check"] == check and each["state"] == state]
    assert any(words in each["said"] for each in found), told
    assert ended.exit_code == (1 if any(each["state"] == "fail" for each in told) else 0)
    assert (state == "fail") <= (ended.exit_code == 1)


def test_a_home_where_nothing_was_started_is_no_error(offline: Run) -> None:
    found = _found(offline, fails=False)
    assert found["secrets"]["state"] == "not applicable"
    assert failed(offline("doctor", "isolation", "--json"), "gateway_not_running")


def test_isolation_is_tried_on_the_running_gateway(online: Run) -> None:
    told = said(online, "doctor", "isolation", "--rounds", "30")
    assert told["failed"] == 0
    assert {each["state"] for each in told["findings"]} == {"pass", "not applicable"}
    assert [each["name"] for each in said(online, "tenant", "list")] == ["default"]


def test_whoever_lacks_the_rights_is_told_which(
    online: Run, monkeypatch: pytest.MonkeyPatch, served: Installation
) -> None:
    key = said(online, "key", "create", "x", "--scope", "admin", "--scope", "infer")["key"]
    ended = subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", "doctor", "isolation", "--json"],
        env={**served.environment, "FREEHOLD_API_KEY": key},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == "insufficient_permissions"
    assert "'operate'" in error["message"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_in_the_middle_leaves_no_tenant(
    online: Run, served: Installation, number: signal.Signals
) -> None:
    words = ("doctor", "isolation", "--rounds", "10000")
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold.cli.main", *words],
        env=served.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "a revoked key" not in process.stdout.readline():
        assert process.poll() is None
    assert len(said(online, "tenant", "list")) == 3
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "Traceback" not in told
    assert [each["name"] for each in said(online, "tenant", "list")] == ["default"]
