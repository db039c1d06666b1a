"""The store on PostgreSQL, as commands meet it."""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx2
import psycopg
import pytest

from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.store.postgres import Postgres
from tests import postgres
from tests.cli.conftest import Run
from tests.cli.spoken import failed, said
from tests.installation import Installation, stock_tiny


@pytest.fixture
def url(postgres_database: Callable[[], Postgres], monkeypatch: pytest.MonkeyPatch) -> str:
    named = postgres_database().url
    monkeypatch.setenv("FREEHOLD_DATABASE__URL", named)
    return named


def test_commands_work_on_it_at_rest(url: str, offline: Run, tmp_path: Path) -> None:
    said(offline, "tenant", "create", "acme")
    made = said(offline, "key", "create", "web", "--tenant", "acme")
    (listed,) = said(offline, "key", "list", "--tenant", "acme")
    assert listed["id"] == made["id"]
    said(offline, "usage")
    assert offline("audit", "verify").exit_code == 0
    assert not (tmp_path / "home" / "freehold.db").exists()


def test_another_home_must_have_the_secrets_of_the_first(
    url: str, commands: Callable[[Path], Run], tmp_path: Path
) -> None:
    first, second = commands(tmp_path / "one"), commands(tmp_path / "two")
    said(first, "tenant", "create", "acme")
    failed(second("tenant", "list", "--json"), "config_invalid")
    shutil.copytree(tmp_path / "one" / "secrets", tmp_path / "two" / "secrets", dirs_exist_ok=True)
    assert {each["name"] for each in said(second, "tenant", "list")} == {"default", "acme"}


def test_a_copy_of_a_home_is_refused_while_the_first_is_in_use(
    url: str, commands: Callable[[Path], Run], tmp_path: Path
) -> None:
    said(commands(tmp_path / "one"), "tenant", "create", "acme")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    copy = commands(tmp_path / "copy")
    with reach.offline(Home(tmp_path / "one")):
        why = failed(copy("tenant", "list", "--json"), "home_in_use")
        assert "remove `gateway`, `audit` and `journal`" in why
    (tmp_path / "copy" / "gateway").unlink()
    for folder in ("audit", "journal"):
        shutil.rmtree(tmp_path / "copy" / folder)
    said(copy, "tenant", "list")
    assert (tmp_path / "copy" / "gateway").read_text() != (tmp_path / "one" / "gateway").read_text()


def test_a_database_that_lost_its_tables_is_not_taken_for_a_new_one(
    url: str,
    offline: Run,
    monkeypatch: pytest.MonkeyPatch,
    postgres_database: Callable[[], Postgres],
) -> None:
    said(offline, "tenant", "create", "acme")
    monkeypatch.setenv("FREEHOLD_DATABASE__URL", postgres_database().url)
    assert "is missing or empty" in failed(offline("tenant", "list", "--json"), "config_invalid")


def test_a_server_that_is_away_is_told_in_a_sentence(
    offline: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FREEHOLD_DATABASE__URL", f"postgresql:///freehold?host={tmp_path}")
    why = failed(offline("key", "list", "--json"), "storage_unavailable")
    assert "start PostgreSQL" in why


def test_a_gateway_serves_from_it_and_its_records_verify_from_anywhere(
    postgres_database: Callable[[], Postgres],
    begin: Callable[..., Installation],
    commands: Callable[[Path], Run],
    tmp_path: Path,
) -> None:
    where, home = postgres_database(), tmp_path / "home"
    stock_tiny(home)
    gateway = _serving(begin, home, where)
    for _ in range(3):
        assert (answer := _asked(gateway)).is_success, answer.text
    (row,) = json.loads(gateway.run("usage", "--json").stdout)
    assert row["requests"] == 3
    other = _serving(begin, _sharing(home, tmp_path / "other"), where)
    checked = json.loads(other.run("doctor", "--json").stdout)
    states = {each["check"]: each["state"] for each in checked["findings"]}
    assert states["audit"] == "pass"
    other.stop()
    gateway.stop()
    found = said(commands(home), "audit", "verify", "--database", where.url)
    assert (found["records"] >= 3, found["findings"]) == (True, [])
    elsewhere = replace(where, url=where.url.replace("/test_", "/none_"))
    failed(commands(home)("audit", "verify", "--database", elsewhere.url, "--json"),
           "storage_unavailable")  # fmt: skip


@pytest.mark.slow
def test_a_dump_as_the_manual_has_it_brings_everything_back(
    postgres_database: Callable[[], Postgres],
    postgres_server: postgres.Server,
    begin: Callable[..., Installation],
    tmp_path: Path,
) -> None:
    before, after = postgres_database(), postgres_server.new(is_empty=True)
    home, copy = tmp_path / "home", tmp_path / "copy"
    run = functools.partial(_run, postgres_server)
    stock_tiny(home)
    gateway = _serving(begin, home, before)
    assert _asked(gateway).is_success
    gateway.stop()

    _run(
        postgres_server,
        "pg_dump",
        before.url,
        "--format=custom",
        f"--file={tmp_path / 'careless.dump'}",
        code=1,
    )
    options = {"PGOPTIONS": "-c freehold.every_tenant=on"}
    dump = tmp_path / "freehold.dump"
    run("pg_dump", before.url, "--format=custom", "--enable-row-security", "--no-owner",
         f"--file={dump}", **options)  # fmt: skip
    left_out = shutil.ignore_patterns("cache", "logs", "run")
    shutil.copytree(home, copy, ignore=left_out)
    _run(
        postgres_server,
        "pg_restore",
        str(dump),
        "--no-owner",
        "--exit-on-error",
        f"--dbname={after.url}",
    )

    restored = _serving(begin, copy, after)
    try:
        assert _asked(restored).is_success
        (row,) = json.loads(restored.run("usage", "--json").stdout)
        assert row["requests"] == 2
        assert json.loads(restored.run("audit", "verify", "--json").stdout)["findings"] == []
        with psycopg.connect(after.url) as connection:
            found = connection.execute("SELECT count(*) FROM requests").fetchone()
        assert found == (0,), "the rows are still kept apart"
    finally:
        restored.stop()
        postgres_server.drop(after)


def _serving(begin: Callable[..., Installation], home: Path, where: Postgres) -> Installation:
    variables = {"FREEHOLD_DATABASE__URL": where.url}
    return begin(home, "--engine", "fake", "--model", "tiny", variables=variables)


def _asked(gateway: Installation) -> httpx2.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"{gateway.url}/v1/chat/completions"
    return httpx2.post(url, json=body, headers=headers, timeout=60)


def _run(
    server: postgres.Server, program: str, *words: str, code: int = 0, **variables: str
) -> None:
    path = server.process.bin_path / program
    ended = subprocess.run(
        [path, *words], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended.stderr


def _sharing(home: Path, made: Path) -> Path:
    """Another home for the same database."""
    stock_tiny(made)
    shutil.copytree(home / "secrets", made / "secrets")
    return made
