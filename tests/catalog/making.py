"""Small model files, sound ones and ones that a test breaks on purpose."""

import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

U32, F32, STRING, ARRAY, U64 = 4, 6, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: Any) -> bytes:
    if kind == STRING:
        return text(name) + struct.pack("<I", kind) + text(value)
    layout = {U32: "<I", F32: "<f", U64: "<Q"}[kind]
    return text(name) + struct.pack("<I", kind) + struct.pack(layout, value)


def strings(name: str, values: Sequence[str]) -> bytes:
    head = text(name) + struct.pack("<IIQ", ARRAY, STRING, len(values))
    return head + b"".join(text(value) for value in values)


def tensor(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def keys(architecture: str = "llama", licence: str | None = "apache-2.0") -> list[bytes]:
    said = [key("general.license", STRING, licence)] if licence else []
    return [
        key("general.architecture", STRING, architecture),
        *said,
        key(f"{architecture}.context_length", U32, 4096),
        key(f"{architecture}.embedding_length", U32, 64),
        strings("tokenizer.ggml.tokens", ["a", "b", "c"]),
        key("tokenizer.ggml.model", STRING, "gpt2"),
        key("tokenizer.chat_template", STRING, "{{ messages }}"),
    ]


def gguf_bytes(
    entries: Iterable[bytes] | None = None,
    tensors: Iterable[bytes] | None = None,
    *,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
    data_bytes: int = 256 + 128,
    alignment: int = 32,
) -> bytes:
    """Two F32 tensors of 64 and 32 values unless told otherwise."""
    entries = list(keys() if entries is None else entries)
    if tensors is None:
        tensors = [tensor("token_embd.weight", [64], 0, 0), tensor("output.weight", [32], 0, 256)]
    tensors = list(tensors)
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if key_count is None else key_count,
    )
    header = head + b"".join(entries) + b"".join(tensors)
    return header + b"\0" * (-len(header) % alignment) + b"\x01" * data_bytes


def safetensors_bytes(header: Any = None, data: bytes = b"\0" * 24) -> bytes:
    if header is None:
        header = {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "F16", "shape": [4], "data_offsets": [16, 24]},
        }
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
