"""A base's weights as they stay while an adapter is trained: read from the stored files that
serve, in 16 bits, or in the very 8 or 4 bits that the shared-base engine serves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freehold.engines.openvino.prepared import Prepared, fused, norms, prepare
from freehold.engines.openvino.quantize import Matrix
from freehold.engines.openvino.shape import SITES, Shape
from freehold.engines.openvino.weights import open_weights


class Frozen:
    """A matrix [outputs, inputs] that is never trained."""

    def __init__(self, matrix: Matrix | np.ndarray[Any, Any], kind: torch.dtype, on: str) -> None:
        self._kind = kind
        if isinstance(matrix, np.ndarray):
            self._format = "dense"
            self._parts = {"values": torch.from_numpy(matrix).to(on, kind)}
        else:
            self._format = matrix.format
            self._shape = matrix.shape
            parts = {n: torch.from_numpy(p.copy()).to(on) for n, p in matrix.parts().items()}
            self._parts = parts

    @property
    def nbytes(self) -> int:
        return sum(int(part.nbytes) for part in self._parts.values())

    def dense(self) -> Tensor:
        """In 16 bits; made anew each time where it is kept in fewer, as that takes less
        time than the product that it is for."""
        values = self._parts["values"]
        if self._format == "dense":
            return values
        scales = self._parts["scales"].to(self._kind)
        if self._format == "int8":
            return values.to(self._kind).mul_(scales)
        wide = torch.empty(
            (*values.shape[:2], values.shape[2] * 2), dtype=self._kind, device=values.device
        )
        wide[..., 0::2] = values & 15
        wide[..., 1::2] = values >> 4
        wide.sub_(self._parts["zeros"].to(self._kind)).mul_(scales)
        return wide.reshape(self._shape)


@dataclass(frozen=True, slots=True)
class Base:
    """`matrices` by `<layer>.<site>`; `vectors` by their names in checkpoints, biases by
    `<layer>.<site>.bias`. `embedding` and `head` may be the same."""

    shape: Shape
    embedding: Tensor
    head: Tensor
    inverse_frequencies: Tensor
    matrices: dict[str, Frozen] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        tensors = [self.embedding, *self.vectors.values()]
        tensors += [] if self.head is self.embedding else [self.head]
        whole = sum(int(tensor.nbytes) for tensor in tensors)
        return whole + sum(matrix.nbytes for matrix in self.matrices.values())


def load(
    digest: str,
    files: Mapping[str, Path],
    bits: int | None,
    cache: Path | None,
    kind: torch.dtype,
    on: str,
) -> Base:
    """Raises `FILE_REFUSED` for an architecture that is not known here."""
    if bits is None:
        return _dense(files, kind, on)
    return _quantized(prepare(digest, files, "int8" if bits == 8 else "int4", cache), kind, on)


def _dense(files: Mapping[str, Path], kind: torch.dtype, on: str) -> Base:
    """One matrix after another, so that nothing is in memory in full precision for long."""
    weights = open_weights(files)
    shape = weights.shape

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(weights.read(name)).to(on, kind)

    embedding = tensor("embed_tokens.weight")
    head = embedding if shape.tied else tensor("lm_head.weight")
    turns = torch.from_numpy(weights.inverse_frequencies.copy()).to(on)
    base = Base(shape, embedding, head, turns)
    base.vectors["norm.weight"] = tensor("norm.weight")
    for layer in range(shape.layers):
        for site, _ in SITES:
            matrix, bias = fused(weights, layer, site)
            base.matrices[f"{layer}.{site}"] = Frozen(matrix, kind, on)
            if bias is not None:
                base.vectors[f"{layer}.{site}.bias"] = torch.from_numpy(bias).to(on, kind)
        for name in _norm_names(shape, layer):
            base.vectors[name] = tensor(name)
    return base


def _quantized(prepared: Prepared, kind: torch.dtype, on: str) -> Base:
    embedding = Frozen(prepared.matrices["embed_tokens"], kind, on).dense()
    head = embedding
    if not prepared.shape.tied:
        head = Frozen(prepared.matrices["lm_head"], kind, on).dense()
    turns = torch.from_numpy(prepared.inverse_frequencies.copy()).to(on)
    base = Base(prepared.shape, embedding, head, turns)
    for name, vector in prepared.vectors.items():
        base.vectors[name] = torch.from_numpy(np.array(vector)).to(on, kind)
    for name, matrix in prepared.matrices.items():
        if "." in name:
            base.matrices[name] = Frozen(matrix, kind, on)
    return base


def _norm_names(shape: Shape, layer: int) -> Iterator[str]:
    return (f"layers.{layer}.{name}.weight" for name in norms(shape))
