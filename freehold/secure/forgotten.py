"""Who was forgotten, beside the checkpoints: signed lines that are only ever added to.

A database that was put back from a backup knows again whom it had forgotten. So each start
forgets them once more, by this list.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from freehold.core.errors import Code, UserError
from freehold.secure.checkpoints import append, sign, signed_digest, sync_folder

_FILE = "forgotten.jsonl"


@dataclass(frozen=True, slots=True)
class Forgetting:
    """All that was known of the subject until then."""

    tenant_id: str
    subject: str
    at_us: int


class Forgotten:
    """For one thread at a time; one process a folder."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        """Raises `UserError(AUDIT_BROKEN)` for a list that is not as it was written, and
        `OSError`."""
        self._key = key
        self._path = folder / _FILE
        self._number, self._size, self._previous = 0, 0, ""
        self.all = list(self._read())

    def add(self, new: Forgetting) -> None:
        """Returns when it is on the disk; raises `OSError`, and then it is not there."""
        content = {
            "number": self._number + 1,
            "previous": self._previous,
            "tenant": new.tenant_id,
            "subject": new.subject,
            "at_us": new.at_us,
        }
        line, digest = sign(self._key, content)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                append(file, self._size, line)
            except OSError:
                os.ftruncate(file, self._size)
                raise
            if not self._size:
                sync_folder(self._path.parent)
            os.ftruncate(file, self._size + len(line))
        finally:
            os.close(file)
        self._number, self._previous = self._number + 1, digest
        self._size += len(line)
        self.all.append(new)

    def _read(self) -> Iterator[Forgetting]:
        if not self._path.exists():
            return
        for text in self._path.read_bytes().splitlines(keepends=True):
            if not text.endswith(b"\n"):  # cut off by a crash: nobody was told of it
                return
            digest = signed_digest(text, self._key.public_key())
            found: dict[str, Any] = orjson.loads(text.partition(b" ")[2]) if digest else {}
            after = (self._number + 1, self._previous)
            if digest is None or (found["number"], found["previous"]) != after:
                raise UserError(
                    Code.AUDIT_BROKEN,
                    f"Line {self._number + 1} of {self._path} is not as it was written: put back "
                    "a copy of that file, or those who were forgotten would be known again.",
                )
            self._number, self._previous = self._number + 1, digest
            self._size += len(text)
            yield Forgetting(found["tenant"], found["subject"], found["at_us"])
