"""What was reserved and settled is neither lost nor counted twice, whatever ends first:
the process, the power, the disk's room or the database."""

import asyncio
import errno
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.core.errors import Code, UserError
from freehold.core.usage import Outcome
from freehold.store import journal, ledger, postgres, sqlite
from freehold.store.backend import EVERY_TENANT, Backend
from freehold.store.ledger import Ledger, recover
from freehold.store.sql import SqlStore
from tests.store.disk import Disk
from tests.store.making import (
    Row,
    locked,
    next_start,
    only_sqlite,
    place_of,
    reservation,
    rows,
    settlement,
    until,
)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_RETRY_S", 0.02)
    monkeypatch.setattr(ledger, "_APPLY_S", 0.01)
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr(postgres, "_LOCK_MS", 20)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SEGMENT_BYTES", 2048)
    monkeypatch.setattr(journal, "_ROOM_BYTES", 512)


async def _refused(book: Ledger, request_id: str) -> UserError:
    with pytest.raises(UserError) as refused:
        await book.reserve(reservation(request_id))
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert refused.value.retry_after_s
    return refused.value


# what is written


async def test_a_request_is_in_the_database_with_all_that_was_said_of_it(
    book: Ledger, store: SqlStore
) -> None:
    told = reservation(
        "req_1", base_digest="sha256:b", adapter_digest="sha256:a", conversation_id="c-1",
        priority="batch", stream=False, policies="freehold/a b/c",
        account="key_0", price="0:1/2/3",
    )  # fmt: skip
    await book.reserve(told)
    await book.settle(
        settlement("req_1", outcome=Outcome.ENGINE_FAILED, error_code="engine_failed", cost=17)
    )
    await asyncio.to_thread(book.flush)

    (row,) = store.records("ten_a", 10)
    assert row == {
        "id": "req_1", "tenant_id": "ten_a", "environment": "dev", "key_id": "key_1",
        "alias": "m", "endpoint": "chat/completions", "engine": "fake",
        "base_digest": "sha256:b", "adapter_digest": "sha256:a", "conversation_id": "c-1",
        "priority": "batch", "stream": False, "created_at_us": 1_000_000,
        "tokens_in": 3, "tokens_out": 7, "tokens_cached": 1, "estimated": False,
        "ttft_us": 10, "duration_us": 20, "settled_at_us": 2_000_000,
        "outcome": "engine_failed", "error_code": "engine_failed", "policies": "freehold/a b/c",
        "account": "key_0", "price": "0:1/2/3", "cost": 17,
        "gateway": store.gateway,
    }  # fmt: skip


async def test_the_first_settlement_of_a_request_counts(book: Ledger, store: SqlStore) -> None:
    await book.reserve(reservation("req_1"))
    await book.settle(settlement("req_1", 5))
    await book.settle(settlement("req_1", 6))
    await asyncio.to_thread(book.flush)
    await book.settle(settlement("req_1", 7))
    book.mark("req_1", 8, 8)
    await asyncio.to_thread(book.flush)
    assert rows(store) == [("req_1", "ok", 3, 5)]


