"""PEFT adapters as files, written by hand: sound ones, and ones that a test breaks."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.core import peft
from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.engine import AdapterFiles
from freehold.engines.openvino.shape import Shape

SHAPE = Shape(
    layers=2, hidden=16, heads=4, kv_heads=2, head_dim=4, ffn=24, vocab=32, rms_eps=1e-5, tied=True
)
SMOL = Shape(
    layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49152,
    rms_eps=1e-5, tied=True,
)  # fmt: skip
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Content = dict[str, tuple[str, npt.NDArray[Any]]]


def key(layer: int, linear: str, side: str) -> str:
    block = "mlp" if linear in ("gate_proj", "up_proj", "down_proj") else "self_attn"
    return f"base_model.model.model.layers.{layer}.{block}.{linear}.lora_{side}.weight"


def tensors(
    shape: Shape = SHAPE,
    rank: int = 4,
    *,
    layers: Iterable[int] | None = None,
    linears: Iterable[str] = ALL,
    seed: int = 0,
    dtype: str = "F32",
) -> Content:
    """Random factors, as the bits of `dtype`."""
    chance = np.random.default_rng(seed)
    sizes, found = shape.linears(), {}
    for layer in range(shape.layers) if layers is None else layers:
        for linear in linears:
            inputs, outputs = sizes[linear]
            for side, size in (("A", (rank, inputs)), ("B", (outputs, rank))):
                values = chance.standard_normal(size, np.float32)
                found[key(layer, linear, side)] = (dtype, as_bits(values, dtype))
    return found


def as_bits(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    if dtype == "BF16":  # cut off, not rounded: any bits will do
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype({"F32": np.float32, "F16": np.float16, "F64": np.float64}[dtype])


def values_of(dtype: str, bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.astype(np.float32)


def settings(rank: int = 4, **changed: Any) -> dict[str, Any]:
    """As PEFT 0.21 writes them, shortened by what is null; None takes a setting away."""
    said = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "some/base",
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "layers_to_transform": None, "lora_alpha": 2 * rank,
        "lora_dropout": 0.05, "megatron_config": None, "megatron_core": "megatron.core",
        "modules_to_save": None, "peft_type": "LORA", "peft_version": "0.21.2",
        "qalora_group_size": 16, "r": rank, "rank_pattern": {}, "target_modules": list(ALL),
        "task_type": "CAUSAL_LM", "trainable_token_indices": None, "use_dora": False,
        "use_rslora": False,
    }  # fmt: skip
    return {name: value for name, value in (said | changed).items() if value is not None}


def safetensors(content: Content) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, bits) in content.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(bits.shape),
            "data_offsets": [at, at + bits.nbytes],
        }
        at += bits.nbytes
    raw = json.dumps(header).encode()
    data = b"".join(bits.tobytes() for _, bits in content.values())
    return struct.pack("<Q", len(raw)) + raw + data


def write(folder: Path, said: Mapping[str, Any] | bytes, content: Content | bytes) -> AdapterFiles:
    """Both files in `folder`, named by their digest."""
    config = said if isinstance(said, bytes) else json.dumps(said).encode()
    weights = content if isinstance(content, bytes) else safetensors(content)
    digest = peft.digest_of(config, weights)
    into = folder / digest.removeprefix("sha256:")[:16]
    into.mkdir(parents=True, exist_ok=True)
    files = AdapterFiles(digest, into / CONFIG, into / WEIGHTS)
    files.config.write_bytes(config)
    files.weights.write_bytes(weights)
    return files
