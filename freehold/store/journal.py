"""Lines that are on the disk before anybody is told so: the ledger's own write-ahead log.

A line is `<CRC-32 in hex> <JSON>\\n`. What was appended is safe from the death of the
process at once (the operating system holds it), and from the loss of power after
`sync`. Segments are numbered; a closed one is removed when its lines are in the
database.
"""

import contextlib
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_log = logging.getLogger(__name__)
_SEGMENT_BYTES, _ROOM_BYTES = 4 * 1024 * 1024, 512 * 1024
_SUFFIX, _DAMAGED = ".journal", ".damaged"


def line(entry: Sequence[Any]) -> bytes:
    content = orjson.dumps(entry)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def content(line: bytes) -> bytes:
    """The entry of a line, in JSON: in memory of its own."""
    return line[9:-1]


@dataclass(slots=True)
class _Segment:
    path: Path
    file: int
    size: int = 0


class Journal:
    """`append` may be called on any thread, `sync` on one, `prepare` on one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._number = max((int(path.stem) for path in segments(folder)), default=0) + 1
        self._unsynced: list[bytes] = []
        self._closed: list[Path] = []
        self._now = self._made(self._number)
        self._next: _Segment | None = None
        self._is_doubtful = self._is_closed = False

    def append(self, lines: bytes) -> None:
        """All of it or nothing. Raises `OSError`, on a full disk for one."""
        with self._lock:
            _write(self._now, lines)
            self._unsynced.append(lines)

    def sync(self) -> None:
        """Returns when all that was appended before is on the disk. Raises `OSError`;
        the next call writes it again, into another segment: after a failed sync the
        operating system may take the lost pages for written."""
        if self._is_doubtful:
            self._move_on()
        with self._lock:
            now, unsynced = self._now, self._unsynced
            self._unsynced = []
        try:
            os.fdatasync(now.file)
        except OSError:
            with self._lock:
                self._unsynced = unsynced + self._unsynced
            self._is_doubtful = True
            raise
        if now.size > _SEGMENT_BYTES - _ROOM_BYTES:
            try:
                self._move_on()
            except OSError as error:  # what was asked for is done; the segment grows on
                _log.warning("ledger_segment_failed", extra={"reason": error.strerror})

    def prepare(self) -> None:
        """Makes the next segment ahead of its use. Raises `OSError`."""
        with self._lock:
            if self._next is not None or self._now.size < _SEGMENT_BYTES // 2 or self._is_closed:
                return
            self._number += 1
            number = self._number
        made = self._made(number)
        with self._lock:
            if self._next is None and self._now.path < made.path and not self._is_closed:
                self._next = made
                return
        os.close(made.file)  # the writer could not wait and made a later one, or ended
        made.path.unlink()

    def take_closed(self) -> list[Path]:
        """The segments that get no more lines; the caller removes them."""
        with self._lock:
            closed, self._closed = self._closed, []
        return closed

    def give_back(self, closed: list[Path]) -> None:
        with self._lock:
            self._closed = closed + self._closed

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for segment in (self._now, self._next):
                if segment is not None:
                    os.close(segment.file)
                    self._closed.append(segment.path)

    def _move_on(self) -> None:
        """To the next segment, which takes along what is not synced in this one."""
        with self._lock:
            if self._next is None:
                self._number += 1
                self._next = self._made(self._number)
            _write(self._next, b"".join(self._unsynced))
            old, self._now, self._next = self._now, self._next, None
            self._closed.append(old.path)
            self._is_doubtful = False
        os.close(old.file)

    def _made(self, number: int) -> _Segment:
        """Full of zeros and on the disk, so that a sync need not wait for the file
        system's own records too, and so that there is room when the disk is full."""
        path = self._folder / f"{number:012d}{_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        segment = _Segment(path, os.open(path, flags, 0o600))
        try:
            _write(segment, bytes(_SEGMENT_BYTES))
            segment.size = 0
            os.fsync(segment.file)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            os.close(segment.file)
            path.unlink()
            raise
        return segment


def _write(segment: _Segment, lines: bytes) -> None:
    """What a failed write leaves is taken back, so that none of its lines is read."""
    written = 0
    try:
        while written < len(lines):
            part = lines[written:] if written else lines
            written += os.pwrite(segment.file, part, segment.size + written)
    except OSError:
        with contextlib.suppress(OSError):
            os.pwrite(segment.file, bytes(written), segment.size)
        raise
    segment.size += len(lines)


def segments(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def read(path: Path) -> Iterator[list[Any]]:
    """The sound entries of one segment. A segment cut off in its last line is what a
    loss of power leaves; other damage is kept aside for whoever wants to look."""
    bad, cut = 0, False
    with path.open("rb") as file:
        for content in file:
            written = content.lstrip(b"\0")  # what was never written is zero
            entry = _decode(written)
            if entry is not None:
                yield entry
            elif written.endswith(b"\n"):
                bad += 1
            elif written:
                cut = True
    if bad:
        path.with_suffix(_DAMAGED).write_bytes(path.read_bytes())
        _log.error("ledger_damaged", extra={"reason": f"{bad} bad lines, kept in {path.stem}"})
    elif cut:
        _log.warning("ledger_cut_off", extra={"reason": path.name})


def _decode(content: bytes) -> list[Any] | None:
    checksum, _, body = content.rstrip(b"\n").partition(b" ")
    if not body or not content.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    entry: list[Any] = orjson.loads(body)
    return entry
