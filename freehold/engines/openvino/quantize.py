"""A linear's weights in the formats that the runtime's kernels multiply directly."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from freehold.engines.cores import usable_cores

_Made = TypeVar("_Made")
Format = Literal["int8", "int4", "float32"]
_GROUP = 32  # values that share an int4 scale and zero: as in GGUF's Q4_0, Q4_1, Q4_K
_AT_ONCE = 2**18  # values
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
    made = list(_over_rows(_int8_rows, weights))
    return Matrix("int8", _joined(values for values, _ in made), _joined(s for _, s in made))


def _int8_rows(
    weights: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    scales = _rounded(np.abs(weights).max(1, keepdims=True) / 127)
    values = np.clip(np.rint(weights / scales.astype(np.float32)), -127, 127)
    return values.astype(np.int8), scales


def _int4(weights: npt.NDArray[np.float32]) -> Matrix:
    """Zero points are whole numbers, which the kernels are fastest with, unless the
    weights were rounded to sixteen steps before, as in a GGUF of Q4_1 or Q4_K: with
    fractions they stay what they are."""
    both = list(_over_rows(_int4_rows, weights))
    errors = [sum(each[way].error for each in both) for way in (0, 1)]
    way = 0 if errors[0] < _WORTH * errors[1] else 1
    made = [each[way] for each in both]
    return Matrix(
        "int4", _joined(r.packed for r in made), _joined(r.scales for r in made),
        _joined(r.zeros for r in made),
    )  # fmt: skip


def _int4_rows(weights: npt.NDArray[np.float32]) -> tuple["_Rounded", "_Rounded"]:
    """With fractional zero points, and with whole ones."""
    grouped = weights.reshape(weights.shape[0], -1, _GROUP)
    low, high = grouped.min(2, keepdims=True), grouped.max(2, keepdims=True)
    narrowest = np.maximum(np.abs(low), np.abs(high)) / _WIDEST
    scales = _rounded(np.maximum((high - low) / 15, narrowest))
    fractional = _round(grouped, scales, np.asarray(-low / scales, np.float16))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scales = _rounded((high - low) / 15)
    whole = _round(grouped, scales, np.clip(np.rint(-low / scales), 0, 15).astype(np.uint8))
    return fractional, whole


@dataclass(frozen=True, slots=True)
class _Rounded:
    packed: npt.NDArray[np.uint8]  # [outputs, groups, bytes]
    scales: npt.NDArray[np.float16]  # [outputs, groups, 1]
    zeros: npt.NDArray[np.uint8] | npt.NDArray[np.float16]  # the same
    error: float


def _round(
    grouped: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float16],
    zeros: npt.NDArray[np.uint8] | npt.NDArray[np.float16],
) -> _Rounded:
    wide, shift = scales.astype(np.float32), zeros.astype(np.float32)
    rounded = np.clip(np.rint(grouped / wide + shift), 0, 15)
    error = float(np.square((rounded - shift) * wide - grouped).sum())
    values = rounded.astype(np.uint8)
    return _Rounded(values[..., 0::2] | (values[..., 1::2] << 4), scales, zeros, error)


def _over_rows(
    made: Callable[[npt.NDArray[np.float32]], _Made], weights: npt.NDArray[np.float32]
) -> Iterator[_Made]:
    """Of so many rows at a time as caches hold, on all cores: NumPy computes without the
    interpreter's lock. The parts do not depend on how many cores there are."""
    rows = max(1, _AT_ONCE // weights.shape[1])
    parts = [weights[at : at + rows] for at in range(0, len(weights), rows)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        yield from pool.map(made, parts)


def _joined(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(list(parts))


def _rounded(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """As they are kept, so that values are rounded for the scale they will meet; a row
    of zeros gets a scale that divides."""
    kept = scales.astype(np.float16)
    return np.where(kept == 0, np.float16(1), kept)
