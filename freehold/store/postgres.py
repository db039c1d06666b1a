"""How a PostgreSQL database is opened, how it keeps tenants apart by itself, and its
words.

Every table that has a tenant's rows is under row-level security, forced on its owner too.
A transaction says whose rows it is for (`see`); without that it sees none. What must see all
says so by a mark of its own, not by a tenant's id. That is as strong as a role of its own
would be: whoever can set the mark can set the role (both are settings), and a role takes
rights that a login of a managed PostgreSQL may not have. It holds against a query that
forgets its tenant, not against somebody who runs SQL of their own with this login.
"""

import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Integer,
    TextClause,
    create_engine,
    event,
    func,
    inspect,
    literal_column,
    make_url,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from freehold.core.errors import Code, UserError
from freehold.store.backend import EVERY_TENANT, PeerWords, Place, Whose, Words
from freehold.store.tables import audit, metadata, tenants

_CONNECT_S = 2  # the least that libpq knows
_LOCK_MS, _STATEMENT_MS, _IDLE_MS = 2000, 5000, 10_000
_LONG_MS = 60_000
_AWAY_S = 0.5  # a database that cannot be reached is not asked again sooner
_WRITERS, _READERS = 4, 8
# A try at all tables must be shorter than what a server waits before it looks for deadlocks.
_TAKE_MS, _TAKE_AGAIN_S, _TAKE_S = 500, 0.2, 60
_CANCELLED = "57014"

# Advisory locks of this program: the first number says so, the second what for.
_OURS, _UPGRADE, _TURN = 0x46484C44, 1, 2

_SECOND_US = literal_column("1000000", BigInteger)


def _cast(value: str, column: Column[Any]) -> str:
    """Counts of a hostile upstream could be too large for their columns, and one row that
    cannot be written would keep all others of the ledger waiting."""
    if isinstance(column.type, Boolean):
        return f"({value})::boolean"
    if isinstance(column.type, Integer):
        size, most = ("bigint", 2**63 - 1) if isinstance(column.type, BigInteger) else (
            "integer", 2**31 - 1
        )  # fmt: skip
        number = f"({value})::numeric"
        return f"(CASE WHEN {number} > {most} THEN {most} ELSE {number} END)::{size}"
    return value


_NOW_US = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"

