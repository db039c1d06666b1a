"""What was signed and then not stored is put back by the next start, on whichever day that is;
what was stored once and removed is not."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from freehold.core.audit import Record
from freehold.core.errors import Code, UserError
from freehold.secure import audit, checkpoints
from freehold.secure.checkpoints import Checkpoints
from freehold.secure.forgotten import Forgotten
from freehold.secure.witness import Witness
from freehold.store import ledger
from freehold.store.sql import SqlStore
from tests.store.making import a_key, entries_of, failing, reservation, settlement

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DAY_US = 86_400_000_000


@dataclasses.dataclass
class _Wall:
    day: int = 0

    def wall_us(self) -> int:
        return self.day * DAY_US

    def monotonic_s(self) -> float:
        return 0.0


@dataclasses.dataclass
class _Home:
    """Starts and commands of an installation, by a clock that the test moves."""

    path: Path
    wall: _Wall = dataclasses.field(default_factory=_Wall)

    @property
    def database(self) -> Path:
        return self.path / "freehold.db"

    @property
    def folder(self) -> Path:
        return self.path / "checkpoints"

    @contextmanager
    def opened(self) -> Iterator[tuple[SqlStore, Witness]]:
        store = SqlStore(self.database)
        try:
            signing, forgotten = Checkpoints(self.folder, KEY), Forgotten(self.folder, KEY)
            witness = Witness(signing, self.wall, store.audit_heads(), forgotten)
            store.witness = witness
            try:
                yield store, witness
            finally:
                witness.close()
        finally:
            store.close()

    @contextmanager
    def started(self) -> Iterator[SqlStore]:
        with self.opened() as (store, witness):
            store.put_back(witness.owed(store.audit_heads()))
            witness.check(store.audit_heads())
            yield store

    def found(self, stream: str) -> list[Record]:
        """Which are all as they were signed."""
        with self.opened() as (store, _):
            trail = list(store.audit_trail(stream))
        hashes = checkpoints.signed(self.folder, KEY.public_key()).hashes[stream]
        assert audit.verify(stream, trail, hashes) == (len(trail), None)
        return trail


@pytest.fixture
def home(tmp_path: Path) -> _Home:
    return _Home(tmp_path)


def _change_fails(home: _Home) -> None:
    """As when the gateway dies between signing and storing it."""
    with home.started() as store, failing(store), pytest.raises(UserError):
        store.add_tenant("ten_a", "a", 1)


def _change_fails_and_others_are_made(home: _Home) -> None:
    """The day changes while the gateway that owes it runs."""
    with home.started() as store:
        with failing(store), pytest.raises(UserError):
            store.add_tenant("ten_a", "a", 1)
        home.wall.day += 1
        store.add_tenant("ten_b", "b", 1)


def _start_fails(home: _Home) -> None:
    """The database refuses what is put back, when what tells of that is signed already."""
    with home.opened() as (store, witness), failing(store), pytest.raises(UserError):
        store.put_back(witness.owed(store.audit_heads()))


@pytest.mark.parametrize(
    ("events", "restored"),
    [
        ([_change_fails], 1),
        ([_change_fails, _start_fails], 2),
        ([_change_fails, _start_fails, _start_fails], 3),
        ([_change_fails_and_others_are_made], 1),
        ([_change_fails_and_others_are_made, _start_fails], 2),
    ],
)
def test_a_start_goes_on_however_many_days_after_a_change_that_was_not_made(
    home: _Home, events: list[Callable[[_Home], None]], restored: int
) -> None:
    for event in events:
        event(home)
        home.wall.day += 1
    for name in ("ten_c", "ten_d"):
        with home.started() as store:
            assert store.tenant("ten_a") is None
            store.add_tenant(name, name, 1)
    bodies = [orjson.loads(each.body) for each in home.found("ten_a")]
    assert [each["kind"] for each in bodies] == ["act", *["restored"] * restored]
    assert bodies[-1]["records"] == list(range(1, restored + 1))


def test_a_request_that_was_signed_behind_an_undone_change_keeps_its_place(home: _Home) -> None:
    entries = entries_of(
        ledger._reserved(reservation("req_1")), ledger._settled(settlement("req_1"))
    )
    with home.started() as store, failing(store):
        with pytest.raises(UserError):
            store.add_key(a_key("key_1"))
        with pytest.raises(UserError):
            store.apply(entries)
    home.wall.day += 1
    with home.opened() as (store, witness):
        store.put_back(witness.owed(store.audit_heads()))
        store.apply(entries)
        witness.check(store.audit_heads())
    assert len(home.found("ten_a/dev")) == 3


def _refused(home: _Home) -> UserError:
    with pytest.raises(UserError) as caught, home.started():
        pass
    return caught.value


@pytest.mark.parametrize("days", [0, 1])
def test_an_older_database_is_found_though_all_that_it_lacks_are_changes(
    home: _Home, days: int
) -> None:
    with home.started() as store:
        store.add_tenant("ten_a", "a", 1)
    older = home.database.read_bytes()
    for number in range(2):
        home.wall.day += days
        with home.started() as store:
            store.add_key(a_key(f"key_{number}"))
    for each in home.path.glob("freehold.db*"):
        each.unlink()
    home.database.write_bytes(older)
    refused = _refused(home)
    assert refused.code is Code.AUDIT_BROKEN
    assert "freehold audit verify" in str(refused)


def _edit(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"tenant.create", b"tenant.remove"))


def _cut(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize("done", [_edit, _cut, Path.unlink])
def test_an_earlier_day_that_somebody_changed_puts_nothing_back(
    home: _Home, done: Callable[[Path], None]
) -> None:
    _change_fails(home)
    for _ in range(2):
        home.wall.day += 1
        _start_fails(home)
    first, *_ = checkpoints.days(home.folder)
    done(first)
    assert _refused(home).code is Code.AUDIT_BROKEN
    store = SqlStore(home.database)
    assert store.audit_heads() == {}
    store.close()
