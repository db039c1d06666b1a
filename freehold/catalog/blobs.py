"""Files by what they hold: `blobs/sha256/<hex>`, written whole or not at all."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from freehold.core.errors import Code, UserError
from freehold.core.ids import is_digest

_PIECE = 1024 * 1024
Told = Callable[[int, int], None]  # bytes done, bytes in all


def digest_of(path: Path, told: Told | None = None) -> str:
    """`sha256:<hex>` of a file; a symbolic link is not followed (`OSError`)."""
    with _open_plain(path) as file:
        total, done = os.fstat(file.fileno()).st_size, 0
        state = hashlib.sha256()
        while piece := file.read(_PIECE):
            state.update(piece)
            done += len(piece)
            if told is not None:
                told(done, total)
    return f"sha256:{state.hexdigest()}"


class Blobs:
    def __init__(self, home: Path) -> None:
        self._folder = home / "blobs" / "sha256"

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie. A digest is never taken for a path."""
        if not is_digest(digest):
            raise UserError(Code.INVALID_VALUE, f"{digest[:80]!r} is not a sha256 digest.")
        return self._folder / digest.removeprefix("sha256:")

    def put(self, source: Path, told: Told | None = None) -> str:
        """Takes a file in and returns its digest; `source` is gone when it could be
        moved. Raises `DISK_FULL`, leaving nothing behind."""
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            if self._can_move(source):
                digest = digest_of(source, told)
                self._settle(source, digest)
                return digest
            return self._copy(source, told)
        except OSError as error:
            raise disk_error(error, self._folder) from None

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    def _can_move(self, source: Path) -> bool:
        """Only what has no second name: somebody else could write through that."""
        found = source.lstat()
        return found.st_nlink == 1 and found.st_dev == self._folder.stat().st_dev

    def _copy(self, source: Path, told: Told | None) -> str:
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=self._folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target, _open_plain(source) as file:
                digest = _copy_hashing(file, target, told)
            self._settle(temporary, digest)
        except BaseException:  # also on Ctrl-C: nothing half written stays
            temporary.unlink(missing_ok=True)
            raise
        return digest

    def _settle(self, file: Path, digest: str) -> None:
        """From here on the file is complete on the disk, read-only and named."""
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(handle, 0o400)
            os.fsync(handle)
        finally:
            os.close(handle)
        file.replace(self.path(digest))
        handle = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def disk_error(error: OSError, where: Path) -> UserError:
    """The sentence for an error of the file system."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full:
        return UserError(
            Code.DISK_FULL, f"The disk of {where} is full: free some space and try again."
        )
    why = error.strerror or "it failed"
    return UserError(
        Code.STORAGE_UNAVAILABLE,
        f"{error.filename or where} cannot be used ({why}): check its rights and its disk.",
    )


def _open_plain(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _copy_hashing(source: BinaryIO, target: BinaryIO, told: Told | None) -> str:
    total, done = os.fstat(source.fileno()).st_size, 0
    state = hashlib.sha256()
    while piece := source.read(_PIECE):
        state.update(piece)
        target.write(piece)
        done += len(piece)
        if told is not None:
            told(done, total)
    return f"sha256:{state.hexdigest()}"
