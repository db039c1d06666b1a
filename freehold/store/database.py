"""One open database: how it is read and written, and what its errors say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DatabaseError, IntegrityError

from freehold.core.errors import Code, UserError
from freehold.store import migrate
from freehold.store.sqlite import open_reader, open_writer
from freehold.store.tables import facts


class Database:
    """Thread-safe: one lock guards the one writing connection, readers have their own."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._writer: Engine = open_writer(path)
        try:
            migrate.upgrade(self._writer)
        except UserError:
            self._writer.dispose()
            raise
        except DatabaseError as error:
            self._writer.dispose()
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                f"The database {path} cannot be opened ({_short(error)}): "
                "check the disk, or restore a backup.",
            ) from None
        self._reader: Engine = open_reader(path)

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def fact(self, name: str) -> str | None:
        """One of this installation's."""
        with self._reading() as connection:
            return connection.scalar(select(facts.c.value).where(facts.c.name == name))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._lock:
            try:
                with self._writer.begin() as connection:
                    yield connection
            except IntegrityError:
                raise
            except DatabaseError as error:
                raise _unavailable(error) from None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._reader.connect() as connection:
                yield connection
        except DatabaseError as error:
            raise _unavailable(error) from None


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", error)).splitlines()[0][:120]


def _unavailable(error: DatabaseError) -> UserError:
    return UserError(
        Code.STORAGE_UNAVAILABLE,
        f"The database cannot be used right now ({_short(error)}): "
        "free disk space or wait, then try again.",
        retry_after_s=2,
    )
