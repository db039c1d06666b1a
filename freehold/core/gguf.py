"""A strict reader of GGUF headers, run before any engine sees the file.

Parsers of this format have been exploited through their counts and sizes, so every
count is checked against what the file can hold before anything is read or kept.
What a hostile file can cost is bounded too: the header is read in pieces, texts and
vocabularies are stepped over, and the caps below keep it under a second.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from freehold.core.errors import Code, UserError

# The largest published models have about 1,100 tensors, 60 keys, a vocabulary of
# 262,144 and half a million merges.
_MAX_KEYS, _MAX_TENSORS = 2048, 16_384
_MAX_KEY_BYTES, _MAX_TENSOR_NAME_BYTES = 256, 63
_MAX_TEXT_BYTES, _MAX_KEPT_BYTES, _MAX_ITEM_BYTES = 4 * 1024 * 1024, 1024 * 1024, 65_536
_MAX_ARRAY, _MAX_ITEMS = 4_000_000, 1_500_000
_MAX_HEADER_BYTES = 64 * 1024 * 1024
_MAX_DIMENSION = 2**40
_WINDOW_BYTES = 256 * 1024
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_KEPT_TEXTS = frozenset(
    {
        "general.architecture",
        "general.license",
        "tokenizer.chat_template",
        "tokenizer.ggml.model",
    }
)
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "B",
            10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
# The linears of a decoder's layers, by their names in PEFT.
_LINEAR = re.compile(r"blk\.([0-9]{1,4})\.([a-z_]+)\.weight\Z")
_LINEARS = {
    "attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj",
    "ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj",
}  # fmt: skip
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
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    architecture: str
    parameters: int
    quantization: str  # the type that most of the weights have
    context_length: int
    embedding_length: int
    chat_template: str | None
    licence: str | None
    tokenizer: str | None
    is_embedding: bool
    # (inputs, outputs) of each layer's linears by their names in PEFT; empty, with no
    # layers, unless every layer has the same seven.
    linears: Mapping[str, tuple[int, int]]
    layers: int
    heads: int  # of queries and of keys, the same in each layer; else 0
    kv_heads: int


def read_header(path: Path) -> Header:
    """Raises `UserError(FILE_INVALID)` saying what is wrong with the file."""
    with path.open("rb", buffering=_WINDOW_BYTES) as file:
        return _Reader(file, path.name).header()


class _Reader:
    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._name = name
        self._at = 0
        self._items = 0
        self._linears: dict[int, dict[str, tuple[int, int]]] = {}

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise self._bad("it does not begin with GGUF")
        version = self._number("<I")
        if version not in (2, 3):
            raise self._bad(f"its version is {version}, only 2 and 3 are known")
        tensors, keys = self._number("<Q"), self._number("<Q")
        if keys > _MAX_KEYS or tensors > _MAX_TENSORS:
            raise self._bad(f"it claims {keys} keys and {tensors} tensors")
        if not tensors:
            raise self._bad("it holds no tensors")
        values: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string(_MAX_KEY_BYTES)
            if key in values:
                raise self._bad(f"the key {key[:60]!r} is there twice")
            values[key] = self._value(key, self._number("<I"))
        return self._summary(values, tensors)

    def _summary(self, values: dict[str, Any], tensors: int) -> Header:
        architecture = values.get("general.architecture")
        if not isinstance(architecture, str) or not _ARCHITECTURE.match(architecture):
            raise self._bad("it names no architecture")
        parts = values.get("split.count", 1)
        if isinstance(parts, int) and parts > 1:
            raise self._bad(
                f"it is one of {parts} parts of a model, and only whole ones are served"
            )
        parameters, kinds = self._tensors(tensors, self._alignment(values))
        linears = self._common_linears()

        def number(name: str, fallback: int) -> int:
            found = values.get(f"{architecture}.{name}", fallback)
            if not isinstance(found, int) or not 0 < found < 2**31:
                raise self._bad(f"{architecture}.{name} is {str(found)[:40]!r}")
            return found

        def count(name: str, fallback: int) -> int:
            found = values.get(f"{architecture}.{name}", fallback)
            return found if type(found) is int and 0 < found < 65_536 else 0

        def text(name: str) -> str | None:
            found = values.get(name)
            return found if isinstance(found, str) else None

        heads = count("attention.head_count", 0)
        return Header(
            architecture=architecture,
            parameters=parameters,
            quantization=max(kinds, key=lambda kind: kinds[kind]),
            context_length=number("context_length", 2048),
            embedding_length=number("embedding_length", 1),
            chat_template=text("tokenizer.chat_template"),
            licence=text("general.license"),
            tokenizer=text("tokenizer.ggml.model"),
            is_embedding=f"{architecture}.pooling_type" in values,
            linears=linears,
            layers=len(self._linears) if linears else 0,
            heads=heads,
            kv_heads=count("attention.head_count_kv", heads),
        )

    def _common_linears(self) -> dict[str, tuple[int, int]]:
        layers = self._linears
        first = layers.get(0, {})
        is_plain = len(first) == len(_LINEARS) and all(
            layers.get(number) == first for number in range(len(layers))
        )
        return first if is_plain else {}

    def _alignment(self, values: dict[str, Any]) -> int:
        alignment = values.get("general.alignment", 32)
        sound = (
            isinstance(alignment, int) and 8 <= alignment <= 65_536 and alignment.bit_count() == 1
        )
        if not sound:
            raise self._bad("its alignment is no power of two")
        return int(alignment)

    def _tensors(self, count: int, alignment: int) -> tuple[int, Counter[str]]:
        """Engines read tensors one behind the other, so no other layout is accepted:
        no overlap, no hole, nothing behind the last."""
        names: set[str] = set()
        parameters, kinds = 0, Counter[str]()
        end = padded = 0
        for _ in range(count):
            name, values, kind, offset, size = self._tensor()
            if name in names:
                raise self._bad(f"the tensor {name!r} is there twice")
            if offset != padded:
                raise self._bad(f"the tensor {name!r} leaves a hole or overlaps another")
            names.add(name)
            parameters += values
            kinds[kind] += values
            end = offset + size
            padded = -(-end // alignment) * alignment
        start = -(-self._at // alignment) * alignment
        if start + end > self._size:
            raise self._bad("its tensors reach past its end: it is cut short")
        if start + padded < self._size:
            raise self._bad("it holds something else behind its tensors")
        return parameters, kinds

    def _tensor(self) -> tuple[str, int, str, int, int]:
        name = self._string(_MAX_TENSOR_NAME_BYTES)
        rank = self._number("<I")
        if not 1 <= rank <= 4:
            raise self._bad(f"the tensor {name!r} has {rank} dimensions")
        shape = struct.unpack(f"<{rank}Q", self._take(8 * rank))
        values = 1
        for dimension in shape:
            values *= dimension
            if not 0 < dimension < _MAX_DIMENSION or values >= _MAX_DIMENSION:
                raise self._bad(f"the tensor {name!r} has an impossible size")
        kind, offset = struct.unpack("<IQ", self._take(12))
        if kind not in _TYPES:
            raise self._bad(f"the tensor {name!r} has the unknown type {kind}")
        label, block, block_bytes = _TYPES[kind]
        if shape[0] % block:
            raise self._bad(f"the tensor {name!r} does not fill its blocks")
        linear = _LINEAR.match(name)
        if linear and linear[2] in _LINEARS and rank == 2:
            self._linears.setdefault(int(linear[1]), {})[_LINEARS[linear[2]]] = shape
        size = values // block * block_bytes
        if offset + size > self._size:
            raise self._bad(f"the tensor {name!r} reaches past its end: it is cut short")
        return name, values, label, offset, size

    def _value(self, key: str, kind: int) -> Any:
        """The value of a kept text or a number; None for what is stepped over."""
        if kind == _STRING:
            if key in _KEPT_TEXTS:
                return self._string(_MAX_KEPT_BYTES)
            return self._skip(self._length(_MAX_TEXT_BYTES))
        if kind == _ARRAY:
            return self._skip_array()
        layout = _SCALARS.get(kind)
        if layout is None:
            raise self._bad(f"it holds a value of the unknown type {kind}")
        return self._number(layout)

    def _skip_array(self) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if count > _MAX_ARRAY:
            raise self._bad(f"it holds an array of {count} values")
        layout = _SCALARS.get(kind)
        if layout is not None:
            self._skip(struct.calcsize(layout) * count)
        elif kind == _STRING:
            self._skip_strings(count)
        else:
            raise self._bad("it holds an array in an array")

    def _skip_strings(self, count: int) -> None:
        self._items += count
        if self._items > _MAX_ITEMS:
            raise self._bad(f"its arrays hold more than {_MAX_ITEMS} texts")
        length_of = struct.Struct("<Q").unpack_from
        window, at = b"", 0
        for _ in range(count):
            if at + 8 > len(window):
                self._skip(at)
                window, at = self._file.read(min(_WINDOW_BYTES, self._size - self._at)), 0
                self._file.seek(self._at)
                if len(window) < 8:
                    raise self._bad("its header reaches past its end: it is cut short")
            length = length_of(window, at)[0]
            if length > _MAX_ITEM_BYTES:
                raise self._bad(f"it holds a text of {length} bytes in an array")
            at += 8 + length
        self._skip(at)

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

    def _take(self, count: int) -> bytes:
        self._advance(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._advance(count)
        self._file.seek(self._at)

    def _advance(self, count: int) -> None:
        self._at += count
        if self._at > self._size:
            raise self._bad("its header reaches past its end: it is cut short")
        if self._at > _MAX_HEADER_BYTES:
            raise self._bad("its header is larger than that of any model")

    def _bad(self, why: str) -> UserError:
        return UserError(
            Code.FILE_INVALID,
            f"{self._name} is not a sound GGUF file: {why}. Fetch it again or elsewhere.",
        )
