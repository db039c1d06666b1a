"""A SQLite file that cannot be used is told in a sentence and left as it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.core.errors import Code, UserError
from freehold.store import ledger, sqlite
from freehold.store.sql import SqlStore
from tests.store.making import (
    a_key,
    entries_of,
    locked,
    reservation,
)


def _unusable(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as refused:
        call()
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert "\n" not in refused.value.message
    return refused.value


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_told_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "freehold.db"
    path.write_bytes(content)
    assert str(path) in _unusable(lambda: SqlStore(path)).message
    assert path.read_bytes() == content


def test_a_path_that_cannot_be_a_file_is_told(tmp_path: Path) -> None:
    _unusable(lambda: SqlStore(tmp_path))
    _unusable(lambda: SqlStore(tmp_path / "none" / "freehold.db"))


def test_a_locked_database_refuses_writes_with_a_hint_and_goes_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 10)
    store = SqlStore(tmp_path / "freehold.db")
    store.add_key(a_key())
    with locked(tmp_path / "freehold.db"):
        assert _unusable(lambda: store.add_key(a_key("key_2"))).retry_after_s
        _unusable(lambda: store.apply(entries_of(ledger._reserved(reservation("req_1")))))
        _unusable(lambda: store.settle_orphans(1))
        assert store.keys("ten_a") == [a_key()]
        assert store.key_by_hash(a_key().hash) == a_key()
        _unusable(lambda: SqlStore(tmp_path / "freehold.db"))
    store.add_key(a_key("key_2"))
    store.close()


def _damage(path: Path) -> None:
    """All pages but the first, where the tables are listed."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def test_a_damaged_database_is_told_at_the_start(tmp_path: Path) -> None:
    SqlStore(tmp_path / "freehold.db").close()
    _damage(tmp_path / "freehold.db")
    _unusable(lambda: SqlStore(tmp_path / "freehold.db"))


def test_a_database_that_breaks_while_it_is_open_is_told(tmp_path: Path) -> None:
    SqlStore(tmp_path / "freehold.db").close()
    store = SqlStore(tmp_path / "freehold.db")
    _damage(tmp_path / "freehold.db")
    _unusable(lambda: store.apply(entries_of(ledger._reserved(reservation("req_1")))))
    _unusable(lambda: store.add_key(a_key()))
    _unusable(lambda: store.keys("ten_a"))
    _unusable(lambda: store.records("ten_a", 10))
    store.close()
