"""PostgreSQL keeps tenants apart by itself, and lets in no login that it would not bind."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier
from sqlalchemy import insert, inspect, literal_column, select, text
from sqlalchemy import table as table_

from freehold.core.acts import Acting, Via, acting_as
from freehold.core.audit import INSTALLATION
from freehold.core.errors import Code, UserError
from freehold.core.subject import Owner, Sealed, SubjectKey
from freehold.core.tenant import IsolationClass
from freehold.store import migrate, postgres
from freehold.store.backend import EVERY_TENANT
from freehold.store.postgres import Postgres
from freehold.store.sql import SqlStore
from freehold.store.tables import metadata
from tests.newer import newer
from tests.postgres import Server, connected
from tests.store.making import a_key, furnish

_WITH_TENANTS = {table.name for table in metadata.sorted_tables if "tenant_id" in table.c}


@pytest.fixture
def where(postgres_database: Callable[[], Postgres]) -> Postgres:
    return postgres_database()


@pytest.fixture
def store(where: Postgres) -> Iterator[SqlStore]:
    opened = SqlStore(where)
    yield opened
    opened.close()


def _tenants_in(store: SqlStore, table: str, whose: object) -> set[str]:
    """Whose rows a query sees that forgot to say whose it wants."""
    owner = {"tenants": "id", "audit": "split_part(split_part(stream, '@', 1), '/', 1)"}.get(
        table, "tenant_id"
    )
    with store._reading(whose) as connection:  # type: ignore[arg-type]
        return set(connection.scalars(select(literal_column(owner)).select_from(table_(table))))


def _fill(store: SqlStore, table: str, tenant: str) -> None:
    """A row of anything."""
    of: dict[type, object] = {str: tenant, bytes: tenant.encode(), int: 1, bool: True}
    columns = metadata.tables[table].columns
    with store._transaction(tenant) as connection:
        connection.execute(
            insert(metadata.tables[table]),
            {column.name: of[column.type.python_type] for column in columns},
        )


@pytest.mark.parametrize("table", sorted(_WITH_TENANTS | {"tenants", "audit"}))
def test_a_query_that_forgets_its_tenant_sees_no_other(store: SqlStore, table: str) -> None:
    for tenant in ("ten_a", "ten_b"):
        furnish(store, tenant)
        if tenant not in _tenants_in(store, table, EVERY_TENANT):
            _fill(store, table, tenant)
    # Acts of the installation have a chain of their own, which is no tenant's.
    assert _tenants_in(store, table, EVERY_TENANT) - {INSTALLATION} == {"ten_a", "ten_b"}
    assert _tenants_in(store, table, "ten_a") == {"ten_a"}
    for nobody in ("*", "on", "", "ten_c"):
        assert _tenants_in(store, table, nobody) == set()


def test_a_transaction_that_says_nothing_sees_nothing_whatever_ran_before_it(
    store: SqlStore,
) -> None:
    furnish(store, "ten_a")
    for _ in range(3):
        assert _tenants_in(store, "api_keys", EVERY_TENANT) == {"ten_a"}
        with store._reader.connect() as connection:
            assert connection.execute(text("SELECT * FROM api_keys")).all() == []
            assert connection.execute(text("SELECT * FROM policies")).all() == []


def test_a_row_of_another_tenant_is_neither_changed_nor_made(store: SqlStore) -> None:
    furnish(store, "ten_a")
    with store._writing("ten_b") as connection:
        assert connection.execute(text("UPDATE api_keys SET revoked_at_us = 1")).rowcount == 0
        assert connection.execute(text("DELETE FROM api_keys")).rowcount == 0
        assert connection.execute(text("UPDATE tenants SET name = 'x'")).rowcount == 0
    made = text("INSERT INTO policies VALUES ('ten_a', 'x', 'permit(principal);', 1, 'y')")
    with (
        pytest.raises(UserError, match="row-level security"),
        store._writing("ten_b") as connection,
    ):
        connection.execute(made)
    assert len(store.policies("ten_a")) == 1


def test_what_an_operator_of_another_tenant_does_is_recorded_with_who_it_was(
    store: SqlStore,
) -> None:
    def sealer(owners: Sequence[Owner], _fields: object, record_id: str) -> Sealed:
        made = [
            SubjectKey(f"dk_{record_id}_{at}", *owner, b"w", 1) for at, owner in enumerate(owners)
        ]
        return Sealed(tuple(each.id for each in made), "sealed", tuple(made))

    store.sealer = sealer
    operator = Acting("key_op", Via.API, "ten_op", personal={"address": "::1"})
    with acting_as(operator):
        store.add_tenant("ten_a", "a", 1)
        store.add_key(a_key())
        store.set_isolation("ten_a", IsolationClass.DEDICATED)
    assert [key.id for key in store.keys("ten_a")] == ["key_1"]
    assert _tenants_in(store, "subject_keys", EVERY_TENANT) >= {"ten_op"}


def test_every_table_with_tenants_rows_is_protected_from_its_owner_too(where: Postgres) -> None:
    SqlStore(where).close()
    with connected(where) as connection:
        found = connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE a.attname = 'tenant_id' AND c.relkind = 'r'"
            " AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND 2 ="
            " (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid))"
        ).fetchall()
        count = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
        ).fetchone()
    assert found == []
    assert count == (len(_WITH_TENANTS) + 2,)


def test_a_reader_cannot_write(store: SqlStore) -> None:
    with (
        pytest.raises(UserError, match="read-only"),
        store._reading(EVERY_TENANT) as connection,
    ):
        connection.execute(text("DELETE FROM facts"))


@pytest.mark.parametrize("right", ["SUPERUSER", "BYPASSRLS"])
def test_a_login_that_policies_do_not_bind_is_refused(
    postgres_server: Server, where: Postgres, right: str
) -> None:
    login = f"above_{right.lower()}"
    with postgres_server.admin() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {login}")
        connection.execute(f"CREATE ROLE {login} LOGIN {right}")
    with pytest.raises(UserError, match="bypasses row-level security") as refused:
        SqlStore(Postgres(where.url.replace("//freehold@", f"//{login}@")))
    assert refused.value.code is Code.CONFIG_INVALID


def test_gateways_that_start_together_make_the_tables_once(postgres_server: Server) -> None:
    where = postgres_server.new(is_empty=True)
    began = threading.Barrier(6)

    def start(_: int) -> None:
        began.wait()
        SqlStore(Postgres(where.url)).close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(start, range(6)))
    with connected(where) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    postgres_server.drop(where)


def test_an_upgrade_waits_for_what_others_have_and_ends_none_of_them(
    where: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has one table and comes for another, in the order that would block both."""
    monkeypatch.setattr(postgres, "_TAKE_MS", 50)
    monkeypatch.setattr(postgres, "_TAKE_AGAIN_S", 0.01)
    with newer(tmp_path), ThreadPoolExecutor(1) as threads:
        with connected(where) as connection:
            connection.execute("SELECT count(*) FROM requests")
            monkeypatch.setattr(postgres, "_TAKE_S", 0)
            with pytest.raises(UserError, match="in use all the time") as refused:
                SqlStore(where)
            assert refused.value.code is Code.STORAGE_UNAVAILABLE
            monkeypatch.setattr(postgres, "_TAKE_S", 60)
            upgraded = threads.submit(SqlStore, where)
            for table in ("idempotency", "audit", "api_keys", "spent", "facts"):
                time.sleep(0.05)
                connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table)))
            assert not upgraded.done()
        upgraded.result(30).close()


