"""A backup looked through, or put back: beside the home first, and under its name only when
all of it is as it was made."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from freehold.catalog.blobs import disk_error
from freehold.catalog.store import ModelStore
from freehold.config.home import Home, write_private
from freehold.core.errors import Code, UserError
from freehold.core.event import Event, Happening, Kind
from freehold.core.ids import new_id
from freehold.operate.backups import archive
from freehold.operate.backups.backup import FORMAT, is_of
from freehold.secure import audit
from freehold.secure.age import Opener
from freehold.secure.keys import pepper_check
from freehold.store import snapshot
from freehold.store.snapshot import Snapshot

Told = Callable[[int], None]
_OURS = frozenset({"pepper", "audit"})


@dataclass(frozen=True, slots=True)
class Verified:
    about: Mapping[str, Any]
    files: int
    records: int  # of the audit trail, all sound
    missing: tuple[str, ...]  # files that the home lacked when the backup was made


@dataclass(frozen=True, slots=True)
class Restored:
    about: Mapping[str, Any]
    aside: Path | None  # where the home of before is now
    kept_ends: int | None  # keys and tenants that had ended since; None: nobody knows
    lacks_secrets: bool
    models: tuple[str, ...]  # that must be pulled again


def verify(path: Path, opener: Opener | None, scratch: Path | None, told: Told) -> Verified:
    """Changes nothing. Raises `UserError` for the first thing that is not as it was made. The
    database lies in `scratch` meanwhile, in clear."""
    with tempfile.TemporaryDirectory(prefix="verify-", dir=scratch) as folder:
        return _checked(path, opener, Path(folder), _needed, told)[1]


def restore(
    path: Path, opener: Opener | None, home: Home, *, replace: bool, told: Told
) -> Restored:
    """Raises `UserError`, and then everything is as it was."""
    _check_place(home, replace)
    beside = home.path.with_name(f".{home.path.name}.restoring-{os.getpid()}")
    try:
        home.path.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir(mode=0o700)
        try:
            with _resting(home):
                return _put_back(path, opener, home, Home(beside), told)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise disk_error(error, home.path) from None


def _check_place(home: Home, replace: bool) -> None:
    if home.path.is_dir() and any(home.path.iterdir()) and not replace:
        raise UserError(
            Code.CONFLICT,
            f"{home.path} is not empty: name another folder by --home, or --replace it; what is "
            "there is moved aside.",
        )


@contextmanager
def _resting(home: Home) -> Iterator[None]:
    """Holds the lock of a home that is there, so that nothing begins to write it."""
    if not home.database.exists():
        yield
        return
    with home.lock():
        yield


def _put_back(path: Path, opener: Opener | None, home: Home, new: Home, told: Told) -> Restored:
    unpacked, verified = _checked(path, opener, new.path, _everything, told)
    new.create()
    _place_data(new)
    for name, content in unpacked.small.items():
        write_private(new.path / name, content)
    lacks = _take_secrets(home, new) if not unpacked.about["has_secrets"] else False
    later = snapshot.ended(home.database) if home.database.exists() else None
    kept = snapshot.prepare(new.database, _facts(home), later, _event(verified.about))
    _keep_forgotten(home, new)
    lacking = _take_models(home, new, verified.about)
    aside = _exchange(home, new)
    return Restored(verified.about, aside, None if later is None else kept, lacks, tuple(lacking))


def _place_data(new: Home) -> None:
    reader = Snapshot(new.database)
    try:
        stored = reader.every_dataset()
    finally:
        reader.close()
    for each in stored:
        if (new.path / archive.place_of(each)).is_dir():
            (new.path / archive.place_of(each)).rename(new.path / each.place)


def _keep_forgotten(home: Home, new: Home) -> None:
    """Whoever was forgotten since stays so: each start goes by this list."""
    with contextlib.suppress(OSError):
        later, known = (home.path / archive.FORGOTTEN).read_bytes(), b""
        with contextlib.suppress(FileNotFoundError):
            known = (new.path / archive.FORGOTTEN).read_bytes()
        if later.startswith(known):
            write_private(new.path / archive.FORGOTTEN, later)


def _event(about: Mapping[str, Any]) -> Event:
    at_us = int(about["at_us"])
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_us / 1e6))
    text = f"The installation was restored as it was at {at} UTC: what came later is lost."
    what = Happening(Kind.RESTORED, text, details={"at_us": at_us})
    return Event(new_id("evt"), time.time_ns() // 1000, what.severity, what)


def _facts(home: Home) -> dict[str, str]:
    return {"audit_checkpoints": str(home.path / archive.CHECKPOINTS)}


def _exchange(home: Home, new: Home) -> Path | None:
    """The old home gets another name before the new one gets its."""
    for folder in (new.path / "blobs").glob("sha256/*"):
        folder.chmod(0o400)
    aside = None
    if home.path.is_dir() and any(home.path.iterdir()):
        at = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        aside = home.path.with_name(f"{home.path.name}.before-{at}")
        home.path.rename(aside)
    try:
        new.path.rename(home.path)
    except OSError:
        if aside is not None:
            aside.rename(home.path)
        raise
    handle = os.open(home.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return aside


def _take_secrets(home: Home, new: Home) -> bool:
    """Those of the home of before, where they are the ones that the database was made with.
    Whether some are lacking."""
    reader = Snapshot(new.database)
    try:
        facts = {name: reader.fact(name) for name in ("pepper_check", "audit_key")}
    finally:
        reader.close()
    with contextlib.suppress(OSError):
        found = {path.name: path.read_bytes() for path in home.secrets.iterdir() if path.is_file()}
        if found.keys() >= _OURS and _fit(found, facts):
            for name, content in found.items():
                write_private(new.secrets / name, content)
            return False
    return True


def _fit(secrets: Mapping[str, bytes], facts: Mapping[str, str | None]) -> bool:
    pepper, seed = secrets.get("pepper", b""), secrets.get("audit", b"")
    if len(seed) != 32:
        return False
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
    return pepper_check(pepper) == facts["pepper_check"] and public == facts["audit_key"]


def _take_models(home: Home, new: Home, about: Mapping[str, Any]) -> list[str]:
    """What the backup does not hold is taken from the home of before, by another name of the
    same file. Returns the models that must be pulled."""
    if about["has_models"]:
        return []
    lacking, cards = [], ModelStore(home.path)
    (new.path / "models").mkdir(mode=0o700, exist_ok=True)
    _link_all(home.path / "blobs" / "sha256", new.path / "blobs" / "sha256")
    for model in about["models"]:
        name = str(model["name"])
        if cards.find(name) is None:
            lacking.append(name)
        else:
            shutil.copy(home.path / "models" / f"{name}.json", new.path / "models")
    return lacking


def _link_all(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in source.iterdir() if source.is_dir() else ():
        if path.is_file() and not (target / path.name).exists():
            try:
                os.link(path, target / path.name)
            except OSError:  # another disk
                shutil.copy(path, target / path.name)


def _needed(name: str) -> bool:
    return name == archive.DATABASE or name.startswith(archive.CHECKPOINTS)


def _everything(name: str) -> bool:
    return True


def _checked(
    path: Path, opener: Opener | None, folder: Path, is_wanted: Callable[[str], bool], told: Told
) -> tuple[archive.Unpacked, Verified]:
    """Unpacks what is wanted into the folder, and checks that all of it fits together."""
    found = archive.unpack(
        path, opener, lambda name: folder / name if is_wanted(name) else None, told
    )
    about = found.about
    if about.get("format") != FORMAT:
        raise UserError(
            Code.FILE_INVALID,
            f"The backup has the format {about.get('format')!r}, which this Freehold does not "
            "know: restore it with the version that made it.",
        )
    if not {"has_secrets", "has_models", "models", "at_us", "audit_heads"} <= about.keys():
        raise archive.damaged()
    spoilt = _not_as_named(found)
    if sorted(spoilt) != sorted(found.manifest.get("spoilt", ())):
        raise archive.damaged()
    for digest in spoilt:
        (folder / "blobs" / "sha256" / digest[7:]).unlink(missing_ok=True)
    records = _check_database(folder, found)
    lost = found.manifest.get("lost_data", ())
    missing = (*found.manifest.get("missing", ()), *spoilt, *lost)
    return found, Verified(about, len(found.digests) - 2, records, tuple(map(str, missing)))


def _not_as_named(found: archive.Unpacked) -> list[str]:
    """Files that are not what their digest says: spoilt before the backup was made."""
    blobs = ((n.removeprefix("blobs/sha256/"), d) for n, d in found.digests.items() if "256/" in n)
    return [f"sha256:{name}" for name, digest in blobs if name != digest]


def _lost(found: archive.Unpacked, reader: Snapshot) -> Iterator[str]:
    """The places of datasets whose files are not in it as they were added; a backup from
    before there were any of them holds none."""
    if "lost_data" not in found.manifest:
        return
    places = {each.place: each for each in reader.every_dataset()}
    for place, dataset in places.items():
        digests = {
            name.rpartition("/")[2]: f"sha256:{digest}"
            for name, digest in found.digests.items()
            if name.startswith(f"{archive.place_of(dataset)}/")
        }
        if not is_of(digests, dataset):
            yield place


def _check_database(folder: Path, found: archive.Unpacked) -> int:
    """Returns how many audit records are sound."""
    database = folder / archive.DATABASE
    if not database.exists():
        raise archive.damaged()
    reader = Snapshot(database)
    try:
        problem = reader.problem()
        if problem is not None:
            why = f"The database in the backup is damaged ({problem}): take another copy of it."
            raise UserError(Code.FILE_INVALID, why)
        reader.schema()
        heads = {
            name: [head.number, head.hash.hex()] for name, head in reader.audit_heads().items()
        }
        if heads != found.about["audit_heads"]:
            raise UserError(Code.AUDIT_BROKEN, "The audit records are not those of the backup.")
        if sorted(_lost(found, reader)) != sorted(found.manifest.get("lost_data", ())):
            raise archive.damaged()
        if found.about["has_secrets"]:
            small = {name.partition("/")[2]: each for name, each in found.small.items()}
            if not _fit(small, {n: reader.fact(n) for n in ("pepper_check", "audit_key")}):
                raise UserError(
                    Code.FILE_INVALID, "The secrets in the backup are not those of its database."
                )
        (folder / archive.CHECKPOINTS).mkdir(mode=0o700, parents=True, exist_ok=True)
        counts, findings = audit.verified(
            reader, folder / archive.CHECKPOINTS, audit.public_key(reader)
        )
    finally:
        reader.close()
    if findings:
        first = findings[0]
        raise UserError(
            Code.AUDIT_BROKEN,
            f"Record {first.number} of {first.stream} in the backup {first.what}.",
        )
    return sum(counts.values())
