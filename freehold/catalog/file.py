"""Models from a file or a folder of this machine."""

import os
import shutil
from pathlib import Path

from freehold.catalog import admit
from freehold.catalog.fetched import Fetched, Progress
from freehold.core.errors import Code, UserError

_PIECE = 1024 * 1024


def fetch(rest: str, into: Path, progress: Progress, _size_bytes: int) -> Fetched:
    """`/path`: copied, so that the original may change or go. A path that is given
    may be a link; links inside a folder are refused."""
    source = Path(rest.removeprefix("//")).expanduser()
    if not source.exists():
        raise UserError(Code.SOURCE_NOT_FOUND, f"{source} does not exist: check the path.")
    name, source = source.name, source.resolve()
    shutil.rmtree(into)
    into.mkdir(mode=0o700)
    if source.is_file():
        admit.choose([name])
        _copy(source, into / name, progress)
        return Fetched()
    found = [path for path in source.rglob("*") if path.is_symlink() or not path.is_dir()]
    wanted = admit.choose(path.relative_to(source).as_posix() for path in found)
    for relative in wanted:
        if (source / relative).is_symlink() or not (source / relative).is_file():
            raise UserError(
                Code.FILE_REFUSED, f"{relative} is not a plain file: nothing was stored."
            )
        (into / relative).parent.mkdir(parents=True, exist_ok=True)
        _copy(source / relative, into / relative, progress)
    return Fetched()


def _copy(source: Path, target: Path, progress: Progress) -> None:
    with source.open("rb") as original, target.open("xb") as copy:
        total, done = os.fstat(original.fileno()).st_size, 0
        while piece := original.read(_PIECE):
            copy.write(piece)
            done += len(piece)
            progress(f"Copying {source.name}", done, total)
