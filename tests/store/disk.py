"""A disk that a test can fill, break and cut from the power, below the journal.

Files are written for real, so they hold what the operating system would hold after the
death of the process. Beside them `Disk` keeps what would be left after the loss of
power: only what a sync that succeeded has covered, in files whose folder was synced. As
on Linux, a failed sync drops what it should have written, and the next one succeeds.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from freehold.store import journal

_CALLS = ("open", "pwrite", "fsync", "fdatasync")


class Disk:
    """Takes the place of `os` inside the journal, or whatever else writes as it does."""

    def __init__(self) -> None:
        self.room: int | None = None  # bytes by which files may still grow; None: plenty
        self.calls = 0
        self.syncs = 0
        self.meanwhile: dict[str, Callable[[], None]] = {}  # what happens during a sync
        self.may_sync = threading.Event()
        self.may_sync.set()
        self._faults: dict[int, int] = {}
        self._broken: dict[str, int] = {}
        self._lock = threading.RLock()
        self._paths: dict[int, Path] = {}
        self._dirty: dict[Path, list[tuple[int, bytes]]] = {}
        self._platter: dict[Path, bytearray] = {}
        self._named: set[Path] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # what a test does to it

    def fail_call(self, number: int, error: int = errno.EIO) -> None:
        """The call with this number, from 1, fails once."""
        self._faults[number] = error

    def break_calls(self, names: Iterable[str], error: int) -> None:
        """All calls of these names fail until `mend`."""
        self._broken = dict.fromkeys(names, error)

    def mend(self) -> None:
        self._broken, self.room = {}, None

    def lose_power(self, folder: Path) -> Path:
        """A folder with what is left."""
        folder.mkdir()
        with self._lock:
            for path in self._named & set(self._platter):
                (folder / path.name).write_bytes(self._platter[path])
        return folder

    # what the journal asks of it

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        with self._lock:
            if flags & os.O_CREAT:
                self._count("open")
            handle = os.open(path, flags, mode)
            self._paths[handle] = Path(path)
            return handle

    def close(self, handle: int) -> None:
        with self._lock:
            del self._paths[handle]
            os.close(handle)

    def pwrite(self, handle: int, content: bytes, offset: int) -> int:
        with self._lock:
            self._count("pwrite")
            grows = max(0, offset + len(content) - os.fstat(handle).st_size)
            if self.room is not None and grows > self.room:
                content = content[: len(content) - grows + self.room]
                if not content:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                grows = self.room
            if self.room is not None:
                self.room -= grows
            self._dirty.setdefault(self._paths[handle], []).append((offset, bytes(content)))
            return os.pwrite(handle, content, offset)

    def fsync(self, handle: int) -> None:
        self._sync("fsync", handle)

    def fdatasync(self, handle: int) -> None:
        self._sync("fdatasync", handle)

    def _sync(self, name: str, handle: int) -> None:
        with self._lock:
            path = self._paths[handle]
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                self._count(name)
                self._named.update(path.iterdir())
                return
            dirty = self._dirty.pop(path, [])
            self._count(name)  # a failure leaves `dirty` forgotten
            self.syncs += name == "fdatasync"
            platter = self._platter.setdefault(path, bytearray())
            for offset, content in dirty:
                platter.extend(bytes(max(0, offset + len(content) - len(platter))))
                platter[offset : offset + len(content)] = content
        self.may_sync.wait()
        self.meanwhile.get(name, bool)()

    def _count(self, name: str) -> None:
        self.calls += 1
        error = self._faults.pop(self.calls, self._broken.get(name))
        if error is not None:
            raise OSError(error, os.strerror(error))


def put_under_journal(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return put_under(journal, monkeypatch)


def put_under(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(module, "os", disk)
    return disk
