"""What a backup is made of, while a gateway serves or none does.

The order is what makes it whole: first the journal's lines that the database may not have
yet, then the database as of one moment, then the checkpoints, cut where that moment was.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import freehold
from freehold.catalog.blobs import disk_error
from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.core.audit import Head
from freehold.core.dataset import HELD_OUT, REPORT, TRAIN, Dataset
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.core.model import ModelCard
from freehold.operate.backups import archive
from freehold.secure import audit, checkpoints
from freehold.secure.age import Lock
from freehold.store import journal, snapshot
from freehold.store.snapshot import Snapshot

FORMAT = 1
_FIRST_DAY = "1970-01-01.jsonl"
Told = Callable[[int, int], None]  # done, in all


@dataclass(frozen=True, slots=True)
class Wanted:
    """Without a lock there are no secrets in it."""

    lock: Lock | None
    settings: Path
    include_models: bool = False
    is_elsewhere: bool = False  # the database


@dataclass(frozen=True, slots=True)
class Made:
    path: Path
    size: int
    about: Mapping[str, Any]
    notes: tuple[str, ...]  # what is amiss, in sentences


def default_name(lock: Lock | None, at_s: float) -> str:
    at = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at_s))
    return f"freehold-{at}.tar.gz" + (".age" if lock is not None else "")


def make(home: Home, target: Path, wanted: Wanted, told: Told) -> Made:
    """One new file. Raises `UserError`, and then there is none."""
    if wanted.is_elsewhere:
        raise UserError(
            Code.CONFLICT,
            "The database is on a server: back it up there, with pg_dump as docs/backup.md has it "
            "(row-level security keeps rows from a plain one) or with the server's own backups, "
            f"and {home.path} but for cache/, logs/ and run/ as files.",
        )
    if not home.database.exists():
        raise UserError(
            Code.NOT_FOUND, f"There is no installation in {home.path} that could be backed up."
        )
    with _workplace(home) as folder:
        at_us = time.time_ns() // 1000
        lines = _journal_lines(home, folder)
        snapshot.copy(home.database, folder / "copy.db", lambda *_: None)
        reader = Snapshot(folder / "copy.db")
        try:
            return _packed(_Parts(home, folder, reader, lines, at_us), target, wanted, told)
        finally:
            reader.close()


@contextmanager
def _workplace(home: Home) -> Iterator[Path]:
    """Only in the home may a database lie about in clear. What a killed backup left there
    goes with the next."""
    folder = home.cache / "backup"
    handle = -1
    try:
        home.create()
        handle = os.open(home.run / "backup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        yield folder
    except BlockingIOError:
        raise UserError(
            Code.CONFLICT, "Another backup of this home is being made: wait for its end."
        ) from None
    except OSError as error:
        raise disk_error(error, home.cache) from None
    finally:
        if handle >= 0:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _journal_lines(home: Home, folder: Path) -> list[list[Any]]:
    """The newest segment is copied first: what one of them lacks then, none has."""
    copies = []
    for path in reversed(journal.segments(home.journal)):
        copy = folder / path.name
        try:
            copy.write_bytes(path.read_bytes())
        except FileNotFoundError:  # by now the database has it
            continue
        copies.append(copy)
    return [entry for copy in reversed(copies) for entry in journal.read(copy)]


@dataclass(frozen=True, slots=True)
class _Parts:
    home: Home
    folder: Path
    reader: Snapshot
    lines: list[list[Any]]
    at_us: int

    def open_lines(self) -> bytes:
        """Those of requests that are not settled in the copy. Repeated, the others would
        do nothing, but that a finished claim would look unfinished."""
        places = {"c": 2, "d": 2}
        ids = {line[places.get(line[0], 1)] for line in self.lines}
        done = self.reader.settled(ids)
        kept = (line for line in self.lines if line[places.get(line[0], 1)] not in done)
        return b"".join(map(journal.line, kept))

    def checkpoints(self, heads: Mapping[str, Head]) -> tuple[dict[str, bytes], str | None]:
        """The files as they were when the copy was; a note where they never were so."""
        place = Path(self.reader.fact(self.reader.own("audit_checkpoints")) or "")
        try:
            copies = self._copied(place)
        except OSError:
            note = f"The audit checkpoints {place} are not there: the backup has none."
            return {}, note if heads else None
        whole = {path.name: path.read_bytes() for path in copies}
        try:
            sizes = checkpoints.until(self.folder / "signed", audit.public_key(self.reader), heads)
        except UserError as error:
            return whole, error.message
        if sizes is None:
            note = "The audit records are not as they were signed: see `freehold audit verify`."
            return whole, note
        return {name: whole[name][:size] for name, size in sizes.items()}, None

    def _copied(self, place: Path) -> list[Path]:
        """A single file, as it was in earlier versions, is the first day."""
        folder = self.folder / "signed"
        folder.mkdir()
        for path in checkpoints.days(place):
            name = path.name if place.is_dir() else _FIRST_DAY
            (folder / name).write_bytes(path.read_bytes())
        return sorted(folder.iterdir())


def _packed(parts: _Parts, target: Path, wanted: Wanted, told: Told) -> Made:
    home, reader, notes = parts.home, parts.reader, list[str]()
    models, heads = ModelStore(home.path), reader.audit_heads()
    lines = parts.open_lines()
    signed, note = parts.checkpoints(heads)
    cards = models.list()
    about = _about(parts, heads, wanted, cards)
    blobs = set(reader.files())
    if wanted.include_models:
        blobs |= {file.digest for card in cards for file in card.files}
    paths = {digest: models.blobs.path(digest) for digest in sorted(blobs)}
    total = sum(path.stat().st_size for path in paths.values() if path.exists())
    data = reader.every_dataset()
    evals = _evals(home)
    total += sum(_size(home.path / each.place) for each in data)
    total += (parts.folder / "copy.db").stat().st_size
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        told(done, total)

    with archive.packed(target, wanted.lock, count) as packing:
        packing.add_json(archive.ABOUT, about)
        packing.add_file(archive.DATABASE, parts.folder / "copy.db")
        packing.add_bytes(archive.JOURNAL, lines)
        for name, content in signed.items():
            packing.add_bytes(f"{archive.CHECKPOINTS}/{name}", content)
        forgotten = (
            Path(reader.fact(reader.own("audit_checkpoints")) or "") / Path(archive.FORGOTTEN).name
        )
        if forgotten.is_file():
            packing.add_bytes(archive.FORGOTTEN, forgotten.read_bytes())
        if wanted.settings.is_file():
            packing.add_file(archive.SETTINGS, wanted.settings)
        if wanted.lock is not None:
            _add_secrets(packing, home)
        if wanted.include_models:
            for card in cards:
                name = f"models/{card.name}.json"
                packing.add_file(name, home.path / name)
        missing, spoilt = _add_blobs(packing, paths)
        lost = _add_data(packing, home, data)
        for name in evals:
            with contextlib.suppress(FileNotFoundError):  # an evaluation just ended
                packing.add_file(name, home.path / name)
        packing.end({"missing": missing, "spoilt": spoilt, "lost_data": lost})
    notes += [note] if note else []
    notes += [f"The file {each} is missing in this home." for each in missing]
    notes += [f"The file {each} is spoilt in this home." for each in spoilt]
    notes += [f"The files of {each} are missing or changed in this home." for each in lost]
    return Made(target, target.stat().st_size, about, tuple(notes))


def _about(
    parts: _Parts, heads: Mapping[str, Head], wanted: Wanted, cards: list[ModelCard]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": freehold.__version__,
        "schema": parts.reader.schema(),
        "at_us": parts.at_us,
        "home": str(parts.home.path),
        "has_secrets": wanted.lock is not None,
        "has_models": wanted.include_models,
        "models": [{"name": c.name, "digest": c.digest, "source": c.source} for c in cards],
        "audit_heads": {name: [head.number, head.hash.hex()] for name, head in heads.items()},
    }


def _add_secrets(packing: archive.Packing, home: Home) -> None:
    for path in sorted(home.secrets.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            packing.add_file(f"secrets/{path.name}", path)
    if home.admin_key.is_file():
        packing.add_file(archive.ADMIN_KEY, home.admin_key)


def _add_data(packing: archive.Packing, home: Home, data: Sequence[Dataset]) -> list[str]:
    """Returns the places of those that are missing, or not what their digest says."""
    lost = []
    for place, each in {each.place: each for each in data}.items():
        try:
            digests = {
                name: packing.add_file(f"{archive.place_of(each)}/{name}", home.path / place / name)
                for name in (TRAIN, HELD_OUT, REPORT)
            }
        except FileNotFoundError:
            lost.append(place)
            continue
        if not is_of(digests, each):
            lost.append(place)
    return lost


def is_of(digests: Mapping[str, str], dataset: Dataset) -> bool:
    """Whether files with these digests, by their names, are those of the dataset."""
    files = {name: digests[name] for name in (TRAIN, HELD_OUT) if name in digests}
    return digest_of_files(files) == dataset.digest


def _evals(home: Home) -> list[str]:
    """Results of evaluations, by their names below the home."""
    found = (home.path / "evals").glob("*/*")
    names = (str(path.relative_to(home.path)) for path in found if path.is_file())
    return sorted(name for name in names if archive.is_name(name))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))


def _add_blobs(packing: archive.Packing, paths: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Those that are not there, and those that are not what their name says."""
    missing, spoilt = [], []
    for digest, path in paths.items():
        try:
            found = packing.add_file(f"blobs/sha256/{path.name}", path)
        except FileNotFoundError:
            missing.append(digest)
            continue
        if found != digest:
            spoilt.append(digest)
    return missing, spoilt
