"""A database of each kind, a ledger on it, and the disk under its journal.

What a test asks of `store`, `book` or `where` it asks of both databases; `only_sqlite` above
a test says that it is about files.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from freehold.store.backend import Backend
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore
from freehold.store.sqlite import Sqlite
from tests import databases
from tests.store.disk import Disk, put_under_journal


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return put_under_journal(monkeypatch)


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def another(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Backend]:
    """Makes databases that nothing was written to."""
    if kind == "postgres":
        made: Callable[[], Backend] = request.getfixturevalue("postgres_database")
        return made
    numbers = iter(range(1000))

    def file() -> Sqlite:
        return Sqlite(databases.stock(tmp_path / f"freehold{next(numbers) or ''}.db"))

    return file


@pytest.fixture
def where(another: Callable[[], Backend]) -> Backend:
    return another()


@pytest.fixture
def store(where: Backend) -> Iterator[SqlStore]:
    opened = SqlStore(where)
    yield opened
    opened.close()


@pytest.fixture
async def book(tmp_path: Path, store: SqlStore) -> AsyncIterator[Ledger]:
    opened = Ledger(store, tmp_path / "journal")
    yield opened
    await opened.close()
