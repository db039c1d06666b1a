"""Whatever is done to the records behind Freehold's back, the first wrong one is named."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.audit import Head, Record, chained
from freehold.core.errors import Code, UserError
from freehold.secure import checkpoints
from freehold.secure.audit import Finding, verify
from freehold.secure.checkpoints import Checkpoints

STREAM, OTHER = "ten_a/dev", "ten_b/prod"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
COUNT = 20


def _head(records: list[Record]) -> Head:
    return Head(records[-1].number, records[-1].hash) if records else Head()


def _bodies(first: int, last: int, text: str = "record") -> list[bytes]:
    return [b'{"is":"%b %d"}' % (text.encode(), number) for number in range(first, last + 1)]


@pytest.fixture(name="records")
def _records() -> list[Record]:
    return chained(STREAM, Head(), _bodies(1, COUNT))


@pytest.fixture(name="signed")
def _signed(records: list[Record]) -> list[bytes]:
    return [record.hash[: checkpoints.SHOWN_BYTES] for record in records]


def _edited(records: list[Record]) -> list[Record]:
    return [*records[:6], dataclasses.replace(records[6], body=b"{}"), *records[7:]]


def _edited_with_its_hash(records: list[Record]) -> list[Record]:
    [mine] = chained(STREAM, _head(records[:6]), [b"{}"])
    return [*records[:6], mine, *records[7:]]


def _rewritten(records: list[Record]) -> list[Record]:
    return [*records[:6], *chained(STREAM, _head(records[:6]), [b"{}", *_bodies(8, COUNT)])]


def _deleted(records: list[Record]) -> list[Record]:
    return [*records[:6], *records[7:]]


def _deleted_and_renumbered(records: list[Record]) -> list[Record]:
    return [*records[:6], *chained(STREAM, _head(records[:6]), _bodies(8, COUNT))]


def _swapped(records: list[Record]) -> list[Record]:
    return [*records[:6], records[7], records[6], *records[8:]]


def _swapped_and_renumbered(records: list[Record]) -> list[Record]:
    swapped = [
        dataclasses.replace(records[7], number=7),
        dataclasses.replace(records[6], number=8),
    ]
    return [*records[:6], *swapped, *records[8:]]


def _cut_off(records: list[Record]) -> list[Record]:
    return records[:6]


def _cut_off_and_gone_on(records: list[Record]) -> list[Record]:
    return [*records[:6], *chained(STREAM, _head(records[:6]), _bodies(7, 30, "other"))]


def _from_another_stream(records: list[Record]) -> list[Record]:
    other = chained(OTHER, Head(), _bodies(1, COUNT))
    return [*records[:6], dataclasses.replace(other[6], stream=STREAM), *records[7:]]


ATTACKS: list[Callable[[list[Record]], list[Record]]] = [
    _edited, _edited_with_its_hash, _rewritten, _deleted, _deleted_and_renumbered, _swapped,
    _swapped_and_renumbered, _cut_off, _cut_off_and_gone_on, _from_another_stream,
]  # fmt: skip


def test_what_nobody_touched_is_sound(records: list[Record], signed: list[bytes]) -> None:
    assert verify(STREAM, records, signed) == (COUNT, None)
    assert verify(STREAM, [], []) == (0, None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_found_at_its_first_record(
    attack: Callable[[list[Record]], list[Record]], records: list[Record], signed: list[bytes]
) -> None:
    count, found = verify(STREAM, attack(records), signed)
    assert found is not None
    assert (found.stream, found.number, count) == (STREAM, 7, 6)


def test_an_added_record_is_found(records: list[Record], signed: list[bytes]) -> None:
    added = [*records, *chained(STREAM, _head(records), [b"{}"])]
    expected = Finding(STREAM, 21, "was never signed: it was added behind Freehold's back")
    assert verify(STREAM, added, signed) == (COUNT, expected)


def test_a_backup_that_is_too_old_is_found(records: list[Record], signed: list[bytes]) -> None:
    expected = Finding(STREAM, 11, "is missing, and so are all up to record 20")
    assert verify(STREAM, records[:10], signed) == (10, expected)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_other_list_of_records_is_taken_for_the_right_one(data: st.DataObject) -> None:
    right = chained(STREAM, Head(), _bodies(1, 6))
    shown = [record.hash[: checkpoints.SHOWN_BYTES] for record in right]
    foreign = chained(STREAM, Head(), _bodies(1, 8, "other"))
    chosen = data.draw(st.lists(st.sampled_from([*right, *foreign]), max_size=9))
    count, found = verify(STREAM, chosen, shown)
    assert (found is None) == (chosen == right)
    assert chosen[:count] == right[:count]
    if found is not None:
        assert found.number == count + 1


# checkpoints


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "checkpoints"


DAY_US = 86_400_000_000


def _file(path: Path, day: str = "1970-01-01") -> Path:
    return path / f"{day}.jsonl"


def _write(path: Path, *batches: list[Record], key: Ed25519PrivateKey = KEY, day: int = 0) -> None:
    made = Checkpoints(path, key)
    for batch in batches:
        made.add(batch, at_us=day * DAY_US + 1)
    made.close()


def _split(records: list[Record], *at: int) -> Iterator[list[Record]]:
    for first, last in zip((0, *at), (*at, len(records)), strict=True):
        yield records[first:last]


def test_checkpoints_know_every_record_of_every_stream(path: Path, records: list[Record]) -> None:
    other = chained(OTHER, Head(), _bodies(1, 3))
    _write(path, records[:5], [*other, *records[5:12]])
    _write(path, records[12:])  # another process, later
    found = checkpoints.signed(path, KEY.public_key())
    assert verify(STREAM, records, found.hashes[STREAM]) == (COUNT, None)
    assert verify(OTHER, other, found.hashes[OTHER]) == (3, None)
    assert path.stat().st_mode & 0o077 == _file(path).stat().st_mode & 0o077 == 0


def test_records_that_come_again_after_a_crash_are_signed_once(
    path: Path, records: list[Record]
) -> None:
    """Signed, and then the process died before the database had them."""
    _write(path, records[:5])
    size = _file(path).stat().st_size
    _write(path, records[:5])
    assert _file(path).stat().st_size == size
    _write(path, records[3:8])
    found = checkpoints.signed(path, KEY.public_key())
    assert len(found.hashes[STREAM]) == 8


def test_a_line_that_a_crash_cut_off_is_written_again(path: Path, records: list[Record]) -> None:
    _write(path, *_split(records, 5, 9))
    whole = _file(path).read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, 50, len(lines[3]) - 1):
        _file(path).write_bytes(b"".join(lines[:3]) + lines[3][:cut])
        assert len(checkpoints.signed(path, KEY.public_key()).hashes[STREAM]) == 9
        _write(path, records[9:])
        assert _file(path).read_bytes() == whole


def _lines_changed(lines: list[bytes]) -> dict[str, tuple[int, list[bytes]]]:
    """By what was done: the line that is named, and the file."""
    return {
        "a byte": (3, [*lines[:2], lines[2].replace(b'"first":6', b'"first":7'), *lines[3:]]),
        "dropped": (2, [lines[0], *lines[2:]]),
        "swapped": (2, [lines[0], lines[2], lines[1], *lines[3:]]),
        "twice": (3, [*lines[:2], lines[1], *lines[2:]]),
        "the first is gone": (1, lines[1:]),
        "no base64": (4, [*lines[:3], b"?" + lines[3]]),
        "the last signature": (
            4,
            [*lines[:3], lines[2].split(b" ")[0] + b" " + lines[3].split(b" ")[1]],
        ),
        "empty": (2, [lines[0], b"\n", *lines[2:]]),
    }


@pytest.mark.parametrize("what", list(_lines_changed([b"a b"] * 4)))
def test_a_changed_line_is_named(path: Path, records: list[Record], what: str) -> None:
    _write(path, *_split(records, 5, 9, 12))
    number, lines = _lines_changed(_file(path).read_bytes().splitlines(keepends=True))[what]
    _file(path).write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=f"Line {number} ") as caught:
        checkpoints.signed(path, KEY.public_key())
    assert caught.value.code is Code.AUDIT_BROKEN
    with pytest.raises(UserError, match=f"Line {number} "):
        Checkpoints(path, KEY)  # nothing is added to a file that is not ours


def test_another_key_signs_nothing_that_counts(path: Path, records: list[Record]) -> None:
    _write(path, records[:5], key=Ed25519PrivateKey.generate())
    with pytest.raises(UserError, match=r"Line 1 .* signed by another key"):
        checkpoints.signed(path, KEY.public_key())


def test_a_full_disk_leaves_no_half_line_and_the_next_attempt_writes_it(
    path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Checkpoints(path, KEY)
    made.add(records[:5], at_us=1)
    before = _file(path).read_bytes()
    given = checkpoints.os.pwrite

    def little(file: int, content: bytes, at: int) -> int:
        if at > len(before) + 40:
            raise OSError(28, "No space left on device")
        return given(file, content[:41], at)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, "pwrite", little)
        with pytest.raises(OSError, match="No space"):
            made.add(records[5:9], at_us=2)
    assert _file(path).read_bytes() == before
    made.add(records[5:], at_us=3)
    made.close()
    found = checkpoints.signed(path, KEY.public_key())
    assert verify(STREAM, records, found.hashes[STREAM]) == (COUNT, None)


# days


@pytest.fixture(name="three_days")
def _three_days(path: Path, records: list[Record]) -> Path:
    other = chained(OTHER, Head(), _bodies(1, 3))
    _write(path, other, records[:5])
    _write(path, records[5:9], records[9:12], day=1)
    _write(path, records[12:], day=2)
    return path


def test_each_day_has_a_file_that_goes_on_where_the_one_before_ended(
    three_days: Path, records: list[Record]
) -> None:
    assert [each.stem for each in checkpoints.days(three_days)] == [
        "1970-01-01", "1970-01-02", "1970-01-03",
    ]  # fmt: skip
    found = checkpoints.signed(three_days, KEY.public_key())
    assert verify(STREAM, records, found.hashes[STREAM]) == (COUNT, None)
    assert len(found.hashes[OTHER]) == 3


def test_a_start_reads_the_last_day_only_and_knows_where_every_stream_ended(
    three_days: Path, records: list[Record]
) -> None:
    lines = _file(three_days).read_bytes().splitlines(keepends=True)
    _file(three_days).write_bytes(b"nonsense\n" + lines[-1])
    made = Checkpoints(three_days, KEY)
    assert {name: number for name, (number, _) in made.ends.items()} == {STREAM: COUNT, OTHER: 3}
    made.add([*chained(OTHER, Head(), _bodies(1, 3)), *records], at_us=9 * DAY_US)
    made.close()
    assert not _file(three_days, "1970-01-10").exists(), "all of it was signed"
    with pytest.raises(UserError, match="Line 1 "):
        checkpoints.signed(three_days, KEY.public_key())


def test_a_day_that_does_not_follow_the_one_before_is_found(three_days: Path) -> None:
    whole = _file(three_days, "1970-01-02").read_bytes()
    lines = whole.splitlines(keepends=True)
    _file(three_days, "1970-01-02").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UserError, match=r"Line 7 .* does not go on"):
        Checkpoints(three_days, KEY)
    with pytest.raises(UserError, match=r"Line 6 .* missing or moved"):
        checkpoints.signed(three_days, KEY.public_key())
    _file(three_days, "1970-01-02").unlink()
    with pytest.raises(UserError, match=r"Line 4 .* missing or moved"):
        checkpoints.signed(three_days, KEY.public_key())
    _file(three_days).unlink()
    with pytest.raises(UserError, match=r"Line 1 .* missing or moved"):
        checkpoints.signed(three_days, KEY.public_key())


def test_what_was_signed_from_a_day_on_is_verified_alone(
    three_days: Path, records: list[Record]
) -> None:
    found = checkpoints.signed(three_days, KEY.public_key(), since="1970-01-02")
    first = found.first[STREAM]
    assert first == 5
    tail = records[first - 1 :]
    assert verify(STREAM, tail, found.hashes[STREAM], first, first) == (16, None)
    for number in (5, 6, 12, 20):
        at = number - first
        edited = [*tail[:at], dataclasses.replace(tail[at], body=b"{}"), *tail[at + 1 :]]
        wrong = verify(STREAM, edited, found.hashes[STREAM], first, first)[1]
        if number > first:  # what it holds itself is vouched for by the day before
            assert wrong is not None
            assert wrong.number == number
    assert checkpoints.signed(three_days, KEY.public_key(), since="1970-01-09").first[STREAM] == 12


def test_the_single_file_of_before_becomes_the_first_day(path: Path, records: list[Record]) -> None:
    _write(path, records[:5])
    old = _file(path).read_bytes()
    for is_interrupted in (False, True):
        shutil.rmtree(path)
        single = path.with_name("checkpoints.moving") if is_interrupted else path
        single.write_bytes(old)
        _write(path, records[5:], day=1)
        found = checkpoints.signed(path, KEY.public_key())
        assert verify(STREAM, records, found.hashes[STREAM]) == (COUNT, None)
        assert _file(path).read_bytes() == old
        assert not path.with_name("checkpoints.moving").exists()


def test_a_clock_that_runs_back_stays_in_the_last_day(path: Path, records: list[Record]) -> None:
    _write(path, records[:5], day=3)
    _write(path, records[5:], day=1)
    assert [each.stem for each in checkpoints.days(path)] == ["1970-01-04"]


def test_a_day_whose_first_line_a_crash_cut_off_is_begun_again(
    three_days: Path, records: list[Record]
) -> None:
    third = _file(three_days, "1970-01-03")
    whole = third.read_bytes()
    third.write_bytes(whole[:40])
    _write(three_days, records[12:], day=2)
    assert third.read_bytes() == whole


def test_records_that_nothing_makes_again_are_kept_until_they_are_stored(
    path: Path, records: list[Record]
) -> None:
    acts = chained(STREAM, _head(records[:5]), [b'{"kind":"act"}'] * 2, is_once=True)
    _write(path, records[:5], acts)
    heads = {STREAM: _head(records[:5])}
    assert Checkpoints(path, KEY).owed(heads) == acts
    assert Checkpoints(path, KEY).owed({STREAM: _head(acts[:1])}) == acts[1:]
    assert Checkpoints(path, KEY).owed({STREAM: _head(acts)}) == []
    assert Checkpoints(path, KEY).owed({STREAM: _head(records[:4])}) == [], "one is missing"
    _write(path, chained(STREAM, _head(acts), [b'{"kind":"request"}']))
    assert Checkpoints(path, KEY).owed(heads) == [], "they were stored once"
