"""A stored model's files, as the processes are told of them: `--file=NAME=PATH` each."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from freehold.core.ids import digest_of_files


def by_name(told: Iterable[str]) -> dict[str, Path]:
    parts = (each.partition("=") for each in told)
    return {name: Path(path) for name, _, path in parts}


def digest(files: Mapping[str, Path]) -> str:
    """Of what the files hold now. A model of one file has that file's own."""
    found = {}
    for name, path in files.items():
        with path.open("rb") as file:
            found[name] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return next(iter(found.values())) if len(found) == 1 else digest_of_files(found)