_PEERS = PeerWords(
    now_us=text(f"SELECT {_NOW_US}"),
    turn_of=text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 0))"),
    beat=text(
        f"INSERT INTO gateways VALUES (:gateway, {_NOW_US})"  # noqa: S608 - of constants
        " ON CONFLICT (id) DO UPDATE SET seen_at_us = excluded.seen_at_us"
    ),
    # A slot is free when nothing is in it, when what is in it has expired, or when it is still
    # held by a request that ended with nothing worth repeating, as its own gateway knows.
    claim=text(
        "INSERT INTO idempotency AS held (slot, request_id, body_hash, expires_at_us, gateway)"
        " VALUES (:slot, :request_id, :body_hash, :expires_at_us, :gateway)"
        " ON CONFLICT (slot) DO UPDATE SET request_id = excluded.request_id,"
        " body_hash = excluded.body_hash, expires_at_us = excluded.expires_at_us,"
        " gateway = excluded.gateway, status = NULL, content_type = NULL, sealed_body = NULL"
        " WHERE held.expires_at_us < :now_us OR held.request_id = :ended"
        " RETURNING request_id"
    ),
)
WORDS = Words(
    entries="jsonb_array_elements(CAST(:rows AS jsonb)) AS given (value)",
    cast=_cast,
    day=lambda at_us: func.to_char(
        func.timezone(literal_column("'UTC'"), func.to_timestamp(at_us // _SECOND_US)),
        literal_column("'YYYY-MM-DD'"),
    ),
    peers=_PEERS,
)

_SEE = text(
    "SELECT set_config('freehold.tenant', :tenant, true),"
    " set_config('freehold.every_tenant', :every, true)"
)
_ONE = "NULLIF(current_setting('freehold.tenant', true), '')"  # a setting that ended is empty
_EVERY = "current_setting('freehold.every_tenant', true) = 'on'"


@dataclass(frozen=True)
class Postgres:
    """`url` has been checked where settings are, and holds no password: that is read at each
    connection, so that a file which is written anew counts from then on."""

    url: str
    password_file: Path | None = None
    gateway: str = "gw"
    _door: "_Door" = field(default_factory=lambda: _Door(), repr=False, compare=False)
    words = WORDS
    remedy_at_start = "start PostgreSQL, or check `database.url` and `database.password_file`"
    remedy = "start PostgreSQL or wait, then try again"

    @property
    def shown(self) -> str:
        url = make_url(self.url)
        return f"{url.database} on {url.host or 'this machine'}"

    def open_writer(self) -> Engine:
        return self._engine(_WRITERS)

    def open_reader(self) -> Engine:
        return self._engine(_READERS, "-c default_transaction_read_only=on")

    def _engine(self, connections: int, *options: str) -> Engine:
        bounds = (
            f"-c statement_timeout={_STATEMENT_MS}",
            f"-c lock_timeout={_LOCK_MS}",
            f"-c idle_in_transaction_session_timeout={_IDLE_MS}",
        )
        try:
            engine = create_engine(
                make_url(self.url).set(drivername="postgresql+psycopg"),
                poolclass=QueuePool,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=_CONNECT_S,
                pool_pre_ping=True,  # so that a server which was away is found again
                pool_use_lifo=True,
                connect_args={
                    "connect_timeout": _CONNECT_S,
                    "options": " ".join((*bounds, *options)),
                    "keepalives_idle": 5,
                    "keepalives_interval": 2,
                    "keepalives_count": 3,
                    "tcp_user_timeout": _STATEMENT_MS + 2000,
                },
            )
        except ImportError:
            raise UserError(
                Code.NOT_INSTALLED,
                "The database is on PostgreSQL, and what talks to it is not installed: run "
                "`pip install 'freehold[postgres]'`.",
            ) from None
        self._door.guard(engine, self.password_file)
        return engine

    def check(self, writer: Engine) -> None:
        """The rights of a login that rows are not kept from would make every promise of this
        file empty."""
        with writer.connect() as connection:
            name, is_above, encoding = connection.execute(
                text(
                    "SELECT rolname, rolsuper OR rolbypassrls, current_setting('server_encoding')"
                    " FROM pg_roles WHERE rolname = current_user"
                )
            ).one()
        if is_above:
            raise UserError(
                Code.CONFIG_INVALID,
                f"The PostgreSQL role {name!r} is a superuser or bypasses row-level security, so "
                "that nothing would keep tenants' rows apart: make a plain role that owns the "
                "database, as docs/postgresql.md shows.",
            )
        if encoding != "UTF8":
            raise UserError(
                Code.CONFIG_INVALID,
                f"The database {self.shown} is encoded in {encoding}: create it with "
                "ENCODING 'UTF8'.",
            )

    def place(self, writer: Engine) -> Place:
        return _Place(writer, self.gateway)

    def begin_upgrade(self, connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(_lock(_UPGRADE))
        self.see(connection, EVERY_TENANT)
        self._take_tables(connection)

    def _take_tables(self, connection: Connection) -> None:
        """All at once and before anything is changed, so that the upgrade and a gateway that
        serves never wait for each other. What cannot be had soon is let go between two tries:
        others wait for it meanwhile, and the server would end one of them."""
        found = sorted(metadata.tables.keys() & set(inspect(connection).get_table_names()))
        until = time.monotonic() + _TAKE_S
        while found:
            try:
                with connection.begin_nested():
                    connection.execute(text(f"SET LOCAL statement_timeout = {_TAKE_MS}"))
                    connection.exec_driver_sql(f"LOCK TABLE {', '.join(found)}")
                    connection.execute(text("SET LOCAL statement_timeout = 0"))
                return
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _CANCELLED:
                    raise
            if time.monotonic() > until:
                raise UserError(
                    Code.STORAGE_UNAVAILABLE,
                    f"The tables of {self.shown} are in use all the time, so they cannot be "
                    "brought to the schema of this version: end what reads them (a dump, say), "
                    "then start again.",
                )
            time.sleep(_TAKE_AGAIN_S)

    def end_upgrade(self, connection: Connection) -> None:
        """Every table with tenants' rows is protected, those of the step just taken too."""
        for table, owner in _protected().items():
            for statement in (
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
                f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
                f"DROP POLICY IF EXISTS of_one_tenant ON {table}",
                f"CREATE POLICY of_one_tenant ON {table} USING ({owner} = {_ONE})",
                f"DROP POLICY IF EXISTS of_every_tenant ON {table}",
                f"CREATE POLICY of_every_tenant ON {table} USING ({_EVERY})",
            ):
                connection.exec_driver_sql(statement)

    def take_turn(self, connection: Connection) -> None:
        connection.execute(_lock(_TURN))

    def take_time(self, connection: Connection) -> None:
        connection.execute(text(f"SET LOCAL statement_timeout = {_LONG_MS}"))

    def scrub(self, writer: Engine) -> None:
        """Its vacuum does it, when whoever operates it lets it."""

    def see(self, connection: Connection, whose: Whose) -> None:
        if whose is EVERY_TENANT:
            connection.execute(_SEE, {"tenant": "", "every": "on"})
        else:
            connection.execute(_SEE, {"tenant": whose, "every": ""})


class _Door:
    """Lets connections through: with the password of this moment, and not at all just after
    one failed, so that requests are refused at once while a database cannot be reached."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0

    def guard(self, engine: Engine, password_file: Path | None) -> None:
        @event.listens_for(engine, "do_connect")
        def _connect(dialect: Any, _record: Any, given: Any, named: dict[str, Any]) -> Any:
            failed = dialect.loaded_dbapi.OperationalError
            with self._lock:
                if time.monotonic() < self._closed_until:
                    raise failed("it could not be reached a moment ago")
            try:
                if password_file is not None:
                    named["password"] = password_file.read_text().strip()
                return dialect.connect(*given, **named)
            except OSError as error:
                raise failed(f"{password_file} cannot be read: {error.strerror}") from None
            except failed:
                with self._lock:
                    self._closed_until = time.monotonic() + _AWAY_S
                raise


class _Place:
    """A lock that lives as long as its connection: it is free at once when the process dies,
    and soon after its machine does."""

    def __init__(self, engine: Engine, gateway: str) -> None:
        self._engine = engine
        number = zlib.crc32(gateway.encode()) - 2**31
        self._take = text(f"SELECT pg_try_advisory_lock({_OURS + 1}, {number})")
        self._connection: Connection | None = None
        self._driver: Any = None  # its connection, which is nobody else's to close
        self._lock = threading.Lock()

    def hold(self) -> bool:
        with self._lock:
            if self._is_alive():
                return True
            self._end()
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection, self._driver = connection, connection.connection.driver_connection
            connection.detach()  # the pool neither counts it nor keeps it
            if connection.scalar(self._take):
                return True
            self._end()
            return False

    def close(self) -> None:
        with self._lock:
            self._end()

    def _is_alive(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        return True

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._driver.close()
            self._connection = None


def _lock(what: int) -> TextClause:
    return text(f"SELECT pg_advisory_xact_lock({_OURS}, {what})")


def _protected() -> dict[str, str]:
    """What says whose a row is, by table; a stream may end in the gateway that writes it."""
    found = {table.name: "tenant_id" for table in metadata.sorted_tables if "tenant_id" in table.c}
    return found | {
        tenants.name: "id",
        audit.name: "split_part(split_part(stream, '@', 1), '/', 1)",
    }
