"""Tensors of a safetensors file, read through the page cache one at a time.
Format: https://github.com/huggingface/safetensors#format"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.core.errors import Code, UserError

_TYPES: dict[str, Any] = {
    "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I8": np.int8, "U8": np.uint8,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items() if name != "BF16"}


class Tensors:
    """The file was checked when it entered the store; sizes are checked again here,
    because it may have changed on the disk."""

    def __init__(self, path: Path) -> None:
        self._bytes = np.memmap(path, np.uint8, "c")  # the runtime asks for memory it may write
        if self._bytes.size < 8:
            raise ValueError("it is cut short")
        (length,) = struct.unpack("<Q", self._bytes[:8].tobytes())
        header = json.loads(self._bytes[8 : 8 + length].tobytes())
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._header: dict[str, Any] = header
        self._start = 8 + length

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def raw(self, name: str) -> npt.NDArray[Any]:
        """As it lies in the file; bfloat16 as its 16 bits."""
        entry = self._header[name]
        begin, end = (self._start + offset for offset in entry["data_offsets"])
        kind = np.dtype(_TYPES[entry["dtype"]])
        if end > self._bytes.size or end - begin != math.prod(entry["shape"]) * kind.itemsize:
            raise UserError(Code.FILE_INVALID, "A weights file is cut short: pull it again.")
        values: npt.NDArray[Any] = self._bytes[begin:end].view(kind)
        return values.reshape(entry["shape"])

    def read(self, name: str) -> npt.NDArray[np.float32]:
        found = self.raw(name)
        if self._header[name]["dtype"] == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(found, np.float32)


def write(path: Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Appears whole or not at all."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 64)
    half = path.with_suffix(".half")
    try:
        with half.open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            for tensor in tensors.values():
                file.write(np.ascontiguousarray(tensor).data)
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)  # a full disk has no room for what nobody reads
        raise
