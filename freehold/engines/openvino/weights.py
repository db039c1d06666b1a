"""A decoder's weights in full precision, one tensor at a time, under the names that
Hugging Face's checkpoints use (`layers.0.self_attn.q_proj.weight`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.shape import Shape

Array = npt.NDArray[np.float32]


class Weights(Protocol):
    """`inverse_frequencies`: [head_dim / 2], the rotary embedding's, scaled as the
    model wants them."""

    shape: Shape
    inverse_frequencies: Array

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> Array: ...


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions turn into angles; formulas as in transformers'
    modeling_rope_utils.py."""

    theta: float
    kind: str = "default"  # default | linear | llama3
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192

    def inverse_frequencies(self, head_dim: int) -> Array:
        steps = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
        plain = np.asarray(1.0 / self.theta**steps, np.float32)
        if self.kind == "linear":
            plain /= self.factor
        elif self.kind == "llama3":
            plain = self._llama3(plain)
        elif self.kind != "default":
            raise unsupported(f"its rotary embedding is scaled as {self.kind[:40]!r}")
        return plain

    def _llama3(self, plain: Array) -> Array:
        low, high = self.low_frequency_factor, self.high_frequency_factor
        wavelengths = 2 * np.pi / plain
        smooth = (self.original_context / wavelengths - low) / (high - low)
        between = (1 - smooth) * plain / self.factor + smooth * plain
        scaled = np.where(wavelengths > self.original_context / low, plain / self.factor, between)
        return np.asarray(
            np.where(wavelengths < self.original_context / high, plain, scaled), np.float32
        )


def open_weights(files: Mapping[str, Path]) -> Weights:
    """Of a stored model, whose files are given by their names. Raises
    `UserError(FILE_REFUSED)` for an architecture that this engine cannot compute."""
    from freehold.engines.openvino.weights_gguf import GgufWeights
    from freehold.engines.openvino.weights_hf import HfWeights

    for name, path in files.items():
        if name.endswith(".gguf"):
            return GgufWeights(path)
    return HfWeights(files)


def unsupported(why: str) -> UserError:
    return UserError(
        Code.FILE_REFUSED,
        f"The openvino engine cannot compute this model: {why}. Choose the engine llama_cpp.",
    )
