"""QDQ files as AIMET writes them: names t_q and t_qdq, weights in float in front of QuantizeLinear,
biases in int32, 4-bit weights in blocks, opset 21."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from forms import exported

from studio.exporting.options import ExportOptions
from studio.graph.open import open_model
from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid
from studio.runtime.session import Optimizations, Session
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.found import AS_IN_FILE, constant_integers
from studio.sim.placement import place

sys.path.append(str(Path(__file__).parents[1]))
from quantized_models import model_of, packed

ACTIVATIONS = {"x": (0.02, 110), "relu": (0.03, 0), "pool": (0.03, 0), "flat": (0.03, 0),
               "y": (0.15, 131)}  # fmt: skip
RNG = np.random.default_rng(8)
CONV = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
FC = RNG.standard_normal((5, 36)).astype(np.float32)
BIAS = np.array([1000, -2000, 31, 0], np.int32)
CONFIG = QuantConfig(target="custom")


def ranges(array: np.ndarray, *axes: int) -> np.ndarray:
    return np.abs(array).max(axis=axes, keepdims=False)


CONV_ENCODING = encoding_from_range(
    -ranges(CONV, 1, 2, 3), ranges(CONV, 1, 2, 3), Grid(8, signed=True, symmetric=True), axis=0
)
PADDED = np.pad(FC, ((0, 0), (0, 12))).reshape(5, 3, 16)
FC_ENCODING = encoding_from_range(
    -ranges(PADDED, 2),
    ranges(PADDED, 2),
    Grid(4, signed=True, symmetric=True),
    axis=1,
    block_size=16,
)


def aimet_model(prequantized: bool) -> onnx.ModelProto:
    constants: dict[str, np.ndarray | onnx.TensorProto] = {
        "conv_weight_scale": CONV_ENCODING.scale,
        "conv_weight_zero_point": np.zeros(4, np.int8),
        "conv_bias_q": BIAS,
        "conv_bias_scale": CONV_ENCODING.scale * np.float32(0.02),
        "conv_bias_zero_point": np.zeros(4, np.int32),
        "fc_weight_scale": FC_ENCODING.scale,
        "fc_weight_zero_point": packed(np.zeros((5, 3)), onnx.TensorProto.INT4),
        "fc_bias": RNG.standard_normal(5).astype(np.float32),
    }
    for name, (scale, zero_point) in ACTIVATIONS.items():
        constants[f"{name}_scale"] = np.float32(scale)
        constants[f"{name}_zero_point"] = np.uint8(zero_point)
    if prequantized:
        quantize = ""
        constants["conv_weight_q"] = CONV_ENCODING.quantize(CONV).astype(np.int8)
        constants["fc_weight_q"] = packed(FC_ENCODING.quantize(FC), onnx.TensorProto.INT4)
    else:
        quantize = """
            conv_weight_q = QuantizeLinear<axis = 0>(
                conv_weight, conv_weight_scale, conv_weight_zero_point)
            fc_weight_q = QuantizeLinear<axis = 1, block_size = 16>(
                fc_weight, fc_weight_scale, fc_weight_zero_point)"""
        constants |= {"conv_weight": CONV, "fc_weight": FC}
    text = f"""(float[n, 3, 8, 8] x) => (float[n, 5] output) {{{quantize}
        conv_weight_qdq = DequantizeLinear<axis = 0>(
            conv_weight_q, conv_weight_scale, conv_weight_zero_point)
        conv_bias_qdq = DequantizeLinear<axis = 0>(
            conv_bias_q, conv_bias_scale, conv_bias_zero_point)
        fc_weight_qdq = DequantizeLinear<axis = 1, block_size = 16>(
            fc_weight_q, fc_weight_scale, fc_weight_zero_point)
        x_q = QuantizeLinear(x, x_scale, x_zero_point)
        x_qdq = DequantizeLinear(x_q, x_scale, x_zero_point)
        conv = Conv(x_qdq, conv_weight_qdq, conv_bias_qdq)
        relu = Relu(conv)
        relu_q = QuantizeLinear(relu, relu_scale, relu_zero_point)
        relu_qdq = DequantizeLinear(relu_q, relu_scale, relu_zero_point)
        pool = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(relu_qdq)
        pool_q = QuantizeLinear(pool, pool_scale, pool_zero_point)
        pool_qdq = DequantizeLinear(pool_q, pool_scale, pool_zero_point)
        flat = Flatten(pool_qdq)
        flat_q = QuantizeLinear(flat, flat_scale, flat_zero_point)
        flat_qdq = DequantizeLinear(flat_q, flat_scale, flat_zero_point)
        y = Gemm<transB = 1>(flat_qdq, fc_weight_qdq, fc_bias)
        y_q = QuantizeLinear(y, y_scale, y_zero_point)
        output = DequantizeLinear(y_q, y_scale, y_zero_point)
    }}"""
    return model_of(text, constants)


@pytest.mark.parametrize("prequantized", [False, True])
def test_round_trip(tmp_path: Path, prequantized: bool) -> None:
    file = aimet_model(prequantized)
    onnx.save(file, tmp_path / "aimet.onnx")
    graph = open_model(tmp_path / "aimet.onnx")
    assert [node.op_type for node in graph.nodes()] == [
        "Conv",
        "Relu",
        "MaxPool",
        "Flatten",
        "Gemm",
    ]
    assert not graph.warnings
    constants = {"conv_weight", "conv_bias", "fc_weight"}
    assert graph.found.keys() == constants | ACTIVATIONS.keys() - {"y"} | {"output"}
    if not prequantized:
        np.testing.assert_array_equal(graph.constant("conv_weight"), CONV)
        np.testing.assert_array_equal(graph.constant("fc_weight"), FC)

    plan = place(graph, CONFIG)
    encodings = compute_encodings(graph, plan, {})
    assert all(plan.tensors[name].reason == AS_IN_FILE for name in graph.found)
    integers = {
        name: constant_integers(graph, plan.tensors[name], encodings[name]) for name in constants
    }
    np.testing.assert_array_equal(integers["conv_weight"], CONV_ENCODING.quantize(CONV))
    np.testing.assert_array_equal(integers["fc_weight"], FC_ENCODING.quantize(FC))
    np.testing.assert_array_equal(integers["conv_bias"], BIAS)

    feeds = {"x": RNG.standard_normal((4, 3, 8, 8)).astype(np.float32)}
    expected = outputs(ir.from_proto(file), feeds)
    for options in (ExportOptions(), ExportOptions(weights="float")):
        model = exported(graph, plan, encodings, options)
        assert model.opset_imports[""] == 21
        np.testing.assert_array_equal(outputs(model, feeds), expected)


def outputs(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    (result,) = Session(model, optimizations=Optimizations.NONE).run(feeds).values()
    return result


def test_the_bias_follows_a_weight_that_is_quantized_anew(tmp_path: Path) -> None:
    onnx.save(aimet_model(False), tmp_path / "aimet.onnx")
    graph = open_model(tmp_path / "aimet.onnx")
    layer = next(item for item in place(graph, CONFIG).layers if "conv_weight" in item.weights)
    plan = place(graph, CONFIG.with_layers([layer.name], weight_bits=4))
    encodings = compute_encodings(graph, plan, {})
    assert encodings["conv_weight"].grid.bits == 4
    product = encodings["conv_weight"].scale * encodings["x"].scale
    np.testing.assert_array_equal(encodings["conv_bias"].scale, product)
    np.testing.assert_array_equal(encodings["fc_weight"].scale, FC_ENCODING.scale)
