"""Costs against closed forms, on real layers and measured shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from studio.analysis.cost import LayerCost, layer_costs, tensors_to_measure
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.runtime.shapes import measured_shapes
from studio.sim.config import QuantConfig
from studio.sim.placement import place

Model = tuple[list[onnx.NodeProto], dict[str, np.ndarray], tuple[int | str, ...]]


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def conv(group: int = 1) -> Model:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=group, pads=[1, 1, 1, 1])
    return [node], {"w": ones(8, 4 // group, 3, 3), "b": ones(8)}, ("N", 4, "H", "W")


def transposed() -> Model:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    return [node], {"w": ones(4, 6, 2, 2)}, ("N", 4, "H", "W")


def gemm() -> Model:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    return nodes, {"w": ones(10, 256)}, ("N", 4, 8, 8)


def lstm() -> Model:
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    return [node], {"w": ones(1, 12, 8), "r": ones(1, 12, 3)}, (4, "N", 8)


def einsum() -> Model:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bchw,cd->bdhw")
    return [node], {"w": ones(4, 5)}, ("N", 4, "H", "W")


def opened(model: Model, folder: object) -> ModelGraph:
    nodes, constants, shape = model
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path = f"{folder}/net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return open_model(path)


def cost_of(model: Model, x: np.ndarray, folder: object, config: QuantConfig) -> LayerCost:
    graph = opened(model, folder)
    plan = place(graph, config)
    shapes = measured_shapes(graph, {"x": x}, tensors_to_measure(graph))
    costs = layer_costs(graph, plan, shapes)
    return max(costs, key=lambda cost: cost.macs or 0)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (conv, (1, 4, 8, 8), 8 * 8 * 8 * 4 * 9),
        (lambda: conv(4), (1, 4, 8, 8), 8 * 8 * 8 * 1 * 9),
        (conv, (1, 4, 16, 8), 8 * 16 * 8 * 4 * 9),
        (transposed, (1, 4, 8, 8), 8 * 8 * 4 * 6 * 4),
        (gemm, (1, 4, 8, 8), 256 * 10),
        (lstm, (4, 1, 8), 4 * 12 * (8 + 3)),
        (einsum, (1, 4, 8, 8), 4 * 5 * 64),
    ],
)
def test_multiply_accumulates(
    model: Callable[[], Model], shape: tuple[int, ...], expected: int, tmp_path: object
) -> None:
    assert cost_of(model(), ones(*shape), tmp_path, QuantConfig()).macs == expected


def test_bits_and_bytes_follow_the_settings(tmp_path: object) -> None:
    config = QuantConfig().with_defaults(weight_bits=4, act_bits=8, weight_per_channel=False)
    cost = cost_of(conv(), ones(1, 4, 8, 8), tmp_path, config)
    assert cost.macs is not None
    assert cost.bit_operations == cost.macs * 4 * 8
    assert cost.float_bytes == 4 * (8 * 4 * 9 + 8)
    assert cost.quantized_bytes == 8 * 4 * 9 // 2 + 4 * 8  # weights at 4 bits, biases at 32


def test_a_float_layer_counts_32_bits(tmp_path: object) -> None:
    config = QuantConfig().with_defaults(weight_enabled=False, act_enabled=False)
    cost = cost_of(conv(), ones(1, 4, 8, 8), tmp_path, config)
    assert cost.macs is not None
    assert cost.bit_operations == cost.macs * 32 * 32
    assert cost.quantized_bytes == cost.float_bytes


def test_a_shape_that_is_not_known_makes_no_number(tmp_path: object) -> None:
    graph = opened(conv(), tmp_path)
    costs = layer_costs(graph, place(graph, QuantConfig()), {})
    assert [cost.macs for cost in costs] == [None]
    assert [cost.bit_operations for cost in costs] == [None]


def test_a_shared_weight_counts_once(tmp_path: object) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    graph = opened((nodes, {"w": ones(8, 8)}, ("N", 8)), tmp_path)
    costs = layer_costs(graph, place(graph, QuantConfig()), {})
    assert [cost.float_bytes for cost in costs] == [256, 0]
