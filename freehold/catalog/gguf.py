"""A strict reader of GGUF headers, run before any engine sees the file.

Parsers of this format have been exploited through their counts and sizes, so every
count is checked against what the file can hold before anything is read or kept.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.errors import Code, UserError

_MAX_KEYS, _MAX_TENSORS = 4096, 65_536
_MAX_KEY_BYTES, _MAX_STRING_BYTES = 256, 4 * 1024 * 1024
_MAX_ARRAY, _MAX_HEADER_BYTES = 4_000_000, 256 * 1024 * 1024
_MAX_DIMENSION = 2**40
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "B",
            10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
# ggml type -> (name, values in a block, bytes in a block); ggml.h
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    architecture: str
    parameters: int
    quantization: str
    context_length: int
    embedding_length: int
    chat_template: str | None
    licence: str | None
    is_embedding: bool


def read_header(path: Path) -> Header:
    """Raises `UserError(FILE_INVALID)` saying what is wrong with the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path.name).header()
    except ValueError:
        raise _invalid(path.name, "it is empty") from None


class _Reader:
    def __init__(self, data: mmap.mmap, name: str) -> None:
        self._data = data
        self._size = len(data)
        self._name = name
        self._at = 0

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise self._bad("it does not begin with GGUF")
        version = self._number("<I")
        if version not in (2, 3):
            raise self._bad(f"its version is {version}, only 2 and 3 are known")
        tensors, keys = self._number("<Q"), self._number("<Q")
        if keys > _MAX_KEYS or tensors > _MAX_TENSORS:
            raise self._bad(f"it claims {keys} keys and {tensors} tensors")
        values: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string(_MAX_KEY_BYTES)
            if key in values:
                raise self._bad(f"the key {key[:60]!r} is there twice")
            values[key] = self._value(self._number("<I"))
        return self._summary(values, tensors)

    def _summary(self, values: dict[str, Any], tensors: int) -> Header:
        architecture = values.get("general.architecture")
        if not isinstance(architecture, str) or not _ARCHITECTURE.match(architecture):
            raise self._bad("it names no architecture")
        alignment = values.get("general.alignment", 32)
        if (
            not isinstance(alignment, int)
            or not 8 <= alignment <= 65_536
            or alignment & (alignment - 1)
        ):
            raise self._bad("its alignment is no power of two")
        parameters, kinds = self._tensors(tensors, alignment)

        def number(name: str, fallback: int) -> int:
            found = values.get(f"{architecture}.{name}", fallback)
            if not isinstance(found, int) or not 0 < found < 2**31:
                raise self._bad(f"{architecture}.{name} is {str(found)[:40]!r}")
            return found

        template, licence = values.get("tokenizer.chat_template"), values.get("general.license")
        return Header(
            architecture=architecture,
            parameters=parameters,
            quantization=max(kinds, key=lambda kind: kinds[kind]) if kinds else "none",
            context_length=number("context_length", 2048),
            embedding_length=number("embedding_length", 1),
            chat_template=template if isinstance(template, str) else None,
            licence=licence if isinstance(licence, str) else None,
            is_embedding=f"{architecture}.pooling_type" in values,
        )

    def _tensors(self, count: int, alignment: int) -> tuple[int, Counter[str]]:
        spans: list[tuple[int, int, str]] = []
        names: set[str] = set()
        parameters, kinds = 0, Counter[str]()
        for _ in range(count):
            name, values, span, kind = self._tensor(alignment)
            if name in names:
                raise self._bad(f"the tensor {name[:60]!r} is there twice")
            names.add(name)
            parameters += values
            kinds[kind] += values
            spans.append((*span, name))
        start = -(-self._at // alignment) * alignment
        end_before = 0
        for offset, size, name in sorted(spans):
            if offset < end_before:
                raise self._bad(f"the tensor {name[:60]!r} overlaps another")
            end_before = offset + size
            if start + end_before > self._size:
                raise self._bad(f"the tensor {name[:60]!r} reaches past its end: it is cut short")
        return parameters, kinds

    def _tensor(self, alignment: int) -> tuple[str, int, tuple[int, int], str]:
        name = self._string(_MAX_KEY_BYTES)
        rank = self._number("<I")
        if not 1 <= rank <= 4:
            raise self._bad(f"the tensor {name[:60]!r} has {rank} dimensions")
        values = 1
        for _ in range(rank):
            dimension = self._number("<Q")
            values *= dimension
            if not 0 < dimension < _MAX_DIMENSION or values >= _MAX_DIMENSION:
                raise self._bad(f"the tensor {name[:60]!r} has an impossible size")
            if _ == 0:
                row = dimension
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in _TYPES:
            raise self._bad(f"the tensor {name[:60]!r} has the unknown type {kind}")
        label, block, size = _TYPES[kind]
        if row % block:
            raise self._bad(f"the tensor {name[:60]!r} does not fill its blocks")
        if offset % alignment or offset > self._size:
            raise self._bad(f"the tensor {name[:60]!r} lies at an impossible place")
        return name, values, (offset, values // block * size), label

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string(_MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self._array()
        layout = _SCALARS.get(kind)
        if layout is None:
            raise self._bad(f"it holds a value of the unknown type {kind}")
        return self._number(layout)

    def _array(self) -> None:
        """Arrays (vocabularies) are stepped over, not kept."""
        kind, count = self._number("<I"), self._number("<Q")
        if count > _MAX_ARRAY:
            raise self._bad(f"it holds an array of {count} values")
        layout = _SCALARS.get(kind)
        if layout is not None:
            self._take(struct.calcsize(layout) * count, keep=False)
        elif kind == _STRING:
            for _ in range(count):
                self._take(self._length(_MAX_STRING_BYTES), keep=False)
        else:
            raise self._bad("it holds an array in an array")

    def _length(self, limit: int) -> int:
        length: int = self._number("<Q")
        if length > limit:
            raise self._bad(f"it holds a text of {length} bytes")
        return length

    def _string(self, limit: int) -> str:
        try:
            return self._take(self._length(limit)).decode()
        except UnicodeDecodeError:
            raise self._bad("it holds a text that is no UTF-8") from None

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, count: int, keep: bool = True) -> bytes:
        end = self._at + count
        if end > self._size or end > _MAX_HEADER_BYTES:
            raise self._bad("its header reaches past its end: it is cut short")
        found = self._data[self._at : end] if keep else b""
        self._at = end
        return found

    def _bad(self, why: str) -> UserError:
        return _invalid(self._name, why)


def _invalid(name: str, why: str) -> UserError:
    return UserError(
        Code.FILE_INVALID, f"{name} is not a sound GGUF file: {why}. Fetch it again or elsewhere."
    )
