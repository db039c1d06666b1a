"""How the file is opened: one connection writes and syncs fully, others cannot write."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from freehold.store.sql import SqlStore
from freehold.store.sqlite import open_reader, open_writer


def _pragma(engine: Engine, name: str) -> object:
    with engine.connect() as connection:
        return connection.scalar(text(f"PRAGMA {name}"))


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db")
    assert _pragma(writer, "journal_mode") == "wal"
    assert _pragma(writer, "synchronous") == 2, "FULL: a commit waits for the disk"
    assert _pragma(writer, "foreign_keys") == 1
    writer.dispose()


def test_all_threads_write_through_the_same_connection(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db")
    seen: list[object] = []

    def look() -> None:
        with writer.connect() as connection:
            seen.append(connection.connection.dbapi_connection)

    for _ in range(4):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert len(seen) == 4
    assert len(set(map(id, seen))) == 1
    writer.dispose()


def test_a_reader_can_neither_write_nor_make_a_file(tmp_path: Path) -> None:
    missing = open_reader(tmp_path / "none.db")
    with pytest.raises(OperationalError):
        missing.connect()
    assert list(tmp_path.iterdir()) == []

    writer = open_writer(tmp_path / "a.db")
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    reader = open_reader(tmp_path / "a.db")
    for statement in ("INSERT INTO t VALUES (1)", "DROP TABLE t", "CREATE TABLE u (x)",
                      "PRAGMA user_version = 7"):  # fmt: skip
        with reader.connect() as connection, pytest.raises(OperationalError, match="readonly"):
            connection.execute(text(statement))
    reader.dispose()
    writer.dispose()


def test_readers_do_not_wait_for_the_writer_and_see_what_is_committed(tmp_path: Path) -> None:
    writer, reader = open_writer(tmp_path / "a.db"), open_reader(tmp_path / "a.db")
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    count = text("SELECT count(*) FROM t")
    with writer.begin() as writing:
        writing.execute(text("INSERT INTO t VALUES (1)"))
        with reader.connect() as reading:
            assert reading.scalar(count) == 0
    with reader.connect() as reading:
        assert reading.scalar(count) == 1
    reader.dispose()
    writer.dispose()


def test_a_reader_that_ends_moves_nothing_out_of_the_writers_log(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = open_writer(path)
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    before = path.read_bytes()
    with writer.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    reader = open_reader(path)
    with reader.connect() as reading:
        assert reading.scalar(text("SELECT x FROM t")) == 1
    reader.dispose()
    assert path.read_bytes() == before, "only the writer checkpoints"
    writer.dispose()
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_transaction_that_fails_takes_its_tables_back(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.db")
    twice = [text("CREATE TABLE t (x)")] * 2
    with pytest.raises(OperationalError), writer.begin() as connection:
        list(map(connection.execute, twice))
    with writer.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM sqlite_master")) == 0
    writer.dispose()


@pytest.mark.parametrize(
    "name", ["a b", "what?mode=rw", "100%41", "#1", "\u00e9;x=y&z", 'it\'s "so"', "file:x", "::"]
)
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    store = SqlStore(folder / "freehold.db")
    store.put_fact("x", name)
    assert store.fact("x") == name
    store.close()
    assert [path.name for path in folder.iterdir()] == ["freehold.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
