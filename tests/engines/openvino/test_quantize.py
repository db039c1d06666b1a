"""What quantization keeps of weights, and that the runtime reads it as it was meant."""

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15 as op

from freehold.engines.openvino.graph import _dense
from freehold.engines.openvino.quantize import Format, Matrix, quantize

Weights = npt.NDArray[np.float32]
_HALF = 2.0**-11  # the relative error of a float16


def _read(matrix: Matrix) -> Weights:
    """As the runtime reads it: a graph that only multiplies by one."""
    _, columns = matrix.shape
    ones = op.parameter([columns, columns], ov.Type.f32)
    model = ov.Model([op.matmul(ones, _dense(matrix), False, True)], [ones], "reads")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    compiled = ov.Core().compile_model(model, "CPU", exact)
    return np.asarray(compiled([np.eye(columns, dtype=np.float32)])[0]).T


def _worked_out(matrix: Matrix) -> Weights:
    """The same in numpy, from what the docstring of `Matrix` says."""
    assert matrix.scales is not None
    if matrix.format == "int8":
        return matrix.values * matrix.scales.astype(np.float32)
    assert matrix.zeros is not None
    low, high = matrix.values & 15, matrix.values >> 4
    values = np.stack([low, high], -1).reshape(*low.shape[:2], -1).astype(np.float32)
    grouped = (values - matrix.zeros.astype(np.float32)) * matrix.scales.astype(np.float32)
    return np.asarray(grouped.reshape(matrix.shape), np.float32)


@st.composite
def _weights(draw: Any) -> Weights:
    """Of every size and shape that models hold: outliers, one sign, zeros, tiny values."""
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = chance.normal(size=(rows, groups * 32))
    values *= 10.0 ** draw(st.floats(-4, 2))
    values += draw(st.sampled_from([0.0, 0.0, 5.0, -5.0])) * np.abs(values).max()
    if draw(st.booleans()):
        values[0, draw(st.integers(0, 31))] *= 50
    if draw(st.booleans()):
        values[-1] = 0
    if draw(st.booleans()):
        values[0, :32] = values[0, 0]
    return values.astype(np.float32)


@settings(deadline=None)
@given(_weights())
def test_eight_bits_are_off_by_half_a_step_of_their_row(weights: Weights) -> None:
    matrix = quantize(weights, "int8")

    step = np.abs(weights).max(1, keepdims=True) / 127
    slack = step * 127 * _HALF + 127 * 2.0**-25  # the least float16 has steps too
    assert matrix.shape == weights.shape
    assert (np.abs(_worked_out(matrix) - weights) <= step / 2 + slack).all()


@settings(deadline=None)
@given(_weights())
def test_four_bits_are_off_by_a_step_of_their_group(weights: Weights) -> None:
    """By half a step inside, by one at an end that a whole zero point cuts off."""
    matrix = quantize(weights, "int4")

    grouped = weights.reshape(weights.shape[0], -1, 32)
    low = np.minimum(grouped.min(2, keepdims=True), 0)
    high = np.maximum(grouped.max(2, keepdims=True), 0)
    step = (high - low) / 15
    slack = 4 * _HALF * np.maximum(-low, high) + step / 20 + 2.0**-20
    error = np.abs(_worked_out(matrix).reshape(grouped.shape) - grouped)
    assert matrix.shape == weights.shape
    assert (error <= step + slack).all()
    assert np.square(error).mean() <= np.square(step / 2 + slack).mean()


def _on_a_grid() -> Weights:
    """Groups of 32 with a step and a least value, as in files of Q4_1."""
    chance = np.random.default_rng(3)
    levels = chance.integers(0, 16, (8, 4, 32)).astype(np.float32)
    levels[..., 0], levels[..., 1] = 0, 15
    step, least = chance.uniform(0.01, 0.02, (2, 8, 4, 1))
    return np.asarray(levels * step - 8 * least, np.float32).reshape(8, 128)


def test_weights_that_were_rounded_to_sixteen_steps_stay_what_they_are() -> None:
    weights = _on_a_grid()

    matrix = quantize(weights, "int4")

    assert np.abs(_worked_out(matrix) - weights).max() < np.abs(weights).max() * 3 * _HALF


def _noise() -> Weights:
    return np.random.default_rng(4).normal(size=(64, 128)).astype(np.float32)


def test_other_weights_get_the_whole_zero_points_that_are_fastest() -> None:
    matrix = quantize(_noise(), "int4")

    assert matrix.zeros is not None
    assert matrix.zeros.dtype == np.uint8
    assert matrix.zeros.max() <= 15


def test_the_runtime_reads_fractional_zero_points() -> None:
    matrix = quantize(_on_a_grid(), "int4")

    assert matrix.zeros is not None
    assert matrix.zeros.dtype == np.float16
    np.testing.assert_allclose(_read(matrix), _worked_out(matrix), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("columns", [32, 64, 128, 576])
def test_the_runtime_reads_what_was_written(format: Format, columns: int) -> None:
    """The order of the halves of a byte and of groups included: no two values are alike."""
    chance = np.random.default_rng(columns)
    weights = chance.normal(size=(5, columns)).astype(np.float32)
    matrix = quantize(weights, format)

    np.testing.assert_allclose(_read(matrix), _worked_out(matrix), rtol=2e-3, atol=4e-3)


@pytest.mark.parametrize(
    ("format", "fractional", "kept"),
    [("int8", False, "i8"), ("int4", False, "u4"), ("int4", True, "u4")],
)
def test_the_product_itself_reads_the_few_bits(format: Format, fractional: bool, kept: str) -> None:
    """Or else the runtime would write all weights out in 16 bits or more."""
    weights = _on_a_grid() if fractional else _noise()
    inputs = op.parameter([-1, weights.shape[1]], ov.Type.f32)
    product = op.matmul(inputs, _dense(quantize(weights, format)), False, True)
    model = ov.Model([product], [inputs], "multiplies")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})

    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    told = {node["layerType"].value: node["runtimePrecision"].value for node in nodes}

    assert told["FullyConnected"] == kept


def test_inputs_that_no_group_divides_stay_in_eight_bits() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 48)).astype(np.float32)

    assert quantize(weights, "int4").format == "int8"


def test_full_precision_is_kept_as_it_is() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 48)).astype(np.float32)

    matrix = quantize(weights, "float32")

    assert matrix.values is weights
    assert set(matrix.parts()) == {"values"}
