"""Signed checkpoints of the audit chain, kept where the records are not.

A line is JSON: which records came since the line before, the first 16 bytes of each one's
hash, and an Ed25519 signature over it all and over the line before. It is on the disk
before its records are in the database. Whoever holds a copy of this file and the public
key finds every record that was changed, dropped, moved or added behind Freehold's back.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from freehold.core.audit import Head, Record
from freehold.core.errors import Code, UserError

SHOWN_BYTES = 16  # of each hash: 2^64 tries to find another record of the same
_VERSION = 1
_FIRST = ""


class Checkpoints:
    """Appends. For one thread; one process a file."""

    def __init__(self, path: Path, key: Ed25519PrivateKey) -> None:
        """Raises `UserError(AUDIT_BROKEN)` for a file whose last line is not ours, and
        `OSError`. A last line that a crash cut off is taken back."""
        self._key = key
        self._path = path
        self._signed: dict[str, tuple[int, bytes]] = {}
        self._number, self._previous = 0, _FIRST
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0
        for line in read(path, key.public_key()):
            self._number, self._previous = line.number, line.digest
            self._size += line.size
            for stream, (first, hashes) in line.streams.items():
                self._signed[stream] = first + len(hashes) - 1, hashes[-1]
        os.ftruncate(self._file, self._size)

    def add(self, records: Iterable[Record], at_us: int) -> None:
        """Returns when they are on the disk. Of records that were signed before a crash
        kept them out of the database, nothing is written again. Raises `OSError`, and then
        none was signed."""
        fresh: dict[str, list[Record]] = {}
        for record in records:
            if record.number > self._signed.get(record.stream, (0, b""))[0]:
                fresh.setdefault(record.stream, []).append(record)
        if not fresh:
            return
        line, digest = _line(self._key, self._number + 1, self._previous, at_us, fresh)
        self._write(line)
        self._number, self._previous = self._number + 1, digest
        for stream, new in fresh.items():
            self._signed[stream] = new[-1].number, new[-1].hash[:SHOWN_BYTES]

    def check(self, heads: Mapping[str, Head]) -> None:
        """Raises `UserError(AUDIT_BROKEN)` when a stream in the database does not end where
        it was signed last: somebody changed it, or it is of an older backup."""
        if not self._number:  # a new file: what there is so far counts from here on
            self.add([Record(name, head.number, b"", head.hash) for name, head in heads.items()], 0)
            return
        for stream in self._signed.keys() | heads.keys():
            number, shown = self._signed.get(stream, (0, b""))
            head = heads.get(stream, Head())
            if (head.number, head.hash[:SHOWN_BYTES] if head.number else b"") == (number, shown):
                continue
            raise UserError(
                Code.AUDIT_BROKEN,
                f"The audit records of {stream} end at number {head.number}, but {number} are "
                f"signed in {self._path}: run `freehold audit verify`. If the database is of a "
                "backup, move that file to whoever audits, then start again.",
            )

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._size + written)
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)


@dataclass(frozen=True, slots=True)
class Line:
    """`streams`: the number of the first record, and the shown bytes of each hash."""

    number: int
    at_us: int
    streams: Mapping[str, tuple[int, Sequence[bytes]]]
    digest: str
    size: int


@dataclass(slots=True)
class Signed:
    """What the checkpoints say there must be: by stream, the number of the first record that
    the file knows, and the hashes from there on."""

    first: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, list[bytes]] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        for stream, (first, hashes) in line.streams.items():
            begun = self.first.setdefault(stream, first)
            known = self.hashes.setdefault(stream, [])
            if first != begun + len(known):
                raise _broken(line.number, f"skips records of {stream}")
            known.extend(hashes)


def read(path: Path, key: Ed25519PublicKey) -> Iterator[Line]:
    """The lines of a file. Raises `UserError(AUDIT_BROKEN)` naming the first that is not as
    it was signed, at the end at the latest: each line holds the digest of the one before,
    so that the last signature stands for all. A last line without its end was cut off by a
    crash, and its records never came into the database."""
    previous, last = _FIRST, b""
    for number, text in enumerate(_whole_lines(path), 1):
        line = _line_in(text, number, previous)
        if line is None:
            raise _first_wrong(path, key)
        previous, last = line.digest, text
        yield line
    if last and not _is_signed(last, key):
        raise _first_wrong(path, key)


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n"):
                yield text


def _first_wrong(path: Path, key: Ed25519PublicKey) -> UserError:
    """Looks for it with all signatures, which takes its time."""
    previous, number = _FIRST, 0
    for number, text in enumerate(_whole_lines(path), 1):
        if not _is_signed(text, key):
            return _broken(number, "is not as it was signed, or was signed by another key")
        line = _line_in(text, number, previous)
        if line is None:
            return _broken(number, "does not follow the one before it: lines are missing or moved")
        previous = line.digest
    return _broken(number, "changed while it was read")


def signed(path: Path, key: Ed25519PublicKey) -> Signed:
    """All of a file. Raises as `read`."""
    found = Signed()
    for line in read(path, key):
        found.take(line)
    return found


def _line(
    key: Ed25519PrivateKey,
    number: int,
    previous: str,
    at_us: int,
    fresh: Mapping[str, Sequence[Record]],
) -> tuple[bytes, str]:
    streams = {
        stream: {
            "first": records[0].number,
            "hashes": base64.b64encode(b"".join(r.hash[:SHOWN_BYTES] for r in records)).decode(),
        }
        for stream, records in fresh.items()
    }
    content = orjson.dumps(
        {"v": _VERSION, "number": number, "at_us": at_us, "previous": previous, "streams": streams},
        option=orjson.OPT_SORT_KEYS,
    )
    signature = base64.b64encode(key.sign(content))
    return b"%b %b\n" % (signature, content), hashlib.sha256(content).hexdigest()


def _is_signed(text: bytes, key: Ed25519PublicKey) -> bool:
    signature, _, content = text[:-1].partition(b" ")
    try:
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _line_in(text: bytes, number: int, previous: str) -> Line | None:
    """None for one that is not the line of that number after that one."""
    content = text[:-1].partition(b" ")[2]
    try:
        found: dict[str, Any] = orjson.loads(content)
        if found["number"] != number or found["previous"] != previous:
            return None
        streams = {
            stream: (each["first"], _split(base64.b64decode(each["hashes"])))
            for stream, each in found["streams"].items()
        }
        at_us = found["at_us"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Line(number, at_us, streams, hashlib.sha256(content).hexdigest(), len(text))


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + SHOWN_BYTES] for at in range(0, len(hashes), SHOWN_BYTES)]


def _broken(number: int, why: str) -> UserError:
    return UserError(
        Code.AUDIT_BROKEN,
        f"Line {number} of the audit checkpoints {why}: compare the file with its copies.",
    )
