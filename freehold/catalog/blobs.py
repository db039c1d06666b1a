"""Files by what they hold: `blobs/sha256/<hex>`, written whole or not at all."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from freehold.core.errors import Code, UserError
from freehold.core.ids import is_digest

_PIECE = 1024 * 1024
Told = Callable[[int, int], None]  # bytes done, bytes in all


def digest_of(path: Path, told: Told | None = None) -> str:
    """`sha256:<hex>` of a file."""
    total, done = path.stat().st_size, 0
    state = hashlib.sha256()
    with path.open("rb") as file:
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

    def put(self, source: Path) -> str:
        """Copies a file in; returns its digest. Raises `DISK_FULL`, leaving nothing."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=self._folder)
        temporary = Path(name)
        try:
            state = hashlib.sha256()
            with os.fdopen(handle, "wb") as target, source.open("rb") as file:
                while piece := file.read(_PIECE):
                    state.update(piece)
                    target.write(piece)
                target.flush()
                os.fsync(target.fileno())
            digest = f"sha256:{state.hexdigest()}"
            temporary.chmod(0o400)
            temporary.replace(self.path(digest))
            return digest
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise disk_error(error, self._folder) from None

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)


def disk_error(error: OSError, where: Path) -> UserError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full:
        return UserError(
            Code.DISK_FULL, f"The disk of {where} is full: free some space and try again."
        )
    return UserError(Code.STORAGE_UNAVAILABLE, f"{where} cannot be written ({error.strerror}).")
