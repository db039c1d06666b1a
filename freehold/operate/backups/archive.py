"""A backup as a file: `about.json`, then files, then `manifest.json` with the digest of each,
in a gzipped tar, encrypted as `age` does it or not at all.

Any tar opens it. Read here, it holds plain files of the names that a backup has and nothing
else: no links, devices, folders or paths that lead elsewhere.
"""

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import orjson

from freehold.catalog.blobs import disk_error
from freehold.core.dataset import Dataset
from freehold.core.errors import Code, UserError
from freehold.secure.age import INTRO, Lock, Locked, Opened, Opener

ABOUT, MANIFEST = "about.json", "manifest.json"
DATABASE, SETTINGS, JOURNAL = "freehold.db", "freehold.yaml", "journal/000000000001.journal"
CHECKPOINTS, ADMIN_KEY = "audit/checkpoints", "admin.key"
FORGOTTEN = f"{CHECKPOINTS}/forgotten.jsonl"  # a list that is only added to
Told = Callable[[int], None]  # bytes since the last time
_NAME = re.compile(
    r"about\.json|manifest\.json|freehold\.db|freehold\.dump|freehold\.yaml|admin\.key"
    r"|journal/0{11}1\.journal|audit/checkpoints/([0-9]{4}-[0-9]{2}-[0-9]{2}|forgotten)\.jsonl"
    r"|secrets/[a-z0-9][a-z0-9._-]{0,63}"
    r"|data/[A-Za-z0-9_-]{1,64}/(dev|staging|prod)/[0-9a-f]{32}/"
    r"(train\.jsonl|held_out\.jsonl|report\.json)"
    r"|evals/[A-Za-z0-9][A-Za-z0-9@._-]{0,199}/[A-Za-z0-9][A-Za-z0-9@._-]{0,99}"
    r"|blobs/sha256/[0-9a-f]{64}|models/[a-z0-9][a-z0-9._-]{0,99}\.json"
)
_IN_MEMORY = re.compile(r"about\.json|manifest\.json|admin\.key|secrets/.+")
_MOST_CHARACTERS = 100
_MOST_IN_MEMORY = 64 * 1024 * 1024
_BLOCK, _PIECE = tarfile.BLOCKSIZE, 1024 * 1024
# As it is written here; its checksum does not cover it.
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"


def is_name(name: str) -> bool:
    """Whether a backup may hold a file of that name."""
    return len(name) <= _MOST_CHARACTERS and _NAME.fullmatch(name) is not None


def place_of(dataset: Dataset) -> str:
    """Of its files in a backup: half of the digest, as a name in a tar is of limited length."""
    return dataset.place[:-32]


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Packing:
    """The file as it is written. Nobody sees it under its name before `packed` has ended."""

    def __init__(self, target: BinaryIO, told: Told) -> None:
        self._target = target
        self._told = told
        self.digests: dict[str, str] = {}

    def add(self, name: str, source: Readable, size: int) -> str:
        """Returns the digest of what was read. Raises `UserError` when that is not as much
        as was said."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o600
        self._target.write(header.tobuf(tarfile.GNU_FORMAT))
        state, left = hashlib.sha256(), size
        while left and (piece := source.read(min(left, _PIECE))):
            state.update(piece)
            self._target.write(piece)
            left -= len(piece)
            self._told(len(piece))
        if left:
            raise UserError(
                Code.CONFLICT, f"{name} became shorter while it was read: try the backup again."
            )
        self._target.write(bytes(-size % _BLOCK))
        self.digests[name] = state.hexdigest()
        return f"sha256:{state.hexdigest()}"

    def add_bytes(self, name: str, content: bytes) -> None:
        self.add(name, _Bytes(content), len(content))

    def add_file(self, name: str, path: Path) -> str:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            return self.add(name, file, os.fstat(handle).st_size)

    def add_json(self, name: str, content: Mapping[str, Any]) -> None:
        self.add_bytes(name, orjson.dumps(content, option=orjson.OPT_SORT_KEYS))

    def end(self, facts: Mapping[str, Any]) -> None:
        self.add_json(MANIFEST, {**facts, "files": self.digests})
        self._target.write(bytes(2 * _BLOCK))


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int = -1, /) -> bytes:
        part = self._content if size < 0 else self._content[:size]
        self._content = self._content[len(part) :]
        return part


@contextmanager
def packed(path: Path, lock: Lock | None, told: Told) -> Iterator[Packing]:
    """A new file with mode 0600: whole and on the disk when the block ended well, and else
    not there. Raises `UserError`, for a name that is taken too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            raise UserError(Code.CONFLICT, f"{path} is there already: name another file.")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            locked = Locked(file, lock) if lock is not None else None
            target = cast(BinaryIO, locked or file)
            # Weights do not get smaller, and the rest does at the first level too.
            with gzip.GzipFile("", "wb", 1, target, mtime=0) as content:
                yield Packing(cast(BinaryIO, content), told)
            if locked is not None:
                locked.close()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise disk_error(error, path.parent) from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(slots=True)
