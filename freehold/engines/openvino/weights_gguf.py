"""Weights out of a GGUF file of the Llama or Qwen families.
Names of keys and tensors: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from freehold.engines.openvino.shape import Shape
from freehold.engines.openvino.weights import Array, Rope, unsupported

_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
_IN_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTSIDE = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


class GgufWeights:
    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path, "c")  # the runtime asks for memory it may write
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._architecture = str(self._value("general.architecture"))
        if self._architecture not in _ARCHITECTURES:
            raise unsupported(f"its architecture is {self._architecture[:40]!r}")
        if any("_exps." in name for name in self._tensors):
            raise unsupported("it is a mixture of experts")
        self.shape = self._shape()
        self.inverse_frequencies = self._rope()

    def has(self, name: str) -> bool:
        return _gguf_name(name) in self._tensors

    def read(self, name: str) -> Array:
        tensor = self._tensors.get(_gguf_name(name))
        if tensor is None:
            raise unsupported(f"it has no tensor {name!r}")
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found = np.ascontiguousarray(found, np.float32)
        # llama.cpp turns pairs of neighbours, Hugging Face turns halves: its converter
        # interleaves the rows of Llama's q and k, and only of these.
        if self._architecture == "llama" and "self_attn.q_proj" in name:
            return _apart(found, self.shape.heads)
        if self._architecture == "llama" and "self_attn.k_proj" in name:
            return _apart(found, self.shape.kv_heads)
        return found

    def _value(self, key: str, default: Any = None) -> Any:
        field = self._reader.fields.get(key)
        if field is None:
            if default is None:
                raise unsupported(f"its header has no {key!r}")
            return default
        return field.contents()

    def _own(self, key: str, default: Any = None) -> Any:
        return self._value(f"{self._architecture}.{key}", default)

    def _shape(self) -> Shape:
        heads, hidden = self._own("attention.head_count"), self._own("embedding_length")
        embedding = self._tensors["token_embd.weight"]
        return Shape(
            layers=self._own("block_count"),
            hidden=hidden,
            heads=heads,
            kv_heads=self._own("attention.head_count_kv", heads),
            head_dim=self._own("attention.key_length", hidden // heads),
            ffn=self._own("feed_forward_length"),
            vocab=int(embedding.shape[1]),
            rms_eps=self._own("attention.layer_norm_rms_epsilon"),
            tied="output.weight" not in self._tensors,
            qkv_bias="blk.0.attn_q.bias" in self._tensors,
            qk_norm="blk.0.attn_q_norm.weight" in self._tensors,
        )

    def _rope(self) -> Array:
        head_dim = self.shape.head_dim
        if self._own("rope.dimension_count", head_dim) != head_dim:
            raise unsupported("its rotary embedding turns a part of each head")
        rope = Rope(
            theta=self._own("rope.freq_base", 10000.0),
            kind=self._own("rope.scaling.type", "default").replace("none", "default"),
            factor=self._own("rope.scaling.factor", 1.0),
        )
        found = rope.inverse_frequencies(head_dim)
        factors = self._tensors.get("rope_freqs.weight")  # llama3's scaling, worked out
        return found if factors is None else np.asarray(found / factors.data, np.float32)


def _gguf_name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, layer, rest = name.split(".", 2)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_IN_LAYER[module]}.{kind}"


def _apart(rows: Array, heads: int) -> Array:
    """Halves from pairs of neighbours, in weights and biases."""
    paired = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)
