"""An upgrade with data, and back: the version before can go on, and no audit chain breaks."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Engine, Float, Integer, LargeBinary, MetaData, Table, insert, select

from freehold.core.audit import BEGINNING, link, stream_of
from freehold.store.base import Entries
from freehold.store.sql import SqlStore
from freehold.store.sqlite import open_writer


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("freehold.store") / "migrations"))
    return config


def _move(path: Path, revision: str) -> None:
    engine, config = open_writer(path), _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        script = ScriptDirectory.from_config(config)
        now = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
        ).first()
        is_new = now is None
        head = script.get_current_head()
        down = not is_new and revision != head
        (command.downgrade if down else command.upgrade)(config, revision)
    engine.dispose()


def _before() -> str:
    script = ScriptDirectory.from_config(_config())
    step = script.get_revision(script.get_current_head() or "")
    assert isinstance(step.down_revision, str)
    return step.down_revision


def _tables(engine: Engine) -> list[Table]:
    found = MetaData()
    found.reflect(engine)
    return [each for each in found.sorted_tables if each.name != "alembic_version"]


def _row(table: Table, number: int) -> dict[str, Any]:
    """What must be there, in each column that must not be empty."""
    made: dict[str, Any] = {}
    for column in table.columns:
        if column.nullable or column.server_default is not None:
            continue
        if isinstance(column.type, Boolean):
            made[column.name] = False
        elif isinstance(column.type, Integer):
            made[column.name] = number
        elif isinstance(column.type, Float):
            made[column.name] = number / 8
        elif isinstance(column.type, LargeBinary):
            made[column.name] = b"%d" % number
        else:
            made[column.name] = f"x{number}"
    return made


def test_the_statements_of_the_version_before_run_on_the_new_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    _move(path, _before())
    engine = open_writer(path)
    old = _tables(engine)
    with engine.begin() as connection:
        for table in old:
            connection.execute(insert(table).values(**_row(table, 101)))
    engine.dispose()
    SqlStore(path).close()
    engine = open_writer(path)
    with engine.begin() as connection:
        for table in old:
            connection.execute(insert(table).values(**_row(table, 102)))
            rows = [dict(row) for row in connection.execute(select(table)).mappings()]
            for number in (101, 102):
                wanted = _row(table, number)
                assert any(wanted.items() <= row.items() for row in rows), table.name
    engine.dispose()


def _use(store: SqlStore, number: int) -> None:
    entries = Entries()
    entries.add(["r", f"req_{number}", "ten_a", "dev", "key_a", "m", "chat/completions", "fake",
                 None, None, None, "interactive", False, number, ""])  # fmt: skip
    entries.add(["s", f"req_{number}", "ok", 1, 1, 0, False, None, 1, number, None])
    store.apply(entries)


def test_the_audit_chain_goes_on_over_an_upgrade_and_a_step_back(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for number, revision in enumerate(("head", _before(), "head"), 1):
        if revision != "head":
            _move(path, revision)
        store = SqlStore(path)  # which brings it to the schema of now
        _use(store, number)
        trail = list(store.audit_trail(stream_of("ten_a", "dev")))
        store.close()
        assert len(trail) == number
        previous = BEGINNING
        for record in trail:
            assert record.hash == link(previous, record.stream, record.number, record.body)
            previous = record.hash
