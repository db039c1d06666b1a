"""Whole records in a second place: all of them, each once, and what its disk refuses is
refused to whoever asked."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from freehold.core.audit import Head, Record, chained
from freehold.core.clock import SystemClock
from freehold.secure import checkpoints
from freehold.secure.checkpoints import Checkpoints
from freehold.secure.copies import Copies
from freehold.secure.forgotten import Forgotten
from freehold.secure.witness import Witness

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RECORDS = chained("ten_a/dev", Head(), [b'{"is":%d}' % number for number in range(1, 10)])
DAY_US = 86_400_000_000


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def _copies(folder: Path, signed: int = 0, **options: bool) -> Copies:
    made = Copies(folder, **options)
    made.begin({"ten_a/dev": (signed, b"")})
    return made


def _numbers(folder: Path) -> list[int]:
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    return [json.loads(line)["number"] for line in lines]


def _full(folder: Path, day: str = "1970-01-01") -> Path:
    """The disk of that day's file has no room, as the kernel says it."""
    path = folder / f"{day}.jsonl"
    path.symlink_to("/dev/full")
    return path


def test_each_day_has_a_file_with_whole_records(folder: Path) -> None:
    made = _copies(folder)
    made.add(RECORDS[:2], 1)
    made.add(RECORDS[2:4], DAY_US)
    assert _numbers(folder) == [1, 2, 3, 4]
    assert [path.name for path in sorted(folder.iterdir())] == [
        "1970-01-01.jsonl", "1970-01-02.jsonl",
    ]  # fmt: skip
    first = json.loads((folder / "1970-01-01.jsonl").read_text().splitlines()[0])
    record = RECORDS[0]
    assert first == {
        "stream": "ten_a/dev", "number": 1, "body": record.body.decode(),
        "hash": record.hash.hex(),
    }  # fmt: skip
    assert (folder / "1970-01-01.jsonl").stat().st_mode & 0o077 == 0


def test_what_a_crash_left_beyond_the_signed_records_is_taken_back(folder: Path) -> None:
    _copies(folder).add(RECORDS[:5], 1)
    path = folder / "1970-01-01.jsonl"
    whole = path.read_bytes()
    for cut in (len(whole), len(whole) - 20):
        path.write_bytes(whole[:cut])
        _copies(folder, signed=3)
        assert _numbers(folder) == [1, 2, 3]
    path.write_bytes(whole[:-20])
    _copies(folder, signed=5).add(RECORDS[4:], 1)
    assert _numbers(folder) == list(range(1, 10))


def test_a_full_disk_is_told_and_heals_without_a_half_line(folder: Path) -> None:
    made = _copies(folder)
    path = _full(folder)
    with pytest.raises(OSError, match="No space"):
        made.add(RECORDS[:2], 1)
    path.unlink()
    made.add(RECORDS[:2], 1)
    assert _numbers(folder) == [1, 2]


def test_a_copy_that_may_fail_is_caught_up(folder: Path) -> None:
    made = _copies(folder, may_fail=True)
    path = _full(folder)
    made.add(RECORDS[:2], 1)
    made.add(RECORDS[2:4], 1)
    path.unlink()
    made.add(RECORDS[4:], 1)
    assert _numbers(folder) == list(range(1, 10))


class _Refusing(Checkpoints):
    is_full = False

    def add(self, records: Sequence[Record], at_us: int) -> None:  # type: ignore[override]
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().add(records, at_us)


@pytest.mark.parametrize("may_fail", [False, True])
def test_what_is_not_signed_is_in_no_copy(tmp_path: Path, folder: Path, may_fail: bool) -> None:
    signing = _Refusing(tmp_path / "checkpoints", KEY)
    other = Copies(tmp_path / "other")
    copies = [Copies(folder, may_fail=may_fail), other]
    forgotten = Forgotten(tmp_path / "checkpoints", KEY)
    witness = Witness(signing, SystemClock(), {}, forgotten, copies)
    witness(RECORDS[:2])
    for full in ("checkpoints", "other"):
        signing.is_full = full == "checkpoints"
        moved = tmp_path / "moved"
        if full == "other":
            (tmp_path / "other").rename(moved)
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
            witness(RECORDS[2:])
        assert _numbers(folder) == [1, 2]
        if full == "other":
            moved.rename(tmp_path / "other")
    signing.is_full = False
    witness(RECORDS[2:])
    assert _numbers(folder) == _numbers(tmp_path / "other") == list(range(1, 10))
    assert (
        len(checkpoints.signed(tmp_path / "checkpoints", KEY.public_key()).hashes["ten_a/dev"]) == 9
    )
