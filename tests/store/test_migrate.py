"""A database comes to this version's schema, whole or not at all, and a newer one is
left alone."""

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from freehold.core.errors import Code, UserError
from freehold.store import migrate
from freehold.store.backend import Backend
from freehold.store.snapshot import Snapshot
from freehold.store.sql import SqlStore
from freehold.store.sqlite import Sqlite, open_writer
from freehold.store.tables import metadata
from tests.newer import REVISION, newer
from tests.store.making import a_key, used

_SCRIPTS = str(files("freehold.store") / "migrations")


def _shape(path: Path) -> dict[str, Any]:
    """Every table's columns and every index, as SQLite itself tells them."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            name for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]  # fmt: skip
        found: dict[str, Any] = {}
        for table in tables:
            columns = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
            found[table] = {column[1]: column[2:] for column in columns}
            for index in connection.execute(f"PRAGMA index_list({table})").fetchall():
                name, facts = index[1], index[2:]
                parts = connection.execute(f"PRAGMA index_xinfo({name})").fetchall()
                (sql,) = connection.execute(
                    "SELECT sql FROM sqlite_master WHERE name = ?", (name,)
                ).fetchone()
                own = name if sql else f"automatic {[part[2] for part in parts if part[2]]}"
                found[f"{table}.{own}"] = (facts, parts, " ".join((sql or "").split()))
        return found


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def _upgraded(path: Path) -> Path:
    engine = open_writer(path)
    migrate.upgrade(engine, Sqlite(path))
    engine.dispose()
    return path


def test_the_migrations_make_exactly_the_tables_of_this_version(tmp_path: Path) -> None:
    engine = open_writer(_upgraded(tmp_path / "a.db"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()

    plain = create_engine(f"sqlite:///{tmp_path / 'b.db'}")
    metadata.create_all(plain)
    plain.dispose()
    migrated = _shape(tmp_path / "a.db")
    assert migrated.pop("alembic_version")
    del migrated["alembic_version.automatic ['version_num']"]
    assert migrated == _shape(tmp_path / "b.db")


def test_the_steps_are_those_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    script = ScriptDirectory.from_config(config)
    known = migrate.revisions()
    assert known == [step.revision for step in script.walk_revisions()][::-1]
    assert known[-1] == script.get_current_head()
    assert migrate.is_known(known[0])
    assert not migrate.is_known("9999")


def test_upgrading_again_changes_nothing(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "a.db")
    store.add_tenant("ten_a", "a", 1)
    store.put_fact("x", "y")
    store.close()
    dumped, written = _dump(tmp_path / "a.db"), (tmp_path / "a.db").read_bytes()
    for _ in range(2):
        _upgraded(tmp_path / "a.db")
        assert _dump(tmp_path / "a.db") == dumped
        assert (tmp_path / "a.db").read_bytes() == written


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = _upgraded(tmp_path / "a.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("CREATE TABLE of_tomorrow (x)")
    before = path.read_bytes()

    with pytest.raises(UserError, match="newer Freehold \\(schema 9999\\)") as refused:
        SqlStore(path)

    assert refused.value.code is Code.CONFIG_INVALID
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == ["a.db"], "it was closed again"


def test_a_database_of_a_newer_version_is_used_where_its_schema_says_so(
    store: SqlStore, where: Backend, tmp_path: Path
) -> None:
    store.close()
    with newer(tmp_path):
        tomorrow = SqlStore(where)
        assert tomorrow.newer_schema is None
        tomorrow.add_tenant("ten_a", "a", 1)
        tomorrow.close()
    today = SqlStore(where)
    assert today.newer_schema == REVISION
    today.add_key(a_key("key_1"))
    used(today, "req_1")
    assert [row["outcome"] for row in today.records("ten_a", 9)] == ["ok"]
    assert today.revoke_key("ten_a", "key_1", 5)
    today.close()
    with newer(tmp_path):
        again = SqlStore(where)
        assert again.newer_schema is None
        assert len(again.keys("ten_a")) == 1
        again.close()


def test_a_copy_of_a_newer_database_can_be_restored_where_its_schema_says_so(
    tmp_path: Path,
) -> None:
    for says, is_refused in (("serves_from = down_revision", False), ("", True)):
        with newer(tmp_path, says):
            copy = Snapshot(_upgraded(tmp_path / f"{is_refused}.db"))
        try:
            if is_refused:
                with pytest.raises(UserError, match="restore it with that"):
                    copy.schema()
            else:
                assert copy.schema() == REVISION
        finally:
            copy.close()


@pytest.mark.parametrize("says", ["", f'serves_from = "{REVISION}"', 'serves_from = "8999"'])
def test_a_newer_version_that_this_one_could_not_follow_shuts_it_out(
    tmp_path: Path, says: str
) -> None:
    path = _upgraded(tmp_path / "a.db")
    with newer(tmp_path, says):
        _upgraded(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"newer Freehold \\(schema {REVISION}\\)"):
        SqlStore(path)
    assert path.read_bytes() == before


def test_each_step_says_which_versions_can_use_it() -> None:
    """What it serves from only ever grows, and is never a later one."""
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    known = migrate.revisions()
    said = [
        (getattr(step.module, "serves_from", None), step.revision)
        for step in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))
    ]
    named = [(known.index(oldest), known.index(own)) for oldest, own in said if oldest]
    assert named == sorted(named)
    assert all(oldest <= own for oldest, own in named)
    assert [own for oldest, own in said if own >= "0015" and oldest is None] == []


def test_a_step_that_fails_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE tenants (of_another_program)")
    before = _dump(path)

    with pytest.raises(UserError) as refused:
        SqlStore(path)

    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert _dump(path) == before


def test_every_step_can_be_taken_back(tmp_path: Path) -> None:
    engine = open_writer(tmp_path / "a.db")
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    migrate.upgrade(engine, Sqlite(tmp_path / "a.db"))
    whole = _shape(tmp_path / "a.db")
    for step in steps:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, step.down_revision or "base")
    assert set(_shape(tmp_path / "a.db")) == {
        "alembic_version", "alembic_version.automatic ['version_num']",
    }  # fmt: skip
    migrate.upgrade(engine, Sqlite(tmp_path / "a.db"))
    engine.dispose()
    assert _shape(tmp_path / "a.db") == whole


def test_steps_form_one_line(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    script = ScriptDirectory.from_config(config)
    assert len(script.get_heads()) == len(script.get_bases()) == 1
