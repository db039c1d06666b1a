"""The ledger's write-ahead log: what was appended outlives the process, what was synced
outlives the power, and damage costs no more than the lines it hit."""

import contextlib
import errno
import itertools
import os
import random
import resource
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.store import journal
from freehold.store.journal import Journal, line
from tests.store.disk import Disk, put_under_journal


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that are full after a dozen lines."""
    monkeypatch.setattr(journal, "_SEGMENT_BYTES", 512)
    monkeypatch.setattr(journal, "_ROOM_BYTES", 128)


def _entry(number: int) -> list[Any]:
    return ["m", f"req_{number:06d}", number, 0]


def _read(folder: Path) -> list[list[Any]]:
    return [entry for path in journal.segments(folder) for entry in journal.read(path)]


def _numbers(folder: Path) -> set[int]:
    return {entry[2] for entry in _read(folder)}


def _open_files(folder: Path) -> int:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(link).startswith(str(folder)) for link in links)


_DIE = """
import os, signal, sys
from pathlib import Path
from freehold.store.journal import Journal, line
journal = Journal(Path(sys.argv[1]))
for number in range(100):
    journal.append(line(["m", f"req_{number:06d}", number, 0]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _DIE, str(tmp_path / "j")], check=False)
    assert ended.returncode == -9
    assert _read(tmp_path / "j") == [_entry(number) for number in range(100)]


def test_what_was_synced_outlives_the_loss_of_power(tmp_path: Path, disk: Disk) -> None:
    written = Journal(tmp_path / "j")
    written.append(line(_entry(1)))
    written.append(line(_entry(2)))
    written.sync()
    written.append(line(_entry(3)))

    assert _read(disk.lose_power(tmp_path / "left")) == [_entry(1), _entry(2)]
    assert _read(tmp_path / "j") == [_entry(1), _entry(2), _entry(3)]


def test_files_are_for_their_owner_and_have_their_room_ahead(tmp_path: Path) -> None:
    Journal(tmp_path / "j").append(line(_entry(1)))
    (path,) = journal.segments(tmp_path / "j")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.stat().st_size == journal._SEGMENT_BYTES
    assert path.stat().st_blocks * 512 >= journal._SEGMENT_BYTES, "zeros, not a hole"


def test_a_failed_sync_is_made_good_in_another_file(tmp_path: Path, disk: Disk) -> None:
    written = Journal(tmp_path / "j")
    written.append(line(_entry(1)))
    disk.fail_call(disk.calls + 1)
    with pytest.raises(OSError, match="Input/output"):
        written.sync()
    written.append(line(_entry(2)))
    written.sync()

    assert _numbers(disk.lose_power(tmp_path / "left")) == {1, 2}


@pytest.mark.parametrize("broken", [["open"], ["pwrite"], ["fsync"], ["open", "fdatasync"]])
def test_a_file_whose_sync_failed_is_never_trusted_again(
    tmp_path: Path, disk: Disk, broken: list[str]
) -> None:
    written = Journal(tmp_path / "j")
    written.append(line(_entry(1)))
    disk.fail_call(disk.calls + 1)
    with pytest.raises(OSError, match="Input/output"):
        written.sync()
    disk.break_calls(broken, errno.ENOSPC)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            written.sync()
    disk.mend()
    written.sync()

    assert _numbers(disk.lose_power(tmp_path / "left")) == {1}


def _use(written: Journal, disk: Disk, chance: random.Random) -> tuple[set[int], set[int]]:
    """Appends and syncs as the ledger does, also during a sync; returns what a sync
    covered and what the journal refused."""
    appended: set[int] = set()
    synced: set[int] = set()
    refused: set[int] = set()

    def append(*numbers: int) -> None:
        try:
            written.append(b"".join(line(_entry(number)) for number in numbers))
            appended.update(numbers)
        except OSError:
            refused.update(numbers)

    for number in range(60):
        append(number, 1000 + number)
        disk.meanwhile["fdatasync"] = partial(append, 2000 + number)
        if chance.random() < 0.5:
            before = set(appended)
            with contextlib.suppress(OSError):
                written.sync()
                synced |= before
        if chance.random() < 0.3:
            with contextlib.suppress(OSError):
                written.prepare()
    disk.meanwhile.clear()
    return synced, refused


