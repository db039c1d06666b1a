"""A Parquet file's rows as JSON lines, in a process of its own with bounded memory: what such a
file says of itself may be wrong, and one small page unpacks to whatever it likes.

`python -m freehold.adapt.dataset.parquet FILE MAX_GB` writes a row a line, and in the end, where
it must, a list of code and sentence that says why no more come.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from freehold.adapt.dataset.source import MAX_LINE, refused
from freehold.core.errors import Code, UserError

MOST_MEMORY = 2 * 1024**3
_GB = 1_000_000_000
_BATCH = 64
_BUFFER = 1024 * 1024
_LEAST_ROW = 40  # bytes, of an example as a line


def lines(path: Path, max_gb: float) -> Iterator[bytes]:
    """Raises `UserError`."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            Code.NOT_INSTALLED,
            "Parquet files need a library that is not installed: install `freehold[data]`.",
        ) from None
    try:
        with parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            _check_said(path, file.metadata, max_gb)
            yield from _checked(path, _rows(file), max_gb)
    except MemoryError:  # pyarrow's own is one, and an `ArrowException` too
        raise too_large(path) from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise refused(f"{path.name} is a broken Parquet file ({said}): write it anew") from None


def too_large(path: Path) -> UserError:
    return UserError(
        Code.REQUEST_TOO_LARGE,
        f"{path.name} unpacks to more than {MOST_MEMORY // 1024**3} GiB at once, or breaks what "
        "reads it: write it anew as Parquet with smaller values, or as JSON lines.",
    )


def _check_said(path: Path, about: Any, max_gb: float) -> None:
    """By what it says of itself, before any of it is read."""
    size = sum(about.row_group(each).total_byte_size for each in range(about.num_row_groups))
    if size > max_gb * _GB or about.num_rows * _LEAST_ROW > max_gb * _GB:
        raise UserError(
            Code.REQUEST_TOO_LARGE,
            f"{path.name} unpacks to {about.num_rows:,} rows of {size / _GB:.1f} GB and "
            f"`data.max_gb` allows {max_gb:g}: take a part of it, or raise that setting.",
        )


def _rows(file: Any) -> Iterator[Any]:
    for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
        yield from batch.to_pylist()


def _checked(path: Path, rows: Iterator[Any], max_gb: float) -> Iterator[bytes]:
    left = max_gb * _GB
    for number, value in enumerate(rows, 1):
        line = json.dumps(_without_nulls(value), ensure_ascii=False, default=str).encode()
        if len(line) > MAX_LINE:
            raise refused(f"Row {number} is longer than 4 MiB: write one example a row")
        left -= len(line)
        if left < 0:
            raise UserError(
                Code.REQUEST_TOO_LARGE,
                f"{path.name} unpacks to more than the {max_gb:g} GB that `data.max_gb` allows: "
                "take a part of it, or raise that setting.",
            )
        yield line


def _without_nulls(value: Any) -> Any:
    """Columns of structures have every field in every row."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    out, path = sys.stdout.buffer, Path(sys.argv[1])
    try:
        try:
            for line in lines(path, float(sys.argv[2])):
                out.write(line + b"\n")
        except UserError as error:
            out.write(json.dumps([error.code.value, error.message]).encode() + b"\n")
        out.flush()
    except BrokenPipeError:  # whoever reads has enough
        os._exit(1)


if __name__ == "__main__":
    main()