async def test_one_sync_serves_all_who_came_in_during_the_one_before(
    disk: Disk, store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_APPLY_S", 30)  # which asks for a sync of its own
    book = Ledger(store, tmp_path / "journal")
    for number in range(200):
        await book.reserve(reservation(f"req_{number}"))
    disk.may_sync.clear()
    first = book.settle(settlement("req_0"))
    await until(lambda: disk.syncs == 1)
    others = [book.settle(settlement(f"req_{number}")) for number in range(1, 200)]
    await asyncio.sleep(0)
    assert not any(future.done() for future in [first, *others]), "nobody is told too early"
    disk.may_sync.set()
    await asyncio.gather(first, *others)
    assert disk.syncs == 2
    await book.close()


async def test_a_caller_that_is_cancelled_while_it_waits_loses_nothing(
    book: Ledger, store: SqlStore
) -> None:
    await book.reserve(reservation("req_1"))

    async def settle() -> None:
        await book.settle(settlement("req_1"))

    task = asyncio.create_task(settle())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(book.flush)
    assert rows(store) == [("req_1", "ok", 3, 7)]


# the process dies

_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore
from tests.store.making import at, reservation, settlement

async def main(folder):
    book = Ledger(SqlStore(at(sys.argv[2])), folder / "journal")
    for number in range(300):
        await book.reserve(reservation(f"req_{number:03d}"))
    for number in range(100):
        book.settle(settlement(f"req_{number:03d}", number))
    for number in range(100, 200):
        book.mark(f"req_{number:03d}", 1, 1)
        book.mark(f"req_{number:03d}", 4, number)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_reservations_marks_and_settlements_outlive_a_killed_process(
    tmp_path: Path, where: Backend
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _DIE, str(tmp_path), place_of(where)],
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert ended.returncode == -9

    found = next_start(where, tmp_path / "journal")

    assert found == [
        (f"req_{number:03d}", "ok", 3, number)
        if number < 100
        else (f"req_{number:03d}", "orphaned", *((4, number) if number < 200 else (0, 0)))
        for number in range(300)
    ]
    assert next_start(where, tmp_path / "journal") == found


# the power goes


async def test_a_settlement_that_was_told_outlives_the_power_with_all_reservations_before_it(
    disk: Disk, store: SqlStore, tmp_path: Path, where: Backend, another: Callable[[], Backend]
) -> None:
    book = Ledger(store, tmp_path / "journal")
    with locked(where):  # so that only the journal can know
        for number in range(8):
            await book.reserve(reservation(f"req_{number}"))
            await book.reserve(reservation(f"open_{number}"))
            await book.settle(settlement(f"req_{number}", number))
            left = disk.lose_power(tmp_path / f"left{number}")
            found = next_start(another(), left)
            assert found == sorted(
                [(f"req_{earlier}", "ok", 3, earlier) for earlier in range(number + 1)]
                + [(f"open_{earlier}", "orphaned", 0, 0) for earlier in range(number + 1)]
            )
    await book.close()


async def test_nobody_is_told_before_the_disk_has_it(
    disk: Disk, store: SqlStore, tmp_path: Path, another: Callable[[], Backend]
) -> None:
    book = Ledger(store, tmp_path / "journal")
    await book.reserve(reservation("req_1"))
    disk.break_calls(["fdatasync"], errno.EIO)
    with pytest.raises(UserError) as refused:
        await book.settle(settlement("req_1"))
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    disk.mend()
    await until(lambda: book.is_writable)
    new = another()
    found = next_start(new, disk.lose_power(tmp_path / "left"))
    assert found == [("req_1", "ok", 3, 7)], "it went on trying"
    await book.close()


# applied again, damaged, foreign


async def _left_behind(folder: Path, store: SqlStore, where: Backend, count: int = 40) -> Path:
    """A journal as a killed process leaves it, half of its requests settled."""
    book = Ledger(store, folder / "journal")
    with locked(where):
        for number in range(count):
            await book.reserve(reservation(f"req_{number:02d}"))
            book.mark(f"req_{number:02d}", 2, 1)
            if number % 2:
                await book.settle(settlement(f"req_{number:02d}"))
        kept = Path(shutil.copytree(folder / "journal", folder / "kept"))
    await book.close()
    return kept


def _expected(count: int = 40) -> list[Row]:
    return [
        (f"req_{number:02d}", *(("ok", 3, 7) if number % 2 else ("orphaned", 2, 1)))
        for number in range(count)
    ]


async def test_a_journal_that_is_applied_twice_counts_once(
    store: SqlStore, tmp_path: Path, small: None, where: Backend, another: Callable[[], Backend]
) -> None:
    kept = await _left_behind(tmp_path, store, where)
    assert len(journal.segments(kept)) > 3
    new = another()
    for again in range(3):
        copy = Path(shutil.copytree(kept, tmp_path / f"copy{again}"))
        assert next_start(new, copy) == _expected()
        assert journal.segments(copy) == []
    fresh = SqlStore(new)
    (row,) = fresh.usage("ten_a", 0, 10_000_000)
    fresh.close()
    assert (row.requests, row.failed, row.tokens_in, row.tokens_out) == (
        40, 20, 20 * 3 + 20 * 2, 20 * 7 + 20,
    )  # fmt: skip


async def test_segments_that_came_back_from_the_dead_change_nothing_whatever_their_order(
    store: SqlStore, tmp_path: Path, small: None, where: Backend, another: Callable[[], Backend]
) -> None:
    """A removed file can be there again after the power went."""
    kept = await _left_behind(tmp_path, store, where)
    new = another()
    assert next_start(new, Path(shutil.copytree(kept, tmp_path / "copy"))) == _expected()
    for path in reversed(journal.segments(kept)):
        one = tmp_path / f"only-{path.stem}"
        one.mkdir()
        shutil.copy(path, one)
        assert next_start(new, one) == _expected()


async def test_a_bad_line_costs_itself_only_and_is_kept_aside(
    store: SqlStore, tmp_path: Path, where: Backend, another: Callable[[], Backend]
) -> None:
    kept = await _left_behind(tmp_path, store, where)
    (path,) = journal.segments(kept)
    content = path.read_bytes()
    victim = journal.line(ledger._settled(settlement("req_21")))
    assert victim in content
    path.write_bytes(content.replace(victim, b"X" + victim[1:]))
    new = another()

    found = next_start(new, kept)

    expected = _expected()
    expected[21] = ("req_21", "orphaned", 2, 1)
    assert found == expected
    assert [left.name for left in kept.iterdir()] == [path.with_suffix(".damaged").name]


async def test_a_damaged_segment_that_cannot_be_kept_aside_stops_the_start_and_stays(
    store: SqlStore, tmp_path: Path, where: Backend
) -> None:
    kept = await _left_behind(tmp_path, store, where)
    (path,) = journal.segments(kept)
    victim = journal.line(ledger._settled(settlement("req_21")))
    path.write_bytes(path.read_bytes().replace(victim, b"X" + victim[1:]))
    path.with_suffix(".damaged").mkdir()

    with pytest.raises(UserError, match="free some space") as refused:
        recover(store, kept)

    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert journal.segments(kept) == [path]


async def test_entries_of_a_newer_version_stop_the_start_and_stay(
    store: SqlStore, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    written = journal.Journal(folder)
    written.append(journal.line(ledger._reserved(reservation("req_1"))))
    written.append(journal.line(["z", "of tomorrow"]))
    written.close()
    (path,) = journal.segments(folder)
    before = path.read_bytes()

    with pytest.raises(UserError, match="newer Freehold"):
        recover(store, folder)

    assert path.read_bytes() == before
    assert rows(store) == []


async def test_a_database_that_takes_nothing_leaves_the_journal_as_it_was(
    store: SqlStore, tmp_path: Path, where: Backend
) -> None:
    kept = await _left_behind(tmp_path, store, where)
    before = {path: path.read_bytes() for path in kept.iterdir()}
    with locked(where), pytest.raises(UserError) as refused:
        recover(store, kept)
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert {path: path.read_bytes() for path in kept.iterdir()} == before


# the disk is full or fails


@only_sqlite  # which can be copied while it is open
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("broken", [["pwrite", "open"], ["fdatasync"], ["fdatasync", "open"],
                                    ["pwrite", "open", "fsync", "fdatasync"]])  # fmt: skip
async def test_while_the_disk_refuses_no_new_request_is_admitted_and_it_recovers_by_itself(
    disk: Disk, store: SqlStore, tmp_path: Path, broken: list[str], error: int
) -> None:
    book = Ledger(store, tmp_path / "journal")
    for number in range(10):
        await book.reserve(reservation(f"req_{number}"))
    disk.break_calls(broken, error)
    futures = [book.settle(settlement(f"req_{number}", number)) for number in range(10)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {UserError}
    assert not book.is_writable
    await _refused(book, "req_late")
    book.mark("req_0", 99, 99)

    disk.mend()
    await until(lambda: book.is_writable)
    await book.reserve(reservation("req_new"))
    await book.settle(settlement("req_new"))

    expected = [(f"req_{number}", "ok", 3, number) for number in range(10)]
    expected.append(("req_new", "ok", 3, 7))
    (tmp_path / "new").mkdir()
    for name in ("freehold.db", "freehold.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "new")
    left = disk.lose_power(tmp_path / "left")
    await book.close()
    assert rows(store) == expected
    assert next_start(tmp_path / "new" / "freehold.db", left) == expected, (
        "also when the power went then"
    )


async def test_a_full_disk_still_takes_settlements_for_a_while(
    disk: Disk, store: SqlStore, tmp_path: Path
) -> None:
    book = Ledger(store, tmp_path / "journal")
    disk.room = 0
    for number in range(50):
        await book.reserve(reservation(f"req_{number}"))
        await book.settle(settlement(f"req_{number}"))
    assert book.is_writable
    disk.mend()
    await book.close()


async def test_with_the_disk_full_from_the_first_byte_the_start_says_so(
    disk: Disk, store: SqlStore, tmp_path: Path
) -> None:
    disk.room = 1000
    with pytest.raises(UserError, match="No space left") as refused:
        Ledger(store, tmp_path / "journal")
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    assert journal.segments(tmp_path / "journal") == []


async def test_a_refused_reservation_is_nowhere(
    disk: Disk, store: SqlStore, tmp_path: Path, another: Callable[[], Backend]
) -> None:
    book = Ledger(store, tmp_path / "journal")
    disk.break_calls(["pwrite"], errno.ENOSPC)
    await _refused(book, "req_1")
    assert book.is_writable, "one refusal of a reservation is no failure to record"
    disk.mend()
    await book.reserve(reservation("req_2"))
    new = another()
    kept = Path(shutil.copytree(tmp_path / "journal", tmp_path / "kept"))
    assert next_start(new, kept) == [("req_2", "orphaned", 0, 0)]
    await book.close()
    assert rows(store) == [("req_2", None, 0, 0)]


# the database is away


async def test_a_database_that_is_locked_for_long_delays_nobody_and_loses_nothing(
    book: Ledger, store: SqlStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: Backend
) -> None:
    with locked(where):
        for number in range(100):
            await book.reserve(reservation(f"req_{number:02d}"))
            await book.settle(settlement(f"req_{number:02d}", number))
        await asyncio.to_thread(book.flush)  # returns though it could not
        await until(lambda: caplog.text.count("ledger_apply_failed") >= 3)
        assert rows(store) == []
        assert book.is_writable
    await until(lambda: len(rows(store)) == 100)
    assert rows(store) == [(f"req_{number:02d}", "ok", 3, number) for number in range(100)]


async def test_a_database_that_is_away_for_too_long_stops_new_requests_only(
    book: Ledger, store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Backend
) -> None:
    monkeypatch.setattr(ledger, "_MAX_BEHIND", 10)
    with locked(where):
        for number in range(10):
            await book.reserve(reservation(f"req_{number}"))
        assert not book.is_writable
        await _refused(book, "req_late")
        for number in range(10):
            await book.settle(settlement(f"req_{number}"))
    await until(lambda: book.is_writable)
    await asyncio.to_thread(book.flush)
    assert [row[1] for row in rows(store)] == ["ok"] * 10


async def test_a_database_that_errs_is_tried_again_and_not_given_up(
    book: Ledger, store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    with store._writing(EVERY_TENANT) as connection:
        connection.exec_driver_sql("ALTER TABLE requests RENAME TO gone")
    await book.reserve(reservation("req_1"))
    await book.settle(settlement("req_1"))
    await until(lambda: caplog.text.count("ledger_apply_failed") >= 3)
    with store._writing(EVERY_TENANT) as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO requests")
    await until(lambda: rows(store) == [("req_1", "ok", 3, 7)])


async def test_first_and_last_stay_so_though_the_database_was_away_in_between(
    book: Ledger, store: SqlStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: Backend
) -> None:
    await book.reserve(reservation("req_1"))
    await book.reserve(reservation("req_2"))
    with locked(where):
        await book.settle(settlement("req_1", 5))
        book.mark("req_2", 1, 1)
        await until(lambda: caplog.text.count("ledger_apply_failed") >= 2)
        await book.settle(settlement("req_1", 6))
        book.mark("req_2", 2, 2)
    await until(lambda: rows(store) == [("req_1", "ok", 3, 5), ("req_2", None, 2, 2)])


async def test_segments_are_removed_when_the_database_has_them_and_not_before(
    book: Ledger, store: SqlStore, tmp_path: Path, small: None, where: Backend
) -> None:
    folder = tmp_path / "journal"
    with locked(where):
        for number in range(60):
            await book.reserve(reservation(f"req_{number:02d}"))
            await book.settle(settlement(f"req_{number:02d}"))
        assert len(journal.segments(folder)) > 3
        found = {entry[1] for path in journal.segments(folder) for entry in journal.read(path)}
        assert found == {f"req_{number:02d}" for number in range(60)}
    await until(lambda: len(rows(store)) == 60)
    await until(lambda: len(journal.segments(folder)) <= 2)
    assert [row[1] for row in rows(store)] == ["ok"] * 60


# the end


async def test_closing_leaves_everything_in_the_database_and_nothing_in_the_journal(
    store: SqlStore, tmp_path: Path, small: None
) -> None:
    book = Ledger(store, tmp_path / "journal")
    futures = []
    for number in range(25):
        await book.reserve(reservation(f"req_{number:02d}"))
        futures.append(book.settle(settlement(f"req_{number:02d}")))
    await book.close()
    assert all(future.done() for future in futures)
    assert [row[1] for row in rows(store)] == ["ok"] * 25
    assert list((tmp_path / "journal").iterdir()) == []
    await _refused(book, "req_late")


async def test_what_the_database_refused_until_the_end_waits_for_the_next_start(
    store: SqlStore, tmp_path: Path, where: Backend
) -> None:
    book = Ledger(store, tmp_path / "journal")
    with locked(where):
        await book.reserve(reservation("req_1"))
        await book.settle(settlement("req_1"))
        await book.close()
        assert rows(store) == []
    store.close()
    assert next_start(where, tmp_path / "journal") == [("req_1", "ok", 3, 7)]
