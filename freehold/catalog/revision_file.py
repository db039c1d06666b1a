"""A revision as a file, to be let in by another installation: a tar of plain files in one order,
uncompressed, with a signature in front that is over all of them.

The same content gives the same bytes, and what is read is held against those: a header that would
have been written otherwise ends it. So there is no room for links, paths, names that come twice or
sizes that grow. The signature comes first: nothing is laid on the disk that nobody whom we trust
has signed.
"""

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freehold.catalog.bundle import MAX_BYTES, Unreadable
from freehold.catalog.signatures import Vouched
from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.errors import Code, UserError
from freehold.core.manifest import MANIFEST
from freehold.core.signature import SIGNATURE, Signer

ABOUT, GATE, FIGURES = "revision.json", "gate.json", "figures.json"
EVALUATION, BOM = "evaluation.json", "lineage.cdx.json"
# Of the adapter, in a folder of their own: a signature over them is none of the adapter itself.
_FOLDER = "adapter/"
SIGNATURES = f"{_FOLDER}signatures.json"
_MIB = 1024 * 1024
# In this order; how large each may be, None for what goes to the disk.
_MOST: Mapping[str, int | None] = {
    ABOUT: _MIB, GATE: _MIB, FIGURES: _MIB // 4, EVALUATION: None, BOM: 16 * _MIB,
    f"{_FOLDER}{MANIFEST}": _MIB, SIGNATURES: 4 * _MIB, f"{_FOLDER}{CONFIG}": None,
    f"{_FOLDER}{WEIGHTS}": None,
}  # fmt: skip
_NEEDED = {ABOUT, GATE, BOM, f"{_FOLDER}{CONFIG}", f"{_FOLDER}{WEIGHTS}"}
_BLOCK, _PIECE = tarfile.BLOCKSIZE, _MIB
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, whoever signed it. `small` are its descriptions; the adapter's own two
    files, and its manifest, lie in a folder."""

    signer: Signer
    small: Mapping[str, bytes]
    digest: str  # of the whole file


def named(name: str) -> str:
    """What a file of the adapter is called there."""
    return f"{_FOLDER}{name}"


def write(
    path: Path,
    small: Mapping[str, bytes],
    adapter: Mapping[str, Path],
    vouch: Callable[[Mapping[str, str]], str],
) -> str:
    """Returns its digest. `adapter` are the adapter's files by name. `vouch` signs digests by name.
    Raises `OSError`, leaving part of a file, and `UserError` for what was changed meanwhile."""
    digests = {name: _digest(content) for name, content in small.items()}
    for name, source in adapter.items():
        with source.open("rb") as file:
            digests[named(name)] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    whole = hashlib.sha256()
    with path.open("xb") as target:
        os.fchmod(target.fileno(), 0o600)
        out = _Hashing(target, whole)
        out.add(SIGNATURE, vouch(digests).encode())
        for name in _MOST:
            if name in small:
                out.add(name, small[name])
            elif name in digests:
                out.add_file(name, adapter[name.removeprefix(_FOLDER)], digests[name])
        out.write(_END)
        target.flush()
        os.fsync(target.fileno())
    return f"sha256:{whole.hexdigest()}"


class _Hashing:
    def __init__(self, target: BinaryIO, whole: Any) -> None:
        self._target = target
        self._whole = whole

    def write(self, content: bytes) -> None:
        self._target.write(content)
        self._whole.update(content)

    def add(self, name: str, content: bytes) -> None:
        self.write(_header(name, len(content)) + content + bytes(-len(content) % _BLOCK))

    def add_file(self, name: str, source: Path, digest: str) -> None:
        state = hashlib.sha256()
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.write(_header(name, size))
            while piece := file.read(_PIECE):
                state.update(piece)
                self.write(piece)
            self.write(bytes(-size % _BLOCK))
        if f"sha256:{state.hexdigest()}" != digest:
            raise UserError(Code.CONFLICT, f"{name} changed while it was read: try it again.")


def check_kind(path: Path) -> None:
    """Raises `UserError` for what does not begin as such a file does, before it is copied."""
    with _opened(path) as file:
        _Reading(file).size_of(SIGNATURE)


def read(path: Path, folder: Path, vouched: Callable[[bytes], Vouched]) -> Content:
    """Lays the adapter's files into `folder`. Raises `UserError`: `FILE_INVALID` for what is no
    such file, or is cut off, `FILE_REFUSED` for what nobody signed whom `vouched` accepts, or
    what was changed since."""
    with _opened(path) as file:
        reading = _Reading(file)
        signed = _accepted(reading.whole(SIGNATURE, MAX_BYTES), vouched)
        if not _NEEDED <= signed.files.keys() <= _MOST.keys():
            raise refused("its signature is over other files than a revision has")
        small: dict[str, bytes] = {}
        for name, most in _MOST.items():
            if name not in signed.files:
                continue
            if most is None or name == named(MANIFEST):
                target = folder / name.removeprefix(_FOLDER) if name.startswith(_FOLDER) else None
                found = reading.laid(name, target, most)
            else:
                content = reading.whole(name, most)
                found, small[name] = _digest(content), content
            if found != signed.files[name]:
                raise refused(f"{name} is not what was signed")
        reading.end()
        return Content(signed.signer, small, reading.digest)


class _Reading:
    """Part by part, none twice, in the order in which they were written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._all = hashlib.sha256()
        self._is_known = False  # that it is of this kind at all

    @property
    def digest(self) -> str:
        return f"sha256:{self._all.hexdigest()}"

    def size_of(self, name: str) -> int:
        """Of the file whose header comes next, which must be of this name."""
        block = self._read(_BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            is_sound = header.size >= 0 and _header(name, header.size) == block
        except (tarfile.TarError, UnicodeDecodeError, ValueError):
            is_sound = False
        if not is_sound and not self._is_known:
            raise UserError(
                Code.FILE_INVALID,
                "This is no revision as `freehold promotion export` writes it (a signed one begins "
                f"with {SIGNATURE}): name another file.",
                param="upload",
            )
        if not is_sound:
            raise refused(f"where {name} should be, there is something else")
        self._is_known = True
        return header.size

    def whole(self, name: str, most: int) -> bytes:
        size = self.size_of(name)
        if size > most:
            raise refused(f"{name} is larger than it can be ({size:,} bytes)")
        content = self._read(size)
        self._padding(size)
        return content

    def laid(self, name: str, target: Path | None, most: int | None) -> str:
        """Writes it where there is a target, and returns its digest."""
        size = self.size_of(name)
        if most is not None and size > most:
            raise refused(f"{name} is larger than it can be ({size:,} bytes)")
        state, left = hashlib.sha256(), size
        with (target or Path(os.devnull)).open("wb" if target is None else "xb") as out:
            while left:
                piece = self._read(min(left, _PIECE))
                state.update(piece)
                out.write(piece)
                left -= len(piece)
        self._padding(size)
        return f"sha256:{state.hexdigest()}"

    def end(self) -> None:
        if self._read(len(_END)) != _END or self._file.read(1):
            raise refused("something follows where it should end")

    def _padding(self, size: int) -> None:
        if self._read(-size % _BLOCK) != bytes(-size % _BLOCK):
            raise refused("something stands between its files")

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise UserError(
                Code.FILE_INVALID,
                "The revision is cut off: copy it again from where it was exported.",
                param="upload",
            )
        self._all.update(content)
        return content


def refused(why: str) -> UserError:
    return UserError(
        Code.FILE_REFUSED,
        f"The revision is not let in: {why}. Nothing was changed; have it exported anew.",
        param="upload",
    )


def _accepted(text: bytes, vouched: Callable[[bytes], Vouched]) -> Vouched:
    try:
        return vouched(text)
    except Unreadable as error:
        raise UserError(
            Code.FILE_REFUSED,
            f"The revision's signature is not accepted: {error}. Nothing was changed.",
            param="upload",
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """What is no plain file (a pipe, say) is never waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            Code.SOURCE_NOT_FOUND, f"{path} cannot be read ({error.strerror}): name a revision."
        ) from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UserError(Code.FILE_REFUSED, f"{path.name} is not a plain file.", param="upload")
        yield file


def _header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
