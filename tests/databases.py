"""SQLite files with the tables of this version, copied: the steps to them take longer than
most tests do."""

import functools
import tempfile
from pathlib import Path

from freehold.store.sql import SqlStore


def stock(path: Path) -> Path:
    """A database that nothing was written to; one that is there already stays."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(_made())
    return path


@functools.cache
def _made() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "freehold.db"
        SqlStore(file).close()
        return file.read_bytes()
