"""Encodings and fake-quantization against ONNX operators: onnxruntime, and where it lacks the type
ONNX's own reference."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from quant_reference import GRANULARITIES, SHAPE, random_encoding, random_values

from studio.quant.dynamic import DynamicFakeQuantizer
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer
from studio.quant.grid import FloatGrid, Grid

NATIVE = [
    *(
        Grid(bits, signed, symmetric)
        for bits in (2, 4, 8, 16)
        for signed in (False, True)
        for symmetric in (False, True)
    ),
    *(
        FloatGrid(name)
        for name in ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
    ),
    Grid(8, True, True, power_of_two=True),
    FloatGrid("float8e4m3fn", power_of_two=True),
]


def type_name(grid: Grid | FloatGrid) -> str:
    if isinstance(grid, FloatGrid):
        return grid.format.upper()
    return f"{'' if grid.signed else 'U'}INT{grid.bits}"


def pair_model(encoding: Encoding) -> onnx.ModelProto:
    """x -> QuantizeLinear -> DequantizeLinear -> y."""
    dtype = getattr(onnx.TensorProto, type_name(encoding.grid))
    shape = encoding.scale.shape
    constants = [
        helper.make_tensor("s", onnx.TensorProto.FLOAT, shape, encoding.scale.ravel()),
        helper.make_tensor("z", dtype, shape, encoding.zero_point.ravel().tolist()),
    ]
    where = {} if encoding.axis is None else {"axis": encoding.axis}
    if encoding.block_size is not None:
        where["block_size"] = encoding.block_size
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **where),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **where),
    ]
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * len(SHAPE))
        for name in "xy"
    )
    graph = helper.make_graph(nodes, "pair", [x], [y], constants)
    opset = 25 if encoding.grid.bits == 2 else 23 if encoding.grid.bits == 4 else 21
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13 if opset > 23 else 10
    )


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("grid", NATIVE, ids=str)
def test_equals_onnxruntime_bit_for_bit(grid: Grid | FloatGrid, granularity: str) -> None:
    rng = np.random.default_rng(5)
    encoding = random_encoding(grid, granularity, rng)
    model = pair_model(encoding)
    for _ in range(4):
        x = random_values(encoding, rng)
        x[1, 1, :2] = 1e3, -1e3
        if encoding.block_size is None and grid.bits > 4:
            # onnxruntime's other kernels wrap around beyond 2**31 steps, against ONNX.
            x[2, 2] = np.inf, -np.inf, 3e38, -3e38
        expected = run(model, x)
        np.testing.assert_array_equal(FakeQuantizer(encoding, 3)(torch.tensor(x)), expected)
        np.testing.assert_array_equal(encoding.quantize_dequantize(x), expected)
        np.testing.assert_array_equal(encoding.dequantize(encoding.quantize(x)), expected)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_low_power_blocks_equal_onnxruntime(bits: int) -> None:
    rng = np.random.default_rng(6)
    peak = rng.uniform(0.5, 3, (6, 2, 4))
    encoding = encoding_from_range(-peak, peak, Grid(bits, True, True), 1, 5, lpbq=bits < 16)
    x = random_values(encoding, rng)
    np.testing.assert_array_equal(encoding.quantize_dequantize(x), run(pair_model(encoding), x))


@pytest.mark.parametrize("name", ["float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"])
def test_all_bit_patterns_around_a_format_equal_onnxruntime(name: str) -> None:
    encoding = encoding_from_range(-1.0, 1.0, FloatGrid(name))
    encoding = Encoding(encoding.grid, np.ones((), np.float32), encoding.zero_point)
    # Upper halves of float32 with the lower half at, below and above a tie.
    upper = np.arange(2**16, dtype=np.uint32)[:, None] << 16
    x = (upper | np.array([0, 1, 0xFFFF], np.uint32)).view(np.float32)
    x = np.where(np.isnan(x), np.float32(1), x).reshape(1, -1, 1)
    expected = run(pair_model(encoding), x)
    np.testing.assert_array_equal(FakeQuantizer(encoding)(torch.tensor(x)), expected)


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("granularity", ["tensor", "channel 1"])
def test_float4_equals_the_onnx_reference(granularity: str, power_of_two: bool) -> None:
    rng = np.random.default_rng(7)
    encoding = random_encoding(FloatGrid("float4e2m1", power_of_two), granularity, rng)
    x = random_values(encoding, rng)
    (expected,) = ReferenceEvaluator(pair_model(encoding)).run(None, {"x": x})
    np.testing.assert_array_equal(FakeQuantizer(encoding, 3)(torch.tensor(x)), expected)


def cast_model(to: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=to),
        helper.make_node("Cast", ["h"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy")
    return helper.make_model(
        helper.make_graph(nodes, "cast", [x], [y]),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_equals_cast(name: str) -> None:
    encoding = encoding_from_range(-1.0, 1.0, FloatGrid(name))
    rng = np.random.default_rng(8)
    x = (rng.standard_normal(4000) * 10.0 ** rng.integers(-9, 6, 4000)).astype(np.float32)
    expected = run(cast_model(getattr(onnx.TensorProto, name.upper())), x)
    np.testing.assert_array_equal(FakeQuantizer(encoding)(torch.tensor(x)), expected)
    np.testing.assert_array_equal(encoding.quantize_dequantize(x), expected)


def test_bias_integers_equal_onnxruntime() -> None:
    # onnxruntime only dequantizes int32.
    rng = np.random.default_rng(9)
    scale = rng.uniform(1e-6, 1e-3, 8).astype(np.float32)
    encoding = Encoding(Grid(32, True, True), scale, np.zeros(8, np.int64), 0)
    bias = rng.uniform(-9, 9, 8).astype(np.float32) * np.array([1, 1e-9] * 4, np.float32)
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=0)],
        "bias",
        [helper.make_tensor_value_info("q", onnx.TensorProto.INT32, [8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [8])],
        [onnx.numpy_helper.from_array(scale, "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    integers = encoding.quantize(bias).astype(np.int32)
    expected = session.run(None, {"q": integers})[0]
    np.testing.assert_array_equal(FakeQuantizer(encoding, 1)(torch.tensor(bias)), expected)


@pytest.mark.parametrize("shift", [-30.0, -1.0, 0.0, 2.0, 40.0])
def test_dynamic_equals_onnxruntime(shift: float) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy")
    graph = helper.make_graph(nodes, "dynamic", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    quantizer = DynamicFakeQuantizer(Grid(8, False, False))
    rng = np.random.default_rng(10)
    for width in (0.0, 1e-3, 1.0, 7.0):
        for _ in range(10):
            values = (rng.standard_normal(300) * width + shift).astype(np.float32)
            np.testing.assert_array_equal(quantizer(torch.tensor(values)), run(model, values))