def test_whichever_call_fails_nothing_synced_is_lost_and_nothing_refused_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    calls, tried = 500, 0
    while tried < calls:
        tried += 1
        disk = put_under_journal(monkeypatch)
        written = Journal(tmp_path / f"j{tried}")
        disk.fail_call(disk.calls + tried, random.Random(tried).choice([errno.EIO, errno.ENOSPC]))
        before = disk.calls
        synced, refused = _use(written, disk, random.Random(5))
        calls = disk.calls - before
        left = _numbers(disk.lose_power(tmp_path / f"left{tried}"))
        held = _numbers(tmp_path / f"j{tried}")
        assert synced <= left <= held
        assert not refused & held
        written.close()
        assert not list(tmp_path.rglob("*.damaged"))
    assert 100 < calls < 500
    assert _open_files(tmp_path) == 0


def test_on_a_full_disk_the_room_made_ahead_is_used_up_and_then_lines_are_refused_whole(
    tmp_path: Path, disk: Disk, small: None
) -> None:
    written = Journal(tmp_path / "j")
    disk.room = 70
    taken: set[int] = set()
    for number in range(40):
        try:
            written.append(line(_entry(number)) + line(_entry(1000 + number)))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
            continue
        taken.update((number, 1000 + number))
    assert 2 * 512 // (2 * len(line(_entry(0)))) // 2 <= len(taken) < 40
    written.sync()
    assert _numbers(tmp_path / "j") == taken
    assert _numbers(disk.lose_power(tmp_path / "left")) == taken

    disk.mend()
    written.append(line(_entry(77)))
    written.sync()
    assert _numbers(tmp_path / "j") == taken | {77}
    assert not list((tmp_path / "j").glob("*.damaged"))


def test_the_systems_own_limit_of_a_file_is_met_without_half_a_line(
    tmp_path: Path, small: None
) -> None:
    written = Journal(tmp_path / "j")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    taken: set[int] = set()
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        for number in range(40):
            try:
                written.append(line(_entry(number)) + line(_entry(1000 + number)))
                taken.update((number, 1000 + number))
            except OSError:
                continue
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 5 < len(taken) < 40
    assert _numbers(tmp_path / "j") == taken
    written.append(line(_entry(99)))
    assert _numbers(tmp_path / "j") == taken | {99}


def test_a_full_segment_is_closed_and_the_next_one_has_a_later_number(
    tmp_path: Path, small: None
) -> None:
    written = Journal(tmp_path / "j")
    closed: list[Path] = []
    for number in range(100):
        written.append(line(_entry(number)))
        written.sync()
        closed += written.take_closed()

    assert closed == journal.segments(tmp_path / "j")[:-1], "all but the one in use, in order"
    assert len(closed) >= 5
    assert _numbers(tmp_path / "j") == set(range(100))
    assert written.take_closed() == []
    written.give_back(closed)
    assert written.take_closed() == closed


def test_the_next_segment_is_made_ahead_of_its_use(tmp_path: Path, disk: Disk, small: None) -> None:
    written = Journal(tmp_path / "j")
    written.prepare()
    assert len(journal.segments(tmp_path / "j")) == 1, "the first is not half full"
    for number in range(8):
        written.append(line(_entry(number)))
    written.prepare()
    written.prepare()
    assert len(journal.segments(tmp_path / "j")) == 2
    disk.break_calls(["open"], errno.ENOSPC)
    for number in range(8, 14):
        written.append(line(_entry(number)))
        written.sync()
    assert len(written.take_closed()) == 1, "it moved on without making a file"


def test_making_segments_ahead_and_using_them_at_once_loses_nothing(
    tmp_path: Path, small: None
) -> None:
    written = Journal(tmp_path / "j")
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            written.prepare()

    maker = threading.Thread(target=make)
    maker.start()
    for number in range(1500):
        written.append(line(_entry(number)))
        if number % 3 == 0:
            written.sync()
    stop.set()
    maker.join()
    assert _numbers(tmp_path / "j") == set(range(1500))
    written.close()
    assert sorted(written.take_closed())[-1] == journal.segments(tmp_path / "j")[-1]
    assert _open_files(tmp_path) == 0


