"""A linear's weights in the formats that the runtime's kernels multiply directly."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Format = Literal["int8", "int4", "float32"]
_GROUP = 32  # values that share an int4 scale and zero: as in GGUF's Q4_0, Q4_1, Q4_K
_WIDEST = 8192  # of a group's values to its step: beyond, float16 tells none apart
_WORTH = 0.5  # the error with fractional zero points, of that with whole ones


@dataclass(frozen=True, slots=True)
class Matrix:
    """[outputs, inputs]. int8: one scale a row, symmetric. int4: two values a byte (the
    low half first), and for each group of inputs a scale and a zero point in steps."""

    format: Format
    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float16] | None = None
    zeros: npt.NDArray[np.uint8] | npt.NDArray[np.float16] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape[0], int(np.prod(self.values.shape[1:]))
        return rows, columns * 2 if self.format == "int4" else columns

    def parts(self) -> dict[str, npt.NDArray[Any]]:
        """By the names they are kept under."""
        named = {"values": self.values, "scales": self.scales, "zeros": self.zeros}
        return {name: part for name, part in named.items() if part is not None}


def quantize(weights: npt.NDArray[np.float32], format: Format) -> Matrix:
    """`weights` is [outputs, inputs]. Inputs that are no whole groups stay in int8."""
    if format == "float32":
        return Matrix("float32", weights)
    if format == "int4" and weights.shape[1] % _GROUP == 0:
        return _int4(weights)
    return _int8(weights)


def _int8(weights: npt.NDArray[np.float32]) -> Matrix:
    scales = _rounded(np.abs(weights).max(1, keepdims=True) / 127)
    values = np.clip(np.rint(weights / scales.astype(np.float32)), -127, 127)
    return Matrix("int8", values.astype(np.int8), scales)


def _int4(weights: npt.NDArray[np.float32]) -> Matrix:
    """Zero points are whole numbers, which the kernels are fastest with, unless the
    weights were rounded to sixteen steps before, as in a GGUF of Q4_1 or Q4_K: with
    fractions they stay what they are."""
    grouped = weights.reshape(weights.shape[0], -1, _GROUP)
    low, high = grouped.min(2, keepdims=True), grouped.max(2, keepdims=True)
    narrowest = np.maximum(np.abs(low), np.abs(high)) / _WIDEST
    scales = _rounded(np.maximum((high - low) / 15, narrowest))
    fractional = _Rounding(grouped, scales, np.asarray(-low / scales, np.float16))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scales = _rounded((high - low) / 15)
    whole = _Rounding(grouped, scales, np.clip(np.rint(-low / scales), 0, 15).astype(np.uint8))
    return (fractional if fractional.error < _WORTH * whole.error else whole).matrix()


class _Rounding:
    """Of [outputs, groups, values], with [outputs, groups, 1] scales and zero points."""

    def __init__(
        self,
        grouped: npt.NDArray[np.float32],
        scales: npt.NDArray[np.float16],
        zeros: npt.NDArray[np.uint8] | npt.NDArray[np.float16],
    ) -> None:
        self._scales, self._zeros = scales, zeros
        wide, shift = scales.astype(np.float32), zeros.astype(np.float32)
        self._values = np.clip(np.rint(grouped / wide + shift), 0, 15)
        self.error = float(np.square((self._values - shift) * wide - grouped).sum())

    def matrix(self) -> Matrix:
        values = self._values.astype(np.uint8)
        packed = values[..., 0::2] | (values[..., 1::2] << 4)
        return Matrix("int4", packed, self._scales, self._zeros)


def _rounded(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """As they are kept, so that values are rounded for the scale they will meet; a row
    of zeros gets a scale that divides."""
    kept = scales.astype(np.float16)
    return np.where(kept == 0, np.float16(1), kept)
