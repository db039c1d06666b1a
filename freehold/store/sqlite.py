"""How a SQLite file is opened so that it cannot be corrupted or lose a settlement, and its words.

One connection writes and alone checkpoints: SQLite 3.7.0 to 3.51.2 can corrupt a
database in WAL mode when two connections checkpoint (sqlite.org/wal.html#walresetbug),
and many systems link such a version. Readers are opened read-only, which never
checkpoint. The home's lock keeps other processes away.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, func
from sqlalchemy.pool import QueuePool, StaticPool

from freehold.store.backend import Place, Whose, Words

_BUSY_TIMEOUT_MS = 2000
_READ_ONLY = {"mode": "ro", "uri": "true"}

WORDS = Words(
    entries="json_each(:rows)",
    cast=lambda value, column: value,
    day=lambda at_us: func.strftime("%Y-%m-%d", at_us // 1_000_000, "unixepoch"),
    peers=None,
)


class _Alone:
    """The home's lock sees to that."""

    def hold(self) -> bool:
        return True

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A file that one process uses: there is nobody to take turns with, and nothing in the
    database that would keep a tenant's rows from the others."""

    path: Path
    words = WORDS
    gateway = None
    remedy_at_start = "check the disk, or restore a backup"
    remedy = "free disk space or wait, then try again"

    @property
    def shown(self) -> str:
        return str(self.path)

    def open_writer(self) -> Engine:
        return open_writer(self.path)

    def open_reader(self) -> Engine:
        return open_reader(self.path)

    def check(self, writer: Engine) -> None: ...

    def place(self, writer: Engine) -> Place:
        return _Alone()

    def begin_upgrade(self, connection: Connection) -> None: ...

    def end_upgrade(self, connection: Connection) -> None: ...

    def take_turn(self, connection: Connection) -> None: ...

    def take_time(self, connection: Connection) -> None: ...

    def scrub(self, writer: Engine) -> None:
        """Pages as they were before are in the write-ahead log until it is begun anew."""
        connection = writer.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()

    def see(self, connection: Connection, whose: Whose) -> None: ...


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
        connection.execute("PRAGMA secure_delete=ON")  # what is forgotten is overwritten
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
