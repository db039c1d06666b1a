"""One open database: how it is read and written, and what its errors say."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from freehold.core.acts import acting
from freehold.core.errors import Code, Fault, UserError
from freehold.store import migrate
from freehold.store.backend import EVERY_TENANT, Backend, Whose
from freehold.store.sqlite import Sqlite
from freehold.store.tables import facts

# SQLite's SQLITE_IOERR and SQLITE_FULL, and PostgreSQL's disk_full and io_error.
_UNWRITABLE = {10, 13, "53100", "58030"}
# What a statement for all entries of a busy second needs stays with its thread: 40 MB.
_PART = 250

_Row = TypeVar("_Row")


class Unwritable(UserError):
    """The disk under the database is full or broken: it will not do to wait with it."""


class Database:
    """Thread-safe. Whoever opens a transaction says for which tenant, or that it is for
    all: on PostgreSQL the rows of others are then not there."""

    def __init__(self, where: Path | Backend) -> None:
        """A path is a SQLite file. `newer_schema` is that of a later version, which this one
        can use."""
        self._backend: Backend = Sqlite(where) if isinstance(where, Path) else where
        self._turn = threading.Lock()  # of those who write
        self._writer: Engine = self._backend.open_writer()
        try:
            self._backend.check(self._writer)
            self.newer_schema = migrate.upgrade(self._writer, self._backend)
        except UserError:
            self._writer.dispose()
            raise
        except (DBAPIError, PoolTimeout) as error:
            self._writer.dispose()
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                f"The database {self._backend.shown} cannot be opened ({_short(error)}): "
                f"{self._backend.remedy_at_start}.",
            ) from None
        self._reader: Engine = self._backend.open_reader()
        self._place = self._backend.place(self._writer)

    def close(self) -> None:
        self._place.close()
        self._reader.dispose()
        self._writer.dispose()

    @property
    def gateway(self) -> str | None:
        """This one's id; None where there can be no others."""
        return self._backend.gateway

    def own(self, name: str) -> str:
        """What this gateway alone writes under that name, where there can be others."""
        return name if self.gateway is None else f"{name}@{self.gateway}"

    def is_own(self, name: str) -> bool:
        """Whether it is a name that `own` made here."""
        return name.endswith(self.own(""))

    def fact(self, name: str) -> str | None:
        """One of this installation's."""
        with self._reading(EVERY_TENANT) as connection:
            return connection.scalar(select(facts.c.value).where(facts.c.name == name))

    @contextmanager
    def _writing(self, whose: Whose) -> Iterator[Connection]:
        """For what Freehold does by itself. What people change leaves a record, through
        `AuditTable._changing`: forgetting that is refused here."""
        if acting() is not None:
            raise Fault("an administrative change that leaves no audit record")
        with self._transaction(whose) as connection:
            yield connection

    @contextmanager
    def _transaction(self, whose: Whose) -> Iterator[Connection]:
        """One at a time, of all processes on this database."""
        with self._turn, self._told(), self._writer.begin() as connection:
            self._backend.take_turn(connection)
            self._backend.see(connection, whose)
            yield connection

    @contextmanager
    def _applying(self) -> Iterator[Connection]:
        """For the ledger, of all tenants. It changes nothing that people manage, so it waits
        for no other process."""
        with self._turn, self._told(), self._writer.begin() as connection:
            self._backend.take_time(connection)
            self._backend.see(connection, EVERY_TENANT)
            yield connection

    def _scrub(self) -> None:
        """What was overwritten is gone from the database's files, too, as far as that is in
        its hands."""
        with self._turn, self._told():
            self._backend.scrub(self._writer)

    @contextmanager
    def _holding(self, tenant_id: str) -> Iterator[Connection]:
        """Waits for nobody but requests of this tenant, where it asks for that."""
        with self._told(), self._writer.begin() as connection:
            self._backend.see(connection, tenant_id)
            yield connection

    @contextmanager
    def _beside(self) -> Iterator[Connection]:
        """Waits for nobody, where several connections may write; of tables without rows of
        tenants."""
        with self._told(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self, whose: Whose) -> Iterator[Connection]:
        with self._told(), self._reader.connect() as connection:
            self._backend.see(connection, whose)
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the database cannot do, in a sentence."""
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            raise _kind_of(error)(
                Code.STORAGE_UNAVAILABLE,
                f"The database cannot be used right now ({_short(error)}): {self._backend.remedy}.",
                retry_after_s=2,
            ) from None


def _short(error: Exception) -> str:
    first = str(getattr(error, "orig", error)).splitlines()[0]
    return " ".join(first.rpartition("failed: ")[2].split())[:120]  # what a server said at last


def _kind_of(error: Exception) -> type[UserError]:
    original = getattr(error, "orig", None)
    primary = getattr(original, "sqlite_errorcode", 0) & 0xFF
    is_unwritable = _UNWRITABLE & {primary, getattr(original, "sqlstate", None)}
    return Unwritable if is_unwritable else UserError


def parts(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """For one statement each, so that its memory does not follow the load."""
    for at in range(0, len(rows), _PART):
        yield rows[at : at + _PART]
