"""Encodings against the formulas, AIMET's published check values, and onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import Grid

U8 = Grid(8, signed=False, symmetric=False)
S8 = Grid(8, signed=True, symmetric=True)


def test_asymmetric_range_is_kept_where_the_grid_allows() -> None:
    # AIMET's own unit test: arange(0, 26, .5), asymmetric, 8 bit -> [0, 25.5].
    encoding = encoding_from_range(0.0, 25.5, U8)
    assert (encoding.minimum, encoding.maximum) == (0.0, pytest.approx(25.5, rel=1e-6))
    assert encoding.zero_point == 0


def test_symmetric_grid_reaches_both_ends() -> None:
    # AIMET's own unit test: arange(-2, 10), 3 bit, not strict -> [-12, 9].
    encoding = encoding_from_range(-2.0, 9.0, Grid(3, signed=True, symmetric=True))
    assert (encoding.minimum, encoding.maximum) == (-12.0, 9.0)


def test_symmetric_uses_the_extra_negative_step() -> None:
    assert encoding_from_range(-1.0, 0.5, S8).scale == np.float32(1 / 128)
    assert encoding_from_range(-0.5, 1.0, S8).scale == np.float32(1 / 127)


def test_zero_is_always_on_the_grid() -> None:
    for low, high in [(0.5, 2.0), (-3.0, -1.0), (-1e-3, 5.0), (-7.3, 0.01)]:
        encoding = encoding_from_range(low, high, U8)
        assert encoding.quantize_dequantize(np.zeros(1, np.float32))[0] == 0.0


def test_degenerate_range_gives_a_usable_scale() -> None:
    assert encoding_from_range(0.0, 0.0, U8).scale == np.float32(2**-23)


def test_infinite_range_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        encoding_from_range(0.0, np.inf, U8)


@given(
    low=st.floats(-1e4, 0), high=st.floats(1e-3, 1e4), bits=st.integers(2, 16), signed=st.booleans()
)
def test_values_in_range_move_by_half_a_step_at_most(
    low: float, high: float, bits: int, signed: bool
) -> None:
    encoding = encoding_from_range(low, high, Grid(bits, signed, symmetric=False))
    values = np.linspace(low, high, 257, dtype=np.float32)
    error = np.abs(encoding.quantize_dequantize(values) - values)
    # Rounding the zero point may shift the range by half a step more at one end.
    assert error.max() <= 1.001 * float(encoding.scale) + 1e-6 * max(-low, high)


def runtime_quantize(x: np.ndarray, encoding: Encoding) -> np.ndarray:
    """What onnxruntime's QuantizeLinear makes of `x`."""
    dtype = np.int8 if encoding.grid.signed else np.uint8
    if encoding.grid.bits == 16:
        dtype = np.int16 if encoding.grid.signed else np.uint16
    node = onnx.helper.make_node(
        "QuantizeLinear", ["x", "s", "z"], ["y"], axis=encoding.axis if encoding.axis else 0
    )
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [
            onnx.helper.make_tensor_value_info(
                "y", onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), x.shape
            )
        ],
        [
            onnx.numpy_helper.from_array(encoding.scale, "s"),
            onnx.numpy_helper.from_array(encoding.zero_point.astype(dtype), "z"),
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("axis", [None, 1])
def test_integers_equal_onnxruntime(bits: int, signed: bool, axis: int | None) -> None:
    rng = np.random.default_rng(bits + signed)
    x = rng.standard_normal((16, 4, 50)).astype(np.float32) * np.float32(3)
    low, high = (-2.0, 4.0) if axis is None else (np.full(4, -2.0), np.array([1.0, 2, 4, 8]))
    encoding = encoding_from_range(low, high, Grid(bits, signed, symmetric=False), axis)
    # Ties: exact multiples of half a step.
    steps = np.arange(-50, 50, dtype=np.float32) + np.float32(0.5)
    x[0, 0, :] = steps[:50] * encoding.scale.reshape(-1)[0]
    np.testing.assert_array_equal(encoding.quantize(x), runtime_quantize(x, encoding))
