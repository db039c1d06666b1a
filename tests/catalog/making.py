"""Small model files, sound ones and ones that a test breaks on purpose."""

import json
import math
import random
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


HIDDEN, KV, FFN, LAYERS = 32, 16, 64, 2
LINEARS = {
    "q_proj": (HIDDEN, HIDDEN), "k_proj": (HIDDEN, KV), "v_proj": (HIDDEN, KV),
    "o_proj": (HIDDEN, HIDDEN), "gate_proj": (HIDDEN, FFN), "up_proj": (HIDDEN, FFN),
    "down_proj": (FFN, HIDDEN),
}  # fmt: skip
_GGUF_NAMES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip


def decoder_bytes(*more: bytes, licence: str | None = "apache-2.0", **leave_out: int) -> bytes:
    """A GGUF file with the linears of a small decoder, and `more` keys; of those named,
    only that many layers have them."""
    tensors, at = [], 0
    for layer in range(LAYERS):
        for name, (inputs, outputs) in LINEARS.items():
            if layer < leave_out.get(name, LAYERS):
                full = f"blk.{layer}.{_GGUF_NAMES[name]}.weight"
                tensors.append(tensor(full, [inputs, outputs], 0, at))
                at += inputs * outputs * 4
    return gguf_bytes([*keys(licence=licence), *more], tensors, data_bytes=at)


def peft_folder(
    folder: Path,
    seed: int = 1,
    *,
    rank: int = 2,
    linears: Sequence[str] = ("q_proj", "v_proj"),
    layers: int = LAYERS,
    width: int = HIDDEN,
    value: float | None = None,
    extra: dict[str, list[int]] | None = None,
    **config: Any,
) -> Path:
    """An adapter as PEFT saves it, for `decoder_bytes`; other seeds have other weights."""
    said = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
        "target_modules": list(linears), "bias": "none", "base_model_name_or_path": "a/base",
    } | config  # fmt: skip
    shapes = dict(extra or {})
    for layer in range(layers):
        for name in linears:
            inputs, outputs = LINEARS[name]
            block = "self_attn" if name[0] in "qkvo" else "mlp"
            full = f"base_model.model.model.layers.{layer}.{block}.{name}"
            shapes[f"{full}.lora_A.weight"] = [rank, width if inputs == HIDDEN else inputs]
            shapes[f"{full}.lora_B.weight"] = [outputs, rank]
    chance = random.Random(seed)
    header, data = {}, b""
    for name, shape in shapes.items():
        count = math.prod(shape)
        values = [chance.uniform(-0.1, 0.1) for _ in range(count)]
        if value is not None:
            values[-1] = value
        begin = len(data)
        data += struct.pack(f"<{count}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    write(folder / "adapter_config.json", json.dumps(said).encode())
    write(folder / "adapter_model.safetensors", safetensors_bytes(header, data))
    return folder
