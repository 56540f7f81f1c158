"""Transposes that a conversion from channels last leaves; onnxruntime judges the results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from channels_last import TO_FIRST, TO_LAST, ChannelsLast, mobile_net
from graph_models import as_graph, assert_same_outputs, make_model, node, ops

from studio.graph.model import ModelGraph
from studio.graph.prepare import prepare


def prepared(model: onnx.ModelProto) -> ModelGraph:
    graph = prepare(as_graph(model))
    assert_same_outputs(model, graph)
    assert prepare(graph).changes == graph.changes
    return graph


def test_a_mobile_net_keeps_the_transpose_of_its_input_alone() -> None:
    model = mobile_net()
    assert sum(n.op_type == "Transpose" for n in model.graph.node) == 26
    graph = prepared(model)
    (transpose,) = [n for n in graph.nodes() if n.op_type == "Transpose"]
    assert graph.position(transpose.name) == 3  # behind Mul, Sub and Pad of the input
    convs = [n for n in graph.nodes() if n.op_type == "Conv"]
    assert all(len(conv.inputs) == 3 for conv in convs)
    assert ops(graph).count("Add") == 2 + 1  # the residuals and the shift behind the Concat
    assert ops(graph)[-2:] == ["Gemm", "Softmax"]


def region(*steps: Callable[[ChannelsLast, str], str]) -> onnx.ModelProto:
    """Conv, Transpose, `steps` in channels last, Transpose, Conv."""
    net = ChannelsLast()
    x = net.op("Transpose", net.op("Conv", "x", net.floats(4, 3, 1, 1)), perm=TO_LAST)
    for step in steps:
        x = step(net, x)
    turned = net.op("Transpose", x, perm=TO_FIRST)
    return net.model(net.op("Conv", turned, net.floats(2, 4, 1, 1)), ("N", 3, 6, 6))


def ints(net: ChannelsLast, *numbers: int) -> str:
    return net.constant(np.array(numbers))


STEPS: dict[str, Callable[[ChannelsLast, str], str]] = {
    "unary": lambda net, x: net.op("Sigmoid", x),
    "vector": lambda net, x: net.op("Mul", net.op("Relu", x), net.floats(4)),
    "matrix": lambda net, x: net.op("Add", net.op("Relu", x), net.floats(6, 4)),
    "image": lambda net, x: net.op("Add", net.op("Relu", x), net.floats(6, 6, 1)),
    "number": lambda net, x: net.op("Pow", x, net.constant(np.float32(2))),
    "prelu": lambda net, x: net.op("PRelu", x, net.floats(4)),
    "pad": lambda net, x: net.op("Pad", x, ints(net, 0, 1, 2, 0, 0, 0, 1, 0), mode="reflect"),
    "softmax": lambda net, x: net.op("Softmax", x, axis=-1),
    "mean": lambda net, x: net.op("Mul", x, net.op("ReduceMean", x, axes=[1, 2])),
    "max": lambda net, x: net.op("Add", x, net.op("ReduceMax", x, axes=[-1])),
    "concat": lambda net, x: net.op(
        "Slice", net.op("Concat", x, net.op("Neg", x), axis=3), ints(net, 1), ints(net, 5),
        ints(net, 3)),
    "slice without axes": lambda net, x: net.op("Slice", x, ints(net, 0, 1), ints(net, 99, 5)),
    "resize": lambda net, x: net.op(
        "Resize", x, "", net.constant(np.array([1, 2, 2, 1], np.float32)), mode="nearest"),
    "resize to sizes": lambda net, x: net.op(
        "Resize", x, "", "", ints(net, 3, 9, 8, 4), mode="nearest"),
    "tile": lambda net, x: net.op("Tile", x, ints(net, 1, 2, 1, 1)),
    "gather": lambda net, x: net.op("Gather", x, ints(net, 3, 1, 0, 2), axis=3),
    "where": lambda net, x: net.op("Where", net.op("Greater", x, net.floats(4)), x, net.floats(1)),
    "residual": lambda net, x: net.op("Add", x, net.first(x, "Conv", net.floats(4, 4, 1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_operators_between_layers_are_turned_round(name: str) -> None:
    graph = prepared(region(STEPS[name]))
    assert "Transpose" not in ops(graph)


def test_an_operator_tied_to_its_layout_stays() -> None:
    matmul = region(lambda net, x: net.op("MatMul", x, net.floats(4, 4)))
    assert ops(prepared(matmul)).count("Transpose") == 2


def test_split_and_shapes_taken_on_the_way() -> None:
    net = ChannelsLast()
    x = net.op("Relu", net.first("x", "Conv", net.floats(4, 3, 1, 1)))
    flat = net.op("Reshape", x, net.op("Shape", x))
    net.nodes.append(node("Split", [flat], ["one", "two"], axis=3, name="split"))
    net.nodes[-1].input.append(net.constant(np.array([2, 2])))
    pair = net.op("Mul", "one", "two")
    model = net.model(net.first(pair, "Conv", net.floats(3, 2, 1, 1)), ("N", 6, 6, 3))
    assert ops(prepared(model)).count("Transpose") == 2  # of the input and of the output


@pytest.mark.parametrize("keepdims", [0, 1])
def test_heads_take_the_tensor_as_it_is(keepdims: int) -> None:
    net = ChannelsLast()
    x = net.first("x", "Conv", net.floats(4, 3, 1, 1))
    mean = net.op("ReduceMean", x, axes=[1, 2], keepdims=keepdims)
    if keepdims:
        mean = net.op("Squeeze", mean, net.constant(np.array([1, 2])))
    model = net.model(mean, ("N", 6, 6, 3))
    assert ops(prepared(model)).count("Transpose") == 1


@pytest.mark.parametrize("trans_b", [0, 1])
def test_flattening_goes_into_the_weights(trans_b: int) -> None:
    net = ChannelsLast()
    x = net.op("Transpose", net.op("Conv", "x", net.floats(4, 3, 2, 2)), perm=TO_LAST)
    flat = net.op("Reshape", x, net.constant(np.array([-1, 4 * 3 * 2])))
    shape = (5, 24) if trans_b else (24, 5)
    out = net.op("Gemm", flat, net.floats(*shape), net.floats(5), transB=trans_b)
    graph = prepared(net.model(out, ("N", 3, 4, 3)))
    assert ops(graph) == ["Conv", "Reshape", "Gemm"]


def test_transposes_of_attention_stay_where_they_are() -> None:
    perm = [0, 2, 1, 3]
    model = make_model(
        [
            node("Transpose", ["x"], ["q"], perm=perm),
            node("Mul", ["q", "k"], ["s"]),
            node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
            node("MatMul", ["s", "t"], ["y"]),
        ],
        {"k": np.float32(0.5)},
        x=("N", 5, 2, 4),
    )
    assert ops(prepared(model)) == ["Transpose", "Mul", "Transpose", "MatMul"]


def test_an_output_inside_a_region_keeps_its_layout() -> None:
    net = ChannelsLast()
    x = net.op("Relu", net.first("x", "Conv", net.floats(4, 3, 1, 1)))
    net.nodes.append(node("Sigmoid", [x], ["z"], name="inner"))
    x = net.first("z", "Conv", net.floats(4, 4, 1, 1))
    x = net.first(net.op("Add", x, "z"), "Conv", net.floats(4, 4, 1, 1))
    model = net.model(x, ("N", 6, 6, 3))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    graph = prepared(model)
    assert [value.name for value in graph.outputs] == ["y", "z"]
    assert ops(graph).count("Transpose") == 3
