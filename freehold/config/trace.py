"""Recorded requests: JSON lines, or the CSV of Azure's public traces of LLM inference."""

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from freehold.core.errors import Code, UserError

_AZURE = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_FIELDS = frozenset({"timestamp", "prompt_tokens", "answer_tokens", "tenant", "adapter"})
_LONGEST_LINE = 64 * 1024
_MOST_TOKENS = 10_000_000

Row = tuple[float, int, int, object]  # when, tokens of prompt and answer, whose adapter


class Trace(NamedTuple):
    """By time of arrival, from 0. `adapter` is a number for each, -1 for none."""

    at_s: NDArray[np.float64]
    prompt: NDArray[np.int64]
    answer: NDArray[np.int64]
    adapter: NDArray[np.int64]
    span_s: float
    starts_at_s: float  # since 1970, UTC


def read_trace(path: Path) -> Trace:
    """A CSV by its first line, else JSON lines. Raises `UserError(FILE_INVALID)` with the line
    of what is wrong."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline(_LONGEST_LINE)
            is_azure = next(csv.reader([first.removeprefix("\ufeff")]), []) == _AZURE
            file.seek(0)
            return trace_of(_azure(path, file) if is_azure else _json_lines(path, file), str(path))
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{path} cannot be read ({error.strerror}): name a file that can."
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            Code.FILE_INVALID, f"{path} is not text in UTF-8: name a trace in JSON lines or CSV."
        ) from None


def trace_of(rows: Iterable[Row], origin: str) -> Trace:
    """Sorted, and counted from the first. Of two requests or more, as one has no rate."""
    at, prompt, answer, adapters = [], [], [], []
    numbers: dict[object, int] = {None: -1}
    for when, tokens_in, tokens_out, adapter in rows:
        at.append(when)
        # Something was read and written, also where nothing was counted.
        prompt.append(max(tokens_in, 1))
        answer.append(max(tokens_out, 1))
        adapters.append(numbers.setdefault(adapter, len(numbers) - 1))
    if len(at) < 2 or max(at) == min(at):
        raise UserError(
            Code.FILE_INVALID,
            f"{origin} has no two requests at different times: traffic cannot be read from it.",
        )
    times = np.array(at, dtype=np.float64)
    order = np.argsort(times, kind="stable")
    times = times[order] - times[order[0]]
    return Trace(
        times,
        np.array(prompt, dtype=np.int64)[order],
        np.array(answer, dtype=np.int64)[order],
        np.array(adapters, dtype=np.int64)[order],
        # As long again as from one to the next, on average: the last one's own part.
        float(times[-1]) * len(at) / (len(at) - 1),
        min(at),
    )


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise _refused(
                path, number, "this is neither a JSON object nor a line of Azure's CSV"
            ) from None
        if not isinstance(found, dict):
            raise _refused(path, number, "each line must be a JSON object")
        unknown = sorted(found.keys() - _FIELDS)
        if unknown:
            known = ", ".join(sorted(_FIELDS))
            raise _refused(path, number, f"{unknown[0][:40]!r} is no field; there are {known}")
        adapter = found.get("adapter")
        yield (
            _when(path, number, found.get("timestamp")),
            _tokens(path, number, "prompt_tokens", found.get("prompt_tokens")),
            _tokens(path, number, "answer_tokens", found.get("answer_tokens")),
            # Two tenants' adapters of one name are two.
            None if adapter is None else (str(found.get("tenant")), str(adapter)),
        )


def _azure(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    reader = csv.reader(lines)
    next(reader)
    for fields in reader:
        if not fields:
            continue
        if len(fields) != len(_AZURE):
            raise _refused(path, reader.line_num, f"there must be {len(_AZURE)} fields")
        yield (
            _when(path, reader.line_num, fields[0]),
            _tokens(path, reader.line_num, _AZURE[1], fields[1]),
            _tokens(path, reader.line_num, _AZURE[2], fields[2]),
            None,
        )


def _when(path: Path, line: int, value: Any) -> float:
    """Seconds since 1970, or a time as ISO 8601 has it, in UTC where it says no zone."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11:
        return float(value)
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _refused(
            path, line, "the timestamp must be 2026-03-01T12:00:00Z, say, or seconds since 1970"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _tokens(path: Path, line: int, name: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
        return value
    raise _refused(path, line, f"{name} must be a whole number of tokens, 0 to {_MOST_TOKENS:,}")


def _refused(path: Path, line: int, why: str) -> UserError:
    return UserError(Code.FILE_INVALID, f"{path}, line {line}: {why}.")