class Unpacked:
    about: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)  # secrets, which go to no disk here
    digests: dict[str, str] = field(default_factory=dict)


def is_locked(path: Path) -> bool:
    """Raises `UserError` for what is no backup."""
    with _opened(path) as file:
        begin = file.read(len(INTRO))
    if not begin.startswith(_GZIP[:2]) and begin != INTRO:
        raise UserError(Code.FILE_INVALID, f"{path} is no backup of Freehold: name another file.")
    return begin == INTRO


def about(path: Path) -> dict[str, Any]:
    """What the beginning of a file that is not encrypted says of it."""
    with _readable(path, None) as source:
        name, size = next(_entries(source), ("", 0))
        if name != ABOUT:
            raise damaged()
        return _json(_whole(source, size))


def unpack(
    path: Path, opener: Opener | None, place: Callable[[str], Path | None], told: Told
) -> Unpacked:
    """Reads all of it, holds each file against its digest, and writes those that `place`
    names a path for. Raises `UserError(FILE_INVALID)` at the first that is not as it was."""
    found = Unpacked()
    with _readable(path, opener) as source:
        for name, size in _entries(source):
            if (name == ABOUT) is not (not found.digests) or name in found.digests:
                raise damaged()
            if found.manifest:
                raise damaged()
            if _IN_MEMORY.fullmatch(name):
                content = _whole(source, size)
                found.digests[name] = hashlib.sha256(content).hexdigest()
                _take(found, name, content)
            else:
                found.digests[name] = _laid(source, size, place(name), told)
        if source.read(1):  # and with the end comes the checksum of all
            raise damaged()
    listed = found.manifest.get("files")
    if listed != {name: digest for name, digest in found.digests.items() if name != MANIFEST}:
        raise damaged()
    return found


def _take(found: Unpacked, name: str, content: bytes) -> None:
    if name == ABOUT:
        found.about = _json(content)
    elif name == MANIFEST:
        found.manifest = _json(content)
    else:
        found.small[name] = content


@contextmanager
def _readable(path: Path, opener: Opener | None) -> Iterator[Readable]:
    """The tar in it. All that can be wrong with it is said in one sentence."""
    if is_locked(path) and opener is None:
        raise UserError(
            Code.INVALID_VALUE,
            f"{path.name} is encrypted: name what opens it by --passphrase-file or --identity.",
        )
    with _opened(path) as file:
        is_open = opener is None or not is_locked(path)
        if is_open and file.read(len(_GZIP)) != _GZIP:
            raise damaged()
        file.seek(0)
        source = file if opener is None or is_open else cast(BinaryIO, Opened(file, opener))
        try:
            with gzip.GzipFile(fileobj=source, mode="rb") as content:
                yield content
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise damaged() from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            Code.SOURCE_NOT_FOUND, f"{path} cannot be read ({error.strerror}): name a backup."
        ) from None
    with file:
        yield file


def _entries(source: Readable) -> Iterator[tuple[str, int]]:
    """Name and size of each file; its content must be read before the next one."""
    while True:
        block = source.read(_BLOCK)
        if block == bytes(_BLOCK):
            if source.read(_BLOCK) != bytes(_BLOCK):
                raise damaged()
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise damaged() from None
        if header.type != tarfile.REGTYPE or not _NAME.fullmatch(header.name) or header.size < 0:
            raise UserError(
                Code.FILE_REFUSED,
                f"The backup holds {header.name[:80]!r}, which none of ours does: nothing was "
                "changed.",
            )
        yield header.name, header.size
        padding = -header.size % _BLOCK
        if source.read(padding) != bytes(padding):
            raise damaged()


def _whole(source: Readable, size: int) -> bytes:
    if size > _MOST_IN_MEMORY:
        raise damaged()
    content = source.read(size)
    if len(content) < size:
        raise damaged()
    return content


def _laid(source: Readable, size: int, target: Path | None, told: Told) -> str:
    """The digest of what was read and, where there is a target, written."""
    state, left = hashlib.sha256(), size
    if target is not None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(os.devnull, os.O_WRONLY) if target is None else os.open(target, flags, 0o600)
    with os.fdopen(handle, "wb") as file:
        while left:
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise damaged()
            state.update(piece)
            file.write(piece)
            left -= len(piece)
            told(len(piece))
        file.flush()
        if target is not None:
            os.fsync(file.fileno())
    return state.hexdigest()


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise damaged() from None
    if not isinstance(found, dict):
        raise damaged()
    return found


def damaged() -> UserError:
    return UserError(
        Code.FILE_INVALID,
        "The backup is damaged or cut off: nothing was changed; take another copy of it.",
    )