def test_the_migrations_make_exactly_the_tables_of_this_version_and_can_be_taken_back(
    where: Postgres,
) -> None:
    engine = where.open_writer()
    config = Config()
    config.set_main_option("script_location", str(files("freehold.store") / "migrations"))
    for _ in range(2):
        with engine.begin() as connection:
            where.see(connection, EVERY_TENANT)
            opts = {"compare_type": True, "compare_server_default": True}
            context = MigrationContext.configure(connection, opts=opts)
            assert compare_metadata(context, metadata) == []
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
            left = inspect(connection).get_table_names()
        assert left == ["alembic_version"]
        migrate.upgrade(engine, where)
    engine.dispose()


def test_a_database_in_another_encoding_is_refused(postgres_server: Server) -> None:
    with postgres_server.admin() as connection:
        connection.execute(
            "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' OWNER freehold"
        )
    where = Postgres(postgres_server.url("latin"))
    with pytest.raises(UserError, match="ENCODING 'UTF8'"):
        SqlStore(where)
    postgres_server.drop(where)


def test_a_server_that_is_not_there_is_told_in_a_sentence_without_the_password(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    where = Postgres(f"postgresql://freehold@/freehold?host={tmp_path}", secret)
    with pytest.raises(UserError, match="start PostgreSQL") as refused:
        SqlStore(where)
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert "hunter2" not in repr([refused.value.message, where, where.shown])
    assert "\n" not in refused.value.message


def test_a_password_file_that_is_missing_is_told_by_its_name(
    where: Postgres, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="password cannot be read"):
        SqlStore(Postgres(where.url, tmp_path / "password"))


def test_a_login_without_the_database_is_told(where: Postgres) -> None:
    with pytest.raises(UserError, match="does not exist"):
        SqlStore(Postgres(where.url.replace("/test_", "/none_")))


def test_the_password_is_read_again_at_each_connection(
    postgres_server: Server, where: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_AWAY_S", 0)
    secret = tmp_path / "password"
    secret.write_text("one")
    store = SqlStore(Postgres(where.url, secret))
    store.add_key(a_key())
    store._reader.dispose()
    secret.unlink()
    with pytest.raises(UserError):
        store.keys("ten_a")
    secret.write_text("two")
    assert store.keys("ten_a") == [a_key()]
    store.close()


def test_a_table_that_is_held_for_long_is_told_within_its_time(
    where: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_LOCK_MS", 20)
    store = SqlStore(where)
    with connected(where) as connection:
        connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UserError, match="lock timeout") as refused:
            store.keys("ten_a")
        assert refused.value.retry_after_s
        connection.rollback()
    assert store.keys("ten_a") == []
    store.close()
