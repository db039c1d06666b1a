"""A tenant's own copy of a model's files: no other process reads or maps them."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from freehold.catalog.blobs import disk_error


def own_cache(cache: Path, tenant_id: str) -> Path:
    """What only this tenant's engines use; can always be made again."""
    return cache / "tenants" / tenant_id


def copied(files: Mapping[str, Path], main: Path, folder: Path) -> Path:
    """Copies what is missing, byte for byte and whole or not at all, under the names that
    the files have; returns where the main one lies. The engine hashes what it loads, so
    that a copy that went wrong is noticed. Raises `DISK_FULL`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for source in files.values():
            _copy(source, folder / source.name)
    except OSError as error:
        raise disk_error(error, folder) from None
    return folder / main.name


def forget_others(cache: Path, tenant_ids: Collection[str]) -> None:
    """Removes what a process that was killed has left of other tenants."""
    folder = cache / "tenants"
    for each in folder.iterdir() if folder.exists() else ():
        if each.name not in tenant_ids:
            shutil.rmtree(each, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    temporary = target.with_name(f".{target.name}.part")
    try:
        with source.open("rb") as original, temporary.open("wb") as copy:
            # Not by the file system, which might let both share their blocks.
            shutil.copyfileobj(original, copy, 1024 * 1024)
            copy.flush()
            os.fchmod(copy.fileno(), 0o400)
            os.fsync(copy.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
