"""A strict reader of safetensors headers, run before anything else reads the file.
Format: https://github.com/huggingface/safetensors#format"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.errors import Code, UserError

_MAX_HEADER_BYTES = 64 * 1024 * 1024
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "F4": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors in file order. Raises `UserError(FILE_INVALID)` unless they fill the
    file exactly: no overlap, no hole, nothing behind."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise _invalid(path, "its header has an impossible length")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _invalid(path, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _invalid(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    tensors = sorted(
        (_tensor(path, name, entry) for name, entry in header.items()), key=lambda t: t.begin
    )
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            raise _invalid(path, f"the tensor {tensor.name[:60]!r} leaves a hole or overlaps")
        at = tensor.end
    if at != size - 8 - length:
        raise _invalid(path, "its tensors do not fill it: it is cut short or holds something else")
    return tuple(tensors)


def _tensor(path: Path, name: str, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(path, f"the tensor {name[:60]!r} is not described as it must be")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    sound = (
        dtype in _BITS
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(type(n) is int and 0 <= n < 2**40 for n in shape)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(n) is int and 0 <= n < 2**48 for n in offsets)
    )
    if not sound or (offsets[1] - offsets[0]) * 8 != math.prod(shape) * _BITS[dtype]:
        raise _invalid(path, f"the tensor {name[:60]!r} has an impossible type, size or place")
    return Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])


def _invalid(path: Path, why: str) -> UserError:
    return UserError(
        Code.FILE_INVALID,
        f"{path.name} is not a sound safetensors file: {why}. Fetch it again or elsewhere.",
    )
