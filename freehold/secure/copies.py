"""Whole audit records in a second place, for whoever collects them: a folder with a file a
day, a record a line, on the disk before the records are in the database."""

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from freehold.core.audit import Record
from freehold.secure.checkpoints import append, make_private, sync_folder

_log = logging.getLogger(__name__)
_SUFFIX = ".jsonl"
_TAIL_BYTES = 16 * 1024 * 1024  # more than was ever written at once
_MOST_WAITING = 100_000


class Copies:
    """For one thread at a time; one process a folder. With `may_fail` a folder that cannot
    be written keeps nobody from working: its records wait in memory, and those that find no
    room there are missing in it."""

    def __init__(self, folder: Path, *, may_fail: bool = False) -> None:
        self._folder = folder
        self._may_fail = may_fail
        self._waiting: list[Record] = []
        # Before the last `add`: what waited, and the file and its size.
        self._before: tuple[list[Record], Path | None, int] = ([], None, 0)

    def begin(self, ends: Mapping[str, tuple[int, bytes]]) -> None:
        """Takes back what a crash left behind the last signed records, and half lines.
        Raises `OSError`."""
        make_private(self._folder)
        found = sorted(self._folder.glob(f"????-??-??{_SUFFIX}"))
        if not found or not found[-1].is_file():
            return
        with found[-1].open("r+b") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
            file.seek(start)
            tail = file.read()
            kept = start + (tail.find(b"\n") + 1 if start else 0)
            for line in tail[kept - start :].splitlines(keepends=True):
                if not line.endswith(b"\n") or not _is_signed(line, ends):
                    break
                kept += len(line)
            file.truncate(kept)

    def add(self, records: Sequence[Record], at_us: int) -> None:
        """Returns when they are on the disk. Raises `OSError`, and then there is nothing of
        them."""
        self._before = (self._waiting, None, 0)
        waiting = [*self._waiting, *records]
        try:
            self._add(waiting, at_us)
        except OSError as error:
            if not self._may_fail:
                raise
            lost = max(0, len(waiting) - _MOST_WAITING)
            _log.error("audit_copy_failed", extra={"reason": f"{error.strerror}, {lost} lost"})
            self._waiting = waiting[lost:]
        else:
            self._waiting = []

    def take_back(self) -> None:
        """What the last `add` did, because it was not signed."""
        self._waiting, path, size = self._before
        if path is not None:
            os.truncate(path, size)

    def _add(self, records: Sequence[Record], at_us: int) -> None:
        """Opens the file each time: what was wrong with it may have been mended."""
        day = datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()
        path = self._folder / f"{day}{_SUFFIX}"
        content = b"".join(map(_line, records))
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.lseek(file, 0, os.SEEK_END)
            try:
                append(file, size, content)
                if not size:
                    sync_folder(self._folder)
            except OSError:
                if size or os.fstat(file).st_size:
                    os.ftruncate(file, size)
                raise
        finally:
            os.close(file)
        self._before = (self._before[0], path, size)


def _line(record: Record) -> bytes:
    content = {
        "stream": record.stream,
        "number": record.number,
        "body": record.body.decode(),
        "hash": record.hash.hex(),
    }
    return orjson.dumps(content) + b"\n"


def _is_signed(line: bytes, ends: Mapping[str, tuple[int, bytes]]) -> bool:
    try:
        found = orjson.loads(line)
        return bool(found["number"] <= ends.get(found["stream"], (0, b""))[0])
    except (ValueError, KeyError, TypeError):
        return False
