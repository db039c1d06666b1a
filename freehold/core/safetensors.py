"""A strict reader of safetensors headers, run before anything else reads the file.
Format: https://github.com/huggingface/safetensors#format"""

import io
import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freehold.core.errors import Code, UserError

# A tensor takes about 130 bytes and seven marks: room for 30,000 in one file, while
# the parsed header of a hostile file stays small.
_MAX_HEADER_BYTES, _MAX_MARKS = 4 * 1024 * 1024, 400_000
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "F4": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """`begin` and `end` count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors in file order. Raises `UserError(FILE_INVALID)` unless they fill the
    file exactly: no overlap, no hole, nothing behind."""
    with path.open("rb") as file:
        return _header(file, path.name, os.fstat(file.fileno()).st_size)


def header_of(content: bytes, name: str) -> tuple[Tensor, ...]:
    """The same for a file that is in memory already; `name` is for the error."""
    return _header(io.BytesIO(content), name, len(content))


def _header(file: BinaryIO, file_name: str, size: int) -> tuple[Tensor, ...]:
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        raise _invalid(file_name, "its header has an impossible length")
    start = 8 + length
    header = _parsed(file_name, file.read(length))
    _check_metadata(file_name, header.pop("__metadata__", {}))
    if not header:
        raise _invalid(file_name, "it holds no tensors")
    tensors = sorted(
        (_tensor(file_name, name, entry, start) for name, entry in header.items()),
        key=lambda tensor: (tensor.begin, tensor.end),
    )
    at = start
    for tensor in tensors:
        if tensor.begin != at:
            raise _invalid(file_name, f"the tensor {tensor.name[:60]!r} leaves a hole or overlaps")
        at = tensor.end
    if at != size:
        raise _invalid(
            file_name, "its tensors do not fill it: it is cut short or holds something else"
        )
    return tuple(tensors)


def _parsed(file_name: str, raw: bytes) -> dict[str, Any]:
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > _MAX_MARKS:
        raise _invalid(file_name, "its header describes more tensors than any model has")
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _invalid(file_name, "its header is no JSON, or names a tensor twice") from None
    if not isinstance(header, dict):
        raise _invalid(file_name, "its header is no JSON object")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _check_metadata(file_name: str, found: Any) -> None:
    sound = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    if not sound:
        raise _invalid(file_name, "its metadata is not a list of texts")


def _tensor(file_name: str, name: str, entry: Any, start: int) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(file_name, f"the tensor {name[:60]!r} is not described as it must be")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    sound = (
        isinstance(dtype, str)
        and dtype in _BITS
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(type(n) is int and 0 <= n < 2**40 for n in shape)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(n) is int and 0 <= n < 2**48 for n in offsets)
    )
    if not sound or (offsets[1] - offsets[0]) * 8 != math.prod(shape) * _BITS[dtype]:
        raise _invalid(file_name, f"the tensor {name[:60]!r} has an impossible type, size or place")
    return Tensor(name, dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _invalid(file_name: str, why: str) -> UserError:
    return UserError(
        Code.FILE_INVALID,
        f"{file_name} is not a sound safetensors file: {why}. Fetch it again or elsewhere.",
    )
