"""The finished adapter as a folder that PEFT, and `freehold adapter add`, read, with the
manifest that says what it was made of."""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.adapt.training.recipe import Recipe
from freehold.core.adapter import CONFIG, WEIGHTS

MANIFEST = "freehold.json"
MODULES = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "qkv_proj": "self_attn", "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
    "gate_up_proj": "mlp",
}  # fmt: skip

Factor = tuple[int, str, npt.NDArray[np.float32], npt.NDArray[np.float32]]


def write(
    folder: Path, recipe: Recipe, factors: Iterable[Factor], manifest: Mapping[str, Any]
) -> None:
    """The same values make the same bytes. The manifest comes last: a folder without one is
    not finished."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    tensors = {}
    for layer, linear, a, b in factors:
        module = f"base_model.model.{module_of(layer, linear)}"
        tensors[f"{module}.lora_A.weight"] = a
        tensors[f"{module}.lora_B.weight"] = b
    _whole(folder / WEIGHTS, _safetensors(tensors))
    _whole(folder / CONFIG, _json(config_of(recipe)))
    _whole(folder / MANIFEST, _json(manifest))


def module_of(layer: int, linear: str) -> str:
    return f"model.layers.{layer}.{MODULES[linear]}.{linear}"


def config_of(recipe: Recipe) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(recipe.targets),
        "init_lora_weights": True,
        "inference_mode": True,
        "base_model_name_or_path": None,
    }


def _safetensors(tensors: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    values = [np.ascontiguousarray(tensors[name], "<f4").tobytes() for name in sorted(tensors)]
    return b"".join([struct.pack("<Q", len(raw)), raw, *values])


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _whole(path: Path, content: bytes) -> None:
    half = path.with_suffix(".half")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
