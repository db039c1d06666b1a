"""The shape of a decoder of the Llama family, and where adapters attach to it."""

from collections.abc import Mapping
from dataclasses import dataclass

# Linears that read the same activations are computed together, and share one A product.
SITES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qkv", ("q_proj", "k_proj", "v_proj")),
    ("o", ("o_proj",)),
    ("gu", ("gate_proj", "up_proj")),
    ("down", ("down_proj",)),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """`tied`: the head is the embedding. `qkv_bias` as in Qwen2, `qk_norm` as in Qwen3."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rms_eps: float
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linears by their names in PEFT."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, q),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (q, self.hidden),
            "gate_proj": (self.hidden, self.ffn),
            "up_proj": (self.hidden, self.ffn),
            "down_proj": (self.ffn, self.hidden),
        }
