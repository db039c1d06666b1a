"""A file of examples, read as a stream with bounds: JSON lines, CSV, Parquet."""

import csv
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from freehold.core.errors import Code, Fault, UserError
from freehold.engines.child import clean_environment

MAX_LINE = 4 * 1024 * 1024
_GB = 1_000_000_000
_BINARY = {b"PK\x03\x04": "a ZIP or Excel file", b"\x1f\x8b": "compressed", b"%PDF": "a PDF"}
_WIDE = (b"\xff\xfe", b"\xfe\xff")


class Format(StrEnum):
    AUTO = "auto"
    CHAT = "chat"
    PREFERENCE = "preference"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Row:
    """One of the file's: `where` begins sentences about it (`Line 7`)."""

    number: int
    where: str
    value: Any


def rows(path: Path, wanted: Format, max_gb: float) -> Iterator[Row]:
    """All of them, one after the other. Raises `UserError` for a file that is none."""
    size = _size(path)
    if size == 0:
        raise refused(f"{path.name} is empty: write one example a line")
    if size > max_gb * _GB:
        raise UserError(
            Code.REQUEST_TOO_LARGE,
            f"{path.name} has {size / _GB:.1f} GB and `data.max_gb` allows {max_gb:g}: take a "
            "part of it, or raise that setting.",
        )
    with path.open("rb") as file:
        found = _format(file.read(4096), path, wanted)
        if found is Format.PARQUET:
            return _parquet(path, max_gb)
        return _csv(path) if found is Format.CSV else _json_lines(path)


def format_of(name: str) -> Format:
    try:
        return Format(name)
    except ValueError:
        names = ", ".join(Format)
        raise UserError(
            Code.INVALID_VALUE, f"There is no format {name[:40]!r}: use one of {names}."
        ) from None


def is_table(path: Path, wanted: Format) -> bool:
    """Whether its rows have columns instead of examples."""
    if wanted in (Format.CSV, Format.PARQUET):
        return True
    return wanted is Format.AUTO and path.suffix.lower() in (".csv", ".tsv", ".parquet")


def refused(why: str) -> UserError:
    return UserError(Code.FILE_INVALID, f"{why}.")


def _size(path: Path) -> int:
    try:
        about = path.stat()
    except FileNotFoundError:
        raise UserError(
            Code.SOURCE_NOT_FOUND, f"{path} does not exist: name a file of examples."
        ) from None
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{path} cannot be read ({error.strerror}): make it readable."
        ) from None
    if not stat.S_ISREG(about.st_mode):
        raise refused(f"{path} is no plain file: name a file of examples")
    return about.st_size


def _format(head: bytes, path: Path, wanted: Format) -> Format:
    suffix = path.suffix.lower()
    is_parquet = head[:4] == b"PAR1"
    if is_parquet:
        if wanted not in (Format.AUTO, Format.PARQUET):
            raise refused(f"{path.name} is a Parquet file, not {wanted}: use `--format parquet`")
        return Format.PARQUET
    for start, name in _BINARY.items():
        if head.startswith(start):
            raise refused(f"{path.name} is {name}: unpack or save it as JSON lines, CSV or Parquet")
    if head.startswith(_WIDE):
        raise refused(f"{path.name} is written in UTF-16: save it as UTF-8")
    if wanted is Format.PARQUET or (wanted is Format.AUTO and suffix == ".parquet"):
        raise refused(f"{path.name} is no Parquet file: say what it is with `--format`")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise refused(f"{path.name} begins with blank lines alone: write one example a line")
    if start.startswith(b"["):
        raise refused(
            f"{path.name} is one JSON list: write one example a line "
            "(`jq -c '.[]' FILE > examples.jsonl` does)"
        )
    looks_json = start.startswith(b"{")
    is_csv = wanted is Format.CSV or (wanted is Format.AUTO and suffix in (".csv", ".tsv"))
    if is_csv and looks_json:
        raise refused(f"{path.name} holds JSON lines, not CSV: use `--format chat` or `preference`")
    if wanted is Format.AUTO and not is_csv and not looks_json:
        raise refused(
            f"{path.name} is neither JSON lines nor Parquet: if it is CSV, use `--format csv`"
        )
    return Format.CSV if is_csv else Format.CHAT


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise refused(f"Line {number} is longer than 4 MiB: write one example a line")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            raise refused(f"Line {number} holds zero bytes: it is not text in UTF-8")
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise refused(
                f"Line {number} is not UTF-8 from byte {error.start + 1} on: save the file as UTF-8"
            ) from None


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in _lines(file):
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                raise refused(
                    f"Line {number} is not valid JSON: write one whole example a line"
                ) from None
            _check_characters(f"Line {number}", line, value)
            yield Row(number, f"Line {number}", value)


def _check_characters(where: str, line: str, value: Any) -> None:
    """JSON can name halves of characters, which no UTF-8 holds."""
    if "\\ud" in line.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise refused(
                f"{where} holds half of a character (such as \\ud83d alone): write it whole"
            ) from None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    with path.open("rb") as file:
        lines = _lines(file)
        first = next(lines)[1]
        delimiter = max(",;\t|", key=first.count)
        reader = csv.reader(_with(first, lines), delimiter=delimiter, strict=True)
        try:
            columns = [each.strip() for each in next(reader)]
            if len(set(columns)) < len(columns):
                raise refused(f"{path.name} has two columns of one name: rename one")
            for row in reader:
                if not any(each.strip() for each in row):
                    continue
                where = f"Line {reader.line_num}"
                if len(row) != len(columns):
                    raise refused(
                        f"{where} has {len(row)} columns where the first line has {len(columns)}"
                    )
                yield Row(reader.line_num, where, dict(zip(columns, row, strict=True)))
        except csv.Error as error:
            raise refused(
                f"Line {reader.line_num} is not valid CSV ({error}): close its quotes"
            ) from None


def _with(first: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    yield first
    for _, line in lines:
        yield line


def _parquet(path: Path, max_gb: float) -> Iterator[Row]:
    """By a process of its own: see `parquet.py`."""
    module = "freehold.adapt.dataset.parquet"
    with subprocess.Popen(
        [sys.executable, "-I", "-m", module, str(path.absolute()), repr(max_gb)],
        env={**clean_environment(), "ARROW_DEFAULT_MEMORY_POOL": "system"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield from _said_by(process, path)
        finally:
            process.kill()


def _said_by(process: "subprocess.Popen[bytes]", path: Path) -> Iterator[Row]:
    if process.stdout is None:
        raise Fault("a process without the pipe that it was started with")
    for number, line in enumerate(process.stdout, 1):
        if not line.endswith(b"\n"):  # it died
            break
        value = json.loads(line)
        if isinstance(value, list):
            code, message = value
            raise UserError(Code(code), message)
        yield Row(number, f"Row {number}", value)
    if process.wait():
        from freehold.adapt.dataset.parquet import too_large

        raise too_large(path)
