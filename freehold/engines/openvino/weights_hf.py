"""Weights out of a Hugging Face checkpoint: config.json and safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.safetensors import Tensors
from freehold.engines.openvino.shape import Shape
from freehold.engines.openvino.weights import Array, Rope, unsupported

_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


class HfWeights:
    def __init__(self, files: Mapping[str, Path]) -> None:
        if "config.json" not in files:
            raise UserError(Code.FILE_INVALID, "This model has no config.json: pull it again.")
        config = json.loads(files["config.json"].read_bytes())
        _check(config)
        parts = [Tensors(path) for name, path in files.items() if name.endswith(".safetensors")]
        self._where = {name: part for part in parts for name in part}
        self.shape = self._shape(config)
        self.inverse_frequencies = _rope(config).inverse_frequencies(self.shape.head_dim)

    def has(self, name: str) -> bool:
        return _full(name) in self._where

    def read(self, name: str) -> Array:
        part = self._where.get(_full(name))
        if part is None:
            raise unsupported(f"it has no tensor {name!r}")
        return part.read(_full(name))

    def _shape(self, config: Mapping[str, Any]) -> Shape:
        heads = config["num_attention_heads"]
        return Shape(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            ffn=config["intermediate_size"],
            vocab=config["vocab_size"],
            rms_eps=config["rms_norm_eps"],
            tied="lm_head.weight" not in self._where,
            qkv_bias="model.layers.0.self_attn.q_proj.bias" in self._where,
            qk_norm="model.layers.0.self_attn.q_norm.weight" in self._where,
        )


def _full(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _check(config: Mapping[str, Any]) -> None:
    kind = str(config.get("model_type"))
    if kind not in _TYPES:
        raise unsupported(f"its architecture is {kind[:40]!r}")
    if config.get("hidden_act", "silu") != "silu":
        raise unsupported(f"its activation is {str(config['hidden_act'])[:40]!r}")
    slides = config.get("use_sliding_window", kind == "mistral")
    if slides and config.get("sliding_window"):
        raise unsupported("its attention slides")
    if config.get("quantization_config"):
        raise unsupported("its weights are quantized already")


def _rope(config: Mapping[str, Any]) -> Rope:
    """`rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = told.get("rope_theta") or config.get("rope_theta") or 10000.0
    if (told.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1) != 1:
        raise unsupported("its rotary embedding turns a part of each head")
    kind = told.get("rope_type") or told.get("type") or "default"
    if kind == "default":
        return Rope(theta)
    return Rope(
        theta=theta,
        kind=kind,
        factor=told.get("factor", 1.0),
        low_frequency_factor=told.get("low_freq_factor", 1.0),
        high_frequency_factor=told.get("high_freq_factor", 4.0),
        original_context=told.get("original_max_position_embeddings")
        or config.get("max_position_embeddings", 8192),
    )
