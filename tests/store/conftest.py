"""A database, a ledger on it, and the disk under its journal."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore
from tests.store.disk import Disk, put_under_journal


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return put_under_journal(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(tmp_path / "freehold.db")
    yield opened
    opened.close()


@pytest.fixture
async def book(tmp_path: Path, store: SqlStore) -> AsyncIterator[Ledger]:
    opened = Ledger(store, tmp_path / "journal")
    yield opened
    await opened.close()
