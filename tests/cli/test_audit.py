"""`freehold audit`: what was used is there, and what was done to the records is found."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import Result

from tests.cli.conftest import Run
from tests.installation import Installation, start, stock_tiny

_COUNT = 8
_LAST = _COUNT + 1  # behind the record of the first key
_ALL = _LAST + 1  # and that of the first tenant, in a stream of its own


def _said(run: Run, *words: str) -> Any:
    ended = run(*words, "--json")
    assert ended.exit_code in (0, 1), ended.output
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home at rest in which some requests were answered."""
    home = tmp_path_factory.mktemp("used")
    stock_tiny(home)
    gateway = start(home, "--engine", "fake", "--model", "tiny")
    for number in range(_COUNT):
        _ask(gateway, f"question {number}")
    gateway.stop()
    return home


def _ask(gateway: Installation, text: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"{gateway.url}/v1/chat/completions"
    assert httpx2.post(url, json=body, headers=headers, timeout=60).is_success


@pytest.fixture
def home(used: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(used, copy, symlinks=True)
    file = used / "audit" / "checkpoints"
    with closing(sqlite3.connect(copy / "freehold.db")) as database, database:
        moved = (str(copy / "audit" / "checkpoints"),)
        assert file.exists()
        database.execute("UPDATE facts SET value = ? WHERE name = 'audit_checkpoints'", moved)
    return copy


def test_every_request_is_listed_with_its_digests_and_policies(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    run = commands(home)
    found = _said(run, "audit", "list")
    assert [each["number"] for each in found] == list(range(1, _LAST + 1))
    first, *bodies = [each["body"] for each in found]
    assert (first["act"], first["principal"]) == ("key.create", "freehold")
    assert {body["outcome"] for body in bodies} == {"ok"}
    assert {tuple(body["policies"]) for body in bodies} == {("freehold/users-use-models",)}
    assert all(body["base"].startswith("sha256:") for body in bodies)
    assert "question" not in json.dumps(found)
    assert run("audit", "list", "--limit", "3").stdout.count("tiny") == 2
    assert _said(run, "audit", "list", "--after", str(_LAST)) == []
    assert _said(run, "audit", "list", "--kind", "act") == found[:1]
    assert _said(run, "audit", "list", "--model", "tiny", "--limit", "3") == found[1:4]
    assert _said(run, "audit", "list", "--principal", bodies[0]["principal"]) == found[1:]
    assert _said(run, "audit", "list", "--since", "2100-01-01") == []
    assert _said(run, "audit", "list", "--until", "2100-01-01T00:00:00") == found
    (tenant,) = _said(run, "audit", "list", "--level", "tenant")
    assert (tenant["body"]["act"], tenant["body"]["name"]) == ("tenant.create", "default")
    assert _said(run, "audit", "list", "--level", "installation") == []
    assert _said(run, "audit", "list", "--env", "prod") == []


def test_whole_records_verify_on_a_copy_and_with_the_public_key_alone(
    home: Path, commands: Callable[[Path], Run], tmp_path: Path
) -> None:
    run = commands(home)
    sound = {"records": _ALL, "streams": 2, "findings": []}
    assert _said(run, "audit", "verify") == sound
    public = run("audit", "key").stdout.strip()
    away = ("--database", str(home / "freehold.db"), "--public-key", public,
            "--checkpoints", str(home / "audit" / "checkpoints"))  # fmt: skip
    assert _said(commands(tmp_path / "elsewhere"), "audit", "verify", *away) == sound
    assert f"{_ALL} records in 2 streams are sound." in run("audit", "verify").stdout
    wrong = run("audit", "verify", "--public-key", "00" * 32, "--json")
    assert json.loads(wrong.stdout)["error"]["code"] == "audit_broken"
    for key in ("zz", "00"):
        bad = run("audit", "verify", "--public-key", key, "--json")
        assert json.loads(bad.stdout)["error"]["code"] == "invalid_value"


_ATTACKS = {
    "an act edited": (1, ["UPDATE audit SET body = replace(body, 'key.create', 'key.revoke')"]),
    "edited": (4, ["UPDATE audit SET body = replace(body, '\"ok\"', '\"no\"') WHERE number = 4"]),
    "deleted": (4, ["DELETE FROM audit WHERE number = 4"]),
    "swapped": (
        4,
        [
            "UPDATE audit SET number = 99 WHERE number = 4",
            "UPDATE audit SET number = 4 WHERE number = 5",
            "UPDATE audit SET number = 5 WHERE number = 99",
        ],
    ),
    "filed otherwise": (4, ["UPDATE audit SET principal = 'key_x' WHERE number = 4"]),
    "filed nowhere": (4, ["UPDATE audit SET at_us = NULL WHERE number = 4"]),
    "cut off": (6, ["DELETE FROM audit WHERE number > 5"]),
    "added": (
        10,
        [
            "INSERT INTO audit SELECT stream, 10, body, hash, at_us, kind, principal, model "
            "FROM audit WHERE number = 9"
        ],
    ),
    "all gone": (1, ["DELETE FROM audit WHERE stream LIKE '%/dev'"]),
}


@pytest.mark.parametrize("attack", _ATTACKS)
def test_what_an_administrator_of_the_database_does_is_found_and_stops_the_start(
    home: Path, commands: Callable[[Path], Run], attack: str
) -> None:
    number, statements = _ATTACKS[attack]
    with closing(sqlite3.connect(home / "freehold.db")) as database, database:
        for statement in statements:
            assert database.execute(statement).rowcount
    run = commands(home)
    ended = run("audit", "verify", "--json")
    assert ended.exit_code == 1
    (found,) = json.loads(ended.stdout)["findings"]
    assert found["number"] == number, found
    if attack in ("cut off", "added", "all gone"):  # the end of the chain is not as signed
        refused = start(home, "--engine", "fake", "--model", "tiny", wait=False)
        said, _ = refused.process.communicate(timeout=60)
        assert refused.process.returncode == 1
        assert "run `freehold audit verify`" in said
        assert "Traceback" not in said


def test_an_older_backup_is_found(used: Path, home: Path, commands: Callable[[Path], Run]) -> None:
    old = (home / "freehold.db").read_bytes()
    gateway = start(home, "--engine", "fake", "--model", "tiny")
    _ask(gateway, "later")
    gateway.stop()
    run = commands(home)
    assert _said(run, "audit", "verify")["records"] == _ALL + 1
    (home / "freehold.db").write_bytes(old)
    (found,) = _said(run, "audit", "verify")["findings"]
    assert found["number"] == _LAST + 1
    assert "is missing" in found["what"]
    # Who accepts the loss moves the checkpoints to the auditor, and goes on from here.
    (home / "audit" / "checkpoints").rename(home / "kept-as-evidence")
    assert _said(run, "audit", "begin")["checkpoints"] == str(home / "audit" / "checkpoints")
    again = start(home, "--engine", "fake", "--model", "tiny")
    _ask(again, "from here on")
    again.stop()
    assert _said(run, "audit", "verify")["findings"] == []


def test_the_checkpoints_key_is_guarded(home: Path) -> None:
    for change in (lambda path: path.unlink(), lambda path: path.write_bytes(bytes(32))):
        kept = (home / "secrets" / "audit").read_bytes()
        change(home / "secrets" / "audit")
        refused = start(home, "--engine", "fake", "--model", "tiny", wait=False)
        said, _ = refused.process.communicate(timeout=60)
        assert refused.process.returncode == 1
        assert "restore it from a backup" in said
        (home / "secrets" / "audit").write_bytes(kept)


@pytest.mark.parametrize("form", ["jsonl", "ocsf"])
def test_records_are_exported_a_line_each(
    home: Path, commands: Callable[[Path], Run], form: str
) -> None:
    ended: Result = commands(home)("audit", "export", "--format", form)
    assert ended.exit_code == 0, ended.output
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(lines) == _LAST
    if form == "jsonl":
        assert set(lines[0]) == {"stream", "number", "body", "hash", "personal"}
        return
    first = lines[1]
    assert (first["class_uid"], first["category_uid"], first["type_uid"]) == (6003, 6, 600399)
    assert (first["status_id"], first["activity_id"], first["severity_id"]) == (1, 99, 1)
    assert first["actor"]["user"]["uid"].startswith("key_")
    assert first["time"] > 1_700_000_000_000


_EXCHANGES = {
    "exchanged": "UPDATE subject_keys SET wrapped = (SELECT max(wrapped) FROM subject_keys)",
    "made unreadable": "UPDATE subject_keys SET wrapped = NULL, forgotten_at_us = 1",
    "removed": "DELETE FROM subject_keys",
    "of another": "UPDATE subject_keys SET subject = 'key_other'",
}


@pytest.mark.parametrize("how", _EXCHANGES)
def test_what_is_done_to_the_keys_of_subjects_is_found_at_the_first_record_that_names_one(
    home: Path, commands: Callable[[Path], Run], how: str
) -> None:
    with closing(sqlite3.connect(home / "freehold.db")) as database, database:
        assert database.execute(_EXCHANGES[how]).rowcount
    ended = commands(home)("audit", "verify", "--json")
    assert ended.exit_code == 1
    found = {each["stream"]: each for each in json.loads(ended.stdout)["findings"]}
    (stream,) = [name for name in found if name.endswith("/dev")]
    assert found[stream]["number"] <= 2, found
    assert "data key" in found[stream]["what"] or "unreadable" in found[stream]["what"]


def test_the_exchanged_ciphertext_of_somebody_forgotten_is_found(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    run = commands(home)
    listed = _said(run, "audit", "list")
    principal = listed[3]["body"]["principal"]
    assert listed[3]["personal"]["name"] == "admin"
    assert "admin, 127.0.0.1" in run("audit", "list").stdout
    forgotten = run("forget", principal)
    assert f"Forgotten: {principal}." in forgotten.stdout
    assert {each["personal"] for each in _said(run, "audit", "list")[1:]} == {"forgotten"}
    assert _said(run, "audit", "verify")["findings"] == []
    acts = [each["body"]["act"] for each in _said(run, "audit", "list", "--level", "tenant")]
    assert acts == ["tenant.create", "subject.forget"]
    fourth = listed[3]["body"]["personal"]["sealed"]
    fifth = listed[4]["body"]["personal"]["sealed"]
    with closing(sqlite3.connect(home / "freehold.db")) as database, database:
        exchange = "UPDATE audit SET body = replace(body, ?, ?) WHERE number = 4"
        assert database.execute(exchange, (fourth, fifth)).rowcount
    (found,) = _said(run, "audit", "verify")["findings"]
    assert found["number"] == 4
    assert run("forget", "nobody", "--json").exit_code == 1
