"""Signed checkpoints of the audit chain, kept where the records are not.

A folder has a file a day. A line is JSON: which records came since the line before, the
first 16 bytes of each one's hash, and an Ed25519 signature over it all and over the line
before, be that in the file of another day. It is on the disk before its records are in the
database. Whoever holds a copy of these files and the public key finds every record that was
changed, dropped, moved or added behind Freehold's back.

The first line of a day says where each stream ended, so that a start reads one file. It reads
days before that only while the database lacks something of them.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from freehold.core.audit import Head, Kind, Record, is_change, link
from freehold.core.errors import Code, UserError

SHOWN_BYTES = 16  # of each hash: 2^64 tries to find another record of the same
_VERSION = 2
_FIRST = ""
_SUFFIX, _MOVING = ".jsonl", ".moving"
_TAIL_BYTES = 64 * 1024
_Shown = tuple[int, bytes]  # the last record of a stream: its number, and of its hash


class Checkpoints:
    """Appends. For one thread at a time; one process a folder."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        """Raises `UserError(AUDIT_BROKEN)` for a last day that is not ours, and `OSError`.
        A last line that a crash cut off is taken back."""
        self._key = key
        self._folder = folder
        self._signed: dict[str, _Shown] = {}
        self._number, self._previous = 0, _FIRST
        self._told: list[Line] = []  # of the last day, until `owed` was asked
        self._earlier: list[Path] = []
        self._file: int | None = None
        self._day, self._size = "", 0
        _move_in(folder)
        make_private(folder)
        _remove_empty(folder)
        self._read_last()

    @property
    def ends(self) -> Mapping[str, _Shown]:
        """The last record of each stream that is signed."""
        return self._signed

    def fresh(self, records: Iterable[Record]) -> list[Record]:
        """Those that are not signed yet. After a crash kept signed ones out of the database
        they come again."""
        return [r for r in records if r.number > self._signed.get(r.stream, (0, b""))[0]]

    def add(self, records: Iterable[Record], at_us: int) -> None:
        """Returns when they are on the disk. Nothing is signed twice. Raises `OSError`, and
        then none was signed."""
        by_stream: dict[str, list[Record]] = {}
        for record in self.fresh(records):
            by_stream.setdefault(record.stream, []).append(record)
        if not by_stream:
            return
        content = _content(by_stream)
        day = max(self._day, _day_of(at_us))
        if self._file is None or day != self._day:
            self._open_day(day, at_us, content)
        else:
            line, digest = _line(self._key, self._number + 1, self._previous, at_us, content)
            self._write(line)
            self._number, self._previous = self._number + 1, digest
        for stream, new in by_stream.items():
            self._signed[stream] = new[-1].number, new[-1].hash[:SHOWN_BYTES]

    def owed(self, heads: Mapping[str, Head]) -> list[Record]:
        """Records that nothing makes again, signed last, which the database that has these
        heads lacks. Those that do not follow them are none, nor those that were stored once:
        behind a change that was not, the next record of its stream says so."""
        found: dict[str, list[Record]] = {}
        for line in self._since(heads):
            for stream, (first, _) in line.streams.items():
                mine = found.setdefault(stream, [])
                if mine and is_change(mine[-1]) and not _is_told(line.bodies.get((stream, first))):
                    mine.clear()
            for (stream, number), body in line.bodies.items():
                mine = found[stream]
                head = Head(mine[-1].number, mine[-1].hash) if mine else heads.get(stream, Head())
                if number == head.number + 1:
                    hashed = link(head.hash, stream, number, body)
                    mine.append(Record(stream, number, body, hashed, is_once=True))
        self._told, self._earlier = [], []
        return [
            record
            for stream, mine in sorted(found.items())
            if mine and self._is_tail(stream, mine[-1])
            for record in mine
        ]

    def _since(self, heads: Mapping[str, Head]) -> list["Line"]:
        """Of the last day, and of those before it that have what is behind these heads."""
        told, earlier = self._told, self._earlier
        while earlier and any(
            heads.get(stream, Head()).number < number
            for stream, (number, _) in (told[0].heads or {}).items()
        ):
            path = earlier.pop()
            try:
                _check_follows(told[0], path)
                told = [*_telling(_lines([path], self._key.public_key())), *told]
            except OSError as error:
                raise UserError(
                    Code.AUDIT_UNAVAILABLE,
                    f"{path} cannot be read ({error.strerror}), and it has what the database lacks "
                    "of the audit records: make it readable.",
                ) from None
        return told

    def _is_tail(self, stream: str, last: Record) -> bool:
        """Nothing was signed behind it, or only what the journal brings again."""
        is_end = (last.number, last.hash[:SHOWN_BYTES]) == self._signed[stream]
        return is_end or orjson.loads(last.body)["kind"] == Kind.UNDONE

    def begin(self, heads: Mapping[str, Head], at_us: int) -> None:
        """In a new folder what there is so far counts from here on."""
        if not self._number:
            ends = [Record(name, head.number, b"", head.hash) for name, head in heads.items()]
            self.add(ends, at_us)

    def check(self, heads: Mapping[str, Head]) -> None:
        """Raises `UserError(AUDIT_BROKEN)` when a stream in the database does not end where
        it was signed last: somebody changed it, or it is of an older backup."""
        for stream in self._signed.keys() | heads.keys():
            number, shown = self._signed.get(stream, (0, b""))
            head = heads.get(stream, Head())
            if (head.number, head.hash[:SHOWN_BYTES] if head.number else b"") == (number, shown):
                continue
            raise UserError(
                Code.AUDIT_BROKEN,
                f"The audit records of {stream} end at number {head.number}, but {number} are "
                f"signed in {self._folder}: run `freehold audit verify`. If the database is of a "
                "backup, move that folder to whoever audits, then `freehold audit begin`.",
            )

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read_last(self) -> None:
        found = days(self._folder)
        if not found:
            return
        *self._earlier, path = found
        for line in _lines([path], self._key.public_key()):
            if not self._size and self._earlier:
                _check_follows(line, self._earlier[-1])
            self._number, self._previous = line.number, line.digest
            self._size += line.size
            self._signed.update(line.ends())
            if line.bodies or not self._told:
                self._told.append(line)
        self._day = path.stem
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._file, self._size)

    def _open_day(self, day: str, at_us: int, content: Mapping[str, Any]) -> None:
        """The file of another day, with its first two lines."""
        heads = {
            stream: [number, base64.b64encode(shown).decode()]
            for stream, (number, shown) in self._signed.items()
        }
        number = self._number + 1
        first, begun = _line(
            self._key, number, self._previous, at_us, {"streams": {}, "heads": heads}
        )
        second, digest = _line(self._key, number + 1, begun, at_us, content)
        path = self._folder / f"{day}{_SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            append(file, 0, first + second)
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self.close()
        self._file, self._day, self._size = file, day, len(first + second)
        self._number, self._previous = number + 1, digest

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise OSError("closed")
        try:
            append(self._file, self._size, line)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)


@dataclass(frozen=True, slots=True)
class Line:
    """`streams`: the number of the first record, and the shown bytes of each hash. `heads`:
    where each stream ended before, on the first line of a day. `bodies`: of the records that
    nothing makes again, by stream and number."""

    number: int
    at_us: int
    previous: str
    streams: Mapping[str, tuple[int, bytes]]
    digest: str
    size: int
    heads: Mapping[str, _Shown] | None = None
    bodies: Mapping[tuple[str, int], bytes] = field(default_factory=dict)

    def ends(self) -> Iterator[tuple[str, _Shown]]:
        """Where the streams end after it, as far as it knows."""
        yield from (self.heads or {}).items()
        for stream, (first, hashes) in self.streams.items():
            yield stream, (first + len(hashes) // SHOWN_BYTES - 1, hashes[-SHOWN_BYTES:])


@dataclass(slots=True)
class Signed:
    """What the checkpoints say there must be: by stream, the number of the first record that
    the files know, and the hashes from there on."""

    first: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, list[bytes]] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        for stream, (number, shown) in (line.heads or {}).items():
            self._take(line, stream, number, [shown])
        for stream, (first, hashes) in line.streams.items():
            self._take(line, stream, first, _split(hashes))

    def _take(self, line: Line, stream: str, first: int, hashes: Sequence[bytes]) -> None:
        begun = self.first.setdefault(stream, first)
        known = self.hashes.setdefault(stream, [])
        if line.heads is not None and known:
            if [first, *hashes] == [begun + len(known) - 1, known[-1]]:
                return
        elif first == begun + len(known):
            known.extend(hashes)
            return
        raise _broken(line.number, f"does not go on where {stream} ended")


def days(path: Path, since: str = "") -> list[Path]:
    """The files of a folder, oldest first, from that day on. One file stands for itself."""
    if path.is_file():
        return [path]
    found = sorted(path.glob(f"????-??-??{_SUFFIX}"))
    if not found and not path.is_dir():
        raise FileNotFoundError(2, os.strerror(2), str(path))
    return [each for each in found if each.stem >= since] or found[-1:]


def has_lines(path: Path) -> bool:
    try:
        return next(_texts(days(path)), None) is not None
    except FileNotFoundError:
        return False


def public_key(text: str) -> Ed25519PublicKey:
    """Of 64 hex digits. Raises `ValueError`."""
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))


def signed(path: Path, key: Ed25519PublicKey, since: str = "") -> Signed:
    """All of a folder, or from a day (2026-11-25) on. Raises `OSError`, and
    `UserError(AUDIT_BROKEN)` naming the first line that is not as it was signed."""
    found = Signed()
    for line in _lines(days(path, since), key, is_whole=not since):
        found.take(line)
    return found


def until(path: Path, key: Ed25519PublicKey, heads: Mapping[str, Head]) -> dict[str, int] | None:
    """How much of each file was written when the chains ended there; None: they never did."""
    wanted = {stream: (head.number, head.hash[:SHOWN_BYTES]) for stream, head in heads.items()}
    sizes: dict[str, int] = {}
    ends: dict[str, _Shown] = {}
    if not wanted:
        return sizes
    for file in days(path):
        name = file.name if path.is_dir() else path.name
        for line in _lines([file], key):
            sizes[name] = sizes.get(name, 0) + line.size
            ends.update(line.ends())
            if ends == wanted:
                return sizes
    return None


def _lines(paths: Sequence[Path], key: Ed25519PublicKey, is_whole: bool = False) -> Iterator[Line]:
    """Each line holds the digest of the one before, so that the last signature stands for
    all. A last line without its end was cut off by a crash, and its records never came into
    the database. `is_whole`: the first of all lines is the first one here."""
    previous, last = _FIRST, b""
    number = 1 if is_whole else None
    for text in _texts(paths):
        line = _line_in(text)
        if line is None:
            raise _first_wrong(paths, key, is_whole)
        if number is None and line.heads is None:  # the first day begins with 1, the others so
            number = 1
        if number is not None and (line.number, line.previous) != (number, previous):
            raise _first_wrong(paths, key, is_whole)
        previous, number, last = line.digest, line.number + 1, text
        yield line
    if last and signed_digest(last, key) is None:
        raise _first_wrong(paths, key, is_whole)


def _texts(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            for text in file:
                if text.endswith(b"\n"):
                    yield text


def _first_wrong(paths: Sequence[Path], key: Ed25519PublicKey, is_whole: bool) -> UserError:
    """Looks for it with all signatures, which takes its time."""
    previous, number = _FIRST, 1
    for text in _texts(paths):
        line = _line_in(text)
        if line is not None and line.heads is not None and not (previous or is_whole):
            previous, number = line.previous, line.number
        if line is None or signed_digest(text, key) is None:
            return _broken(number, "is not as it was signed, or was signed by another key")
        if (line.number, line.previous) != (number, previous):
            return _broken(number, "does not follow the one before it: lines are missing or moved")
        previous, number = line.digest, number + 1
    return _broken(number - 1, "changed while it was read")


def _telling(lines: Iterable[Line]) -> list[Line]:
    """The first, and those that hold bodies."""
    return [line for at, line in enumerate(lines) if line.bodies or not at]


def _is_told(body: bytes | None) -> bool:
    """Whether a record says of those before it that they were not made."""
    return body is not None and orjson.loads(body)["kind"] in (Kind.UNDONE, Kind.RESTORED)


def _check_follows(first: Line, before: Path) -> None:
    """The first line of a day, and the last one of the day before."""
    with before.open("rb") as file:
        file.seek(max(0, before.stat().st_size - _TAIL_BYTES))
        tail = file.read()
        if tail.count(b"\n") < 2:
            file.seek(0)
            tail = file.read()
    text = next((each for each in reversed(tail.splitlines(True)) if each.endswith(b"\n")), b"")
    if hashlib.sha256(text[:-1].partition(b" ")[2]).hexdigest() != first.previous:
        raise _broken(first.number, f"does not go on where {before.name} ends")


def _content(by_stream: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    streams = {
        stream: {
            "first": records[0].number,
            "hashes": base64.b64encode(b"".join(r.hash[:SHOWN_BYTES] for r in records)).decode(),
        }
        for stream, records in by_stream.items()
    }
    bodies = {
        stream: {str(r.number): r.body.decode() for r in records if r.is_once}
        for stream, records in by_stream.items()
        if any(r.is_once for r in records)
    }
    return {"streams": streams, "bodies": bodies} if bodies else {"streams": streams}


def _line(
    key: Ed25519PrivateKey, number: int, previous: str, at_us: int, content: Mapping[str, Any]
) -> tuple[bytes, str]:
    place = {"v": _VERSION, "number": number, "at_us": at_us, "previous": previous}
    return sign(key, {**place, **content})


def _line_in(text: bytes) -> Line | None:
    """None for what is no line."""
    content = text[:-1].partition(b" ")[2]
    try:
        found: dict[str, Any] = orjson.loads(content)
        streams = {
            stream: (int(each["first"]), base64.b64decode(each["hashes"]))
            for stream, each in found["streams"].items()
        }
        heads = found.get("heads")
        if heads is not None:
            heads = {name: (number, base64.b64decode(it)) for name, (number, it) in heads.items()}
        bodies = {
            (stream, int(number)): body.encode()
            for stream, several in found.get("bodies", {}).items()
            for number, body in several.items()
        }
        number, at_us, previous = found["number"], found["at_us"], found["previous"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    digest = hashlib.sha256(content).hexdigest()
    return Line(number, at_us, previous, streams, digest, len(text), heads, bodies)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + SHOWN_BYTES] for at in range(0, len(hashes), SHOWN_BYTES)]


def _move_in(folder: Path) -> None:
    """One file for all days, as it was before, becomes the first of the folder; begun and
    not ended, it is ended."""
    moving = folder.with_name(folder.name + _MOVING)
    if folder.is_file():
        folder.rename(moving)
    if not moving.exists():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    at_us = 0
    for text in _texts([moving]):
        line = _line_in(text)
        at_us = line.at_us if line else at_us
    moving.rename(folder / f"{_day_of(at_us)}{_SUFFIX}")
    sync_folder(folder)


def _remove_empty(folder: Path) -> None:
    """A day whose first line a crash cut off: nothing of it came into the database."""
    found = days(folder)
    if found and next(_texts(found[-1:]), None) is None:
        found[-1].unlink()


def _day_of(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()


def make_private(folder: Path) -> None:
    """For its owner only, and so is the one around it, when that is new."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def sign(key: Ed25519PrivateKey, content: Mapping[str, Any]) -> tuple[bytes, str]:
    """A line, and the digest that the next one holds."""
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    signature = base64.b64encode(key.sign(text))
    return b"%b %b\n" % (signature, text), hashlib.sha256(text).hexdigest()


def signed_digest(line: bytes, key: Ed25519PublicKey) -> str | None:
    """Of a line that this key signed; None for another."""
    signature, _, content = line[:-1].partition(b" ")
    try:
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, ValueError):
        return None
    return hashlib.sha256(content).hexdigest()


def append(file: int, size: int, content: bytes) -> None:
    """Behind its first `size` bytes; returns when it is on the disk."""
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:], size + written)
    os.fdatasync(file)


def sync_folder(folder: Path) -> None:
    """So that a new file in it is found after the loss of power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _broken(number: int, why: str) -> UserError:
    return UserError(
        Code.AUDIT_BROKEN,
        f"Line {number} of the audit checkpoints {why}: compare them with their copies.",
    )
