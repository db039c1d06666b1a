"""A copy of the SQLite database as of one moment, made while somebody writes it; what a
backup wants to know of it, and what a restored one is told."""

import os
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, insert, inspect, select, text, update
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from freehold.core.errors import Code, UserError
from freehold.core.event import Event
from freehold.store import migrate
from freehold.store.backend import EVERY_TENANT
from freehold.store.events import row_of
from freehold.store.identity import count_change
from freehold.store.subjects import AuditReader
from freehold.store.tables import adapters, api_keys, events, facts, requests, sessions, tenants

Told = Callable[[int, int], None]  # done, in all
_PAGES = 2048  # a step: some 8 MiB
_AT_ONCE = 500  # ids in one question


def copy(source: Path, target: Path, told: Told) -> None:
    """One read transaction, so that all of it is of one moment however long it takes. The
    reader never writes or checkpoints (`sqlite.py` says why that matters)."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    name = f"file:{quote(str(source))}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(name, uri=True, isolation_level=None)) as reading,
            closing(sqlite3.connect(target, isolation_level=None)) as writing,
        ):
            reading.execute("BEGIN")
            reading.execute("SELECT 1 FROM sqlite_master").fetchone()
            reading.backup(
                writing, pages=_PAGES, progress=lambda _, left, all_: told(all_ - left, all_)
            )
            writing.execute("PRAGMA journal_mode=DELETE")  # one file, all of it
    except sqlite3.Error as error:
        raise UserError(
            Code.STORAGE_UNAVAILABLE,
            f"The database {source} cannot be copied ({error}): free disk space, or check its "
            "disk.",
        ) from None


class Snapshot(AuditReader):
    """A database that nobody writes. What it cannot answer is a `UserError`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path

    def problem(self) -> str | None:
        """What SQLite itself finds wrong with the file; None: nothing."""
        try:
            with closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True)) as it:
                (said,) = it.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.Error as error:
            return str(error)
        return None if said == "ok" else str(said)

    def schema(self) -> str:
        """Its revision. Raises `UserError` for one that this version cannot use."""
        with self._reading(EVERY_TENANT) as connection:
            if not inspect(connection).has_table("alembic_version"):
                raise UserError(Code.FILE_INVALID, "The database in the backup is none of ours.")
            found: str = connection.scalar(text("SELECT version_num FROM alembic_version")) or ""
            is_usable = migrate.is_usable(connection, found)
        if not is_usable:
            raise UserError(
                Code.FILE_INVALID,
                f"The backup was made by a newer Freehold (schema {found}): restore it with that "
                "version.",
            )
        return found

    def files(self) -> frozenset[str]:
        """The digests of all adapters' files."""
        with self._reading(EVERY_TENANT) as connection:
            rows = connection.execute(select(adapters.c.config_digest, adapters.c.weights_digest))
            return frozenset(digest for row in rows for digest in row)

    def settled(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the requests that are."""
        wanted, found = sorted(ids), set()
        with self._reading(EVERY_TENANT) as connection:
            for at in range(0, len(wanted), _AT_ONCE):
                chosen = requests.c.id.in_(wanted[at : at + _AT_ONCE])
                done = select(requests.c.id).where(chosen, requests.c.settled_at_us.is_not(None))
                found |= set(connection.scalars(done))
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Ended:
    """What had ended later than a backup knew: keys by id, with when they were revoked and
    when they expire, and tenants with when they were disabled."""

    keys: Mapping[str, tuple[int | None, int | None]]
    tenants: Mapping[str, int]


def ended(path: Path) -> Ended | None:
    """None for a database that cannot be read."""
    try:
        reader = Snapshot(path)
        try:
            with reader._reading(EVERY_TENANT) as connection:
                keys = connection.execute(
                    select(api_keys.c.id, api_keys.c.revoked_at_us, api_keys.c.expires_at_us)
                )
                known = {id: (revoked, expires) for id, revoked, expires in keys}
                off = connection.execute(select(tenants.c.id, tenants.c.disabled_at_us))
                return Ended(known, {id: at for id, at in off if at is not None})
        finally:
            reader.close()
    except (UserError, SQLAlchemyError):
        return None


def prepare(path: Path, named: Mapping[str, str], later: Ended | None, restored: Event) -> int:
    """Makes a restored database fit its new home: facts of this installation, the event of
    its restore, and what had ended since the backup ends again. Returns how many keys and
    tenants that were."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            for name, value in named.items():
                connection.execute(facts.delete().where(facts.c.name == name))
                connection.execute(insert(facts).values(name=name, value=value))
            count = _end(connection, later) if later is not None else 0
            count_change(connection)
            there = inspect(connection)
            if there.has_table(sessions.name):  # which may have ended since
                connection.execute(sessions.delete())
            if there.has_table(events.name):
                connection.execute(insert(events).values(**row_of(restored)))
    except DatabaseError as error:
        raise UserError(
            Code.FILE_INVALID, f"The restored database cannot be written ({error.orig})."
        ) from None
    finally:
        engine.dispose()
    return count


def _end(connection: Connection, later: Ended) -> int:
    count = 0
    for id, revoked, expires in connection.execute(
        select(api_keys.c.id, api_keys.c.revoked_at_us, api_keys.c.expires_at_us)
    ).all():
        was_revoked, expired = later.keys.get(id, (None, None))
        new = {}
        if was_revoked is not None and revoked is None:
            new["revoked_at_us"] = was_revoked
        if expired is not None and (expires is None or expires > expired):
            new["expires_at_us"] = expired
        if new:
            connection.execute(update(api_keys).where(api_keys.c.id == id).values(**new))
            count += 1
    for id, at_us in later.tenants.items():
        mine = (tenants.c.id == id) & tenants.c.disabled_at_us.is_(None)
        count += connection.execute(
            update(tenants).where(mine).values(disabled_at_us=at_us)
        ).rowcount
    return count