def test_a_segment_made_too_late_is_not_used_out_of_order(
    tmp_path: Path, disk: Disk, small: None
) -> None:
    written = Journal(tmp_path / "j")
    entries = iter(range(100))

    def overtake() -> None:
        disk.meanwhile.clear()
        for number in itertools.islice(entries, 30):
            written.append(line(_entry(number)))
            written.sync()

    for number in itertools.islice(entries, 8):
        written.append(line(_entry(number)))
    disk.meanwhile["fsync"] = overtake
    written.prepare()
    for number in entries:
        written.append(line(_entry(number)))
        written.sync()

    assert [entry[2] for entry in _read(tmp_path / "j")] == list(range(100))
    written.close()
    assert sorted(written.take_closed()) == journal.segments(tmp_path / "j")
    assert _open_files(tmp_path) == 0


def test_a_closed_journal_makes_no_more_files(tmp_path: Path, small: None) -> None:
    written = Journal(tmp_path / "j")
    for number in range(8):
        written.append(line(_entry(number)))
    written.close()
    written.prepare()
    assert written.take_closed() == journal.segments(tmp_path / "j")
    assert _open_files(tmp_path) == 0


def test_a_journal_begins_after_what_an_earlier_one_left(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.append(line(_entry(1)))
    first.close()
    (tmp_path / "j" / "notes.journal").write_text("of somebody else")
    (tmp_path / "j" / "000000000009.damaged").write_text("kept")
    second = Journal(tmp_path / "j")
    second.append(line(_entry(2)))
    assert _read(tmp_path / "j") == [_entry(1), _entry(2)]


# reading what is damaged


def _segment(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "000000000001.journal"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("zeros", [0, 1, 4096])
def test_a_last_line_that_is_cut_off_is_ignored(tmp_path: Path, zeros: int) -> None:
    whole, last = line(_entry(1)) + line(_entry(2)), line(_entry(3))
    for cut in range(len(last)):
        path = _segment(tmp_path / "j", whole + last[:cut] + bytes(zeros))
        assert list(journal.read(path)) == [_entry(1), _entry(2)]
    assert not list(tmp_path.rglob("*.damaged")), "that is what a loss of power leaves"


@pytest.mark.parametrize(
    "bad",
    [b"nonsense\n", b"\n", b"00000000 \n", b"00000000 []\n", line(_entry(9))[1:],
     line(_entry(9)).replace(b"9", b"8"), b"\xff" * 50 + b"\n", line(_entry(9)).upper(),
     b"x" * 100_000 + b"\n"],
)  # fmt: skip
def test_a_bad_line_in_the_middle_is_kept_aside_and_the_others_are_read(
    tmp_path: Path, bad: bytes
) -> None:
    content = line(_entry(1)) + bad + line(_entry(2))
    path = _segment(tmp_path / "j", content)

    assert list(journal.read(path)) == [_entry(1), _entry(2)]
    assert path.with_suffix(".damaged").read_bytes() == content
    assert journal.segments(tmp_path / "j") == [path], "what is kept aside is not read again"


def test_pages_that_never_reached_the_disk_cost_only_their_own_lines(tmp_path: Path) -> None:
    lines = [line(_entry(number)) for number in range(400)]
    content = bytearray(b"".join(lines))
    content[4096:8192] = bytes(4096)
    path = _segment(tmp_path / "j", bytes(content))

    begins = [sum(map(len, lines[:number])) for number in range(401)]
    expected = [
        _entry(number) for number in range(400)
        if begins[number + 1] <= 4096 or begins[number] >= 8192
    ]  # fmt: skip
    assert 100 < len(expected) < 300
    assert list(journal.read(path)) == expected


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
def test_whatever_bytes_change_only_true_lines_are_read_and_few_are_lost(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    entries = [_entry(number) for number in range(30)]
    content = bytearray(b"".join(map(line, entries)))
    for place, value in changes:
        content[place % len(content)] = value
    folder = tmp_path_factory.getbasetemp() / "changed"
    found = list(journal.read(_segment(folder, bytes(content))))

    assert found == [entry for entry in entries if entry in found]
    assert len(found) >= len(entries) - 2 * len(changes), "a line end that is lost costs two"
