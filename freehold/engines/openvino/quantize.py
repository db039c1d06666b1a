"""A linear's weights in the formats that the runtime's kernels multiply directly."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Format = Literal["int8", "int4", "float32"]
_GROUPS = (128, 64, 32)  # values that share an int4 scale: the kernels' sizes


@dataclass(frozen=True, slots=True)
class Matrix:
    """[outputs, inputs]. int8: one scale a row, symmetric. int4: two values a byte (the
    low half first), and for each group of inputs a scale and a zero point."""

    format: Format
    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float16] | None = None
    zeros: npt.NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape[0], int(np.prod(self.values.shape[1:]))
        return rows, columns * 2 if self.format == "int4" else columns

    def parts(self) -> dict[str, npt.NDArray[Any]]:
        """By the names they are kept under."""
        named = {"values": self.values, "scales": self.scales, "zeros": self.zeros}
        return {name: part for name, part in named.items() if part is not None}


def quantize(weights: npt.NDArray[np.float32], format: Format) -> Matrix:
    """`weights` is [outputs, inputs]. Inputs that no int4 group divides stay in int8."""
    if format == "float32":
        return Matrix("float32", weights)
    group = next((size for size in _GROUPS if weights.shape[1] % size == 0), 0)
    if format == "int4" and group:
        return _int4(weights, group)
    return _int8(weights)


def _int8(weights: npt.NDArray[np.float32]) -> Matrix:
    scales = _rounded(np.abs(weights).max(1, keepdims=True) / 127)
    values = np.clip(np.rint(weights / scales.astype(np.float32)), -127, 127)
    return Matrix("int8", values.astype(np.int8), scales)


def _int4(weights: npt.NDArray[np.float32], group: int) -> Matrix:
    grouped = weights.reshape(weights.shape[0], -1, group)
    low = np.minimum(grouped.min(2, keepdims=True), 0)
    high = np.maximum(grouped.max(2, keepdims=True), 0)
    scales = _rounded((high - low) / 15)
    wide = scales.astype(np.float32)
    zeros = np.clip(np.rint(-low / wide), 0, 15)
    values = np.clip(np.rint(grouped / wide) + zeros, 0, 15).astype(np.uint8)
    packed = values[..., 0::2] | (values[..., 1::2] << 4)
    return Matrix("int4", packed, scales, zeros.astype(np.uint8))


def _rounded(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """As they are kept, so that values are rounded for the scale they will meet; a row
    of zeros gets a scale that divides."""
    kept = scales.astype(np.float16)
    return np.where(kept == 0, np.float16(1), kept)
