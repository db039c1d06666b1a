"""How a SQLite file is opened so that it cannot be corrupted or lose a settlement.

One connection writes and alone checkpoints: SQLite 3.7.0 to 3.51.2 can corrupt a
database in WAL mode when two connections checkpoint (sqlite.org/wal.html#walresetbug),
and many systems link such a version. Readers are opened read-only, which never
checkpoint. The home's lock keeps other processes away.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

_BUSY_TIMEOUT_MS = 2000
_READ_ONLY = {"mode": "ro", "uri": "true"}


def open_writer(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")

    # The driver's own transaction handling starts late and breaks DDL; SQLAlchemy's
    # documentation prescribes this pair.
    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def open_reader(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=f"file:{quote(str(path))}", query=_READ_ONLY),
        poolclass=QueuePool,
        pool_size=4,
        connect_args={"check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA query_only=ON")

    return engine
