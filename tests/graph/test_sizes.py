"""The arithmetic of sizes: found, kept exact, and told apart from data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from graph_models import as_graph
from onnx import numpy_helper

from studio.analysis.shape_layers import shape_layers
from studio.graph.model import ModelGraph
from studio.graph.patterns import shape_arithmetic
from studio.graph.prepare import prepare
from studio.sim.config import QuantConfig
from studio.sim.placement import place

CONSTANTS: dict[str, np.ndarray] = {
    "w": np.ones((4, 3, 3, 3), np.float32),
    "two": np.array([2.0], np.float32),
    "i0": np.array([0]), "i2": np.array([2]), "m1": np.array([-1]),
}  # fmt: skip
RESIZED = """
    c = Conv<pads = [1, 1, 1, 1]>(x, w)
    s = Shape(x)
    side = Gather(s, i2)
    real = Cast<to = 1>(side)
    larger = Mul(real, two)
    whole = Floor(larger)
    size = Cast<to = 7>(whole)
    front = Slice(s, i0, i2)
    sizes = Concat<axis = 0>(front, size, size)
    r = Resize<mode = "nearest">(c, , , sizes)
    y = Relu(r)"""
SIZES = {"s", "side", "real", "larger", "whole", "size", "front", "sizes"}


def graph_of(body: str) -> ModelGraph:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[n, 3, h, w0] x) => (float[a, b, c0, d] y) {{ {body} }}"
    )
    for node in model.graph.node:
        node.name = node.output[0]
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in used
    )
    return prepare(as_graph(model))


def found(graph: ModelGraph) -> set[str | None]:
    return {node.name for node in shape_arithmetic(graph.ir.graph)}


def test_what_leads_to_a_size_is_found() -> None:
    graph = graph_of(RESIZED)
    assert found(graph) == SIZES
    plan = place(graph, QuantConfig())
    assert shape_layers(graph, plan) == SIZES
    assert shape_layers(graph, place(graph, QuantConfig(target="qualcomm-htp"))) == SIZES


def test_floating_point_sizes_are_never_quantized() -> None:
    graph = graph_of(RESIZED)
    tensors = place(graph, QuantConfig()).tensors
    assert {name for name in ("real", "larger", "whole", "two") if tensors[name].spec} == set()
    assert tensors["larger"].reason == "computes a size, which has to be exact"
    assert tensors["c"].spec is not None and tensors["y"].spec is not None
    marked = [change.layer for change in graph.changes if change.rule == "recognise sizes"]
    assert marked == ["real", "larger", "whole"]
    assert prepare(graph).changes == graph.changes


def test_without_the_rule_quantized_sizes_stay_in_sight() -> None:
    graph = graph_of(RESIZED)
    raw = graph.captured
    assert raw is not None
    graph = prepare(replace(raw, source=replace(raw.source, without=("recognise sizes",))))
    assert shape_layers(graph, place(graph, QuantConfig())) == SIZES - {"larger", "whole"}


def test_numbers_that_data_are_computed_with_are_data() -> None:
    """The mean by the number of positions: the count comes from a shape, and scales the data."""
    graph = graph_of("s = Size(x) n0 = Cast<to = 1>(s) y = Div(x, n0)")
    assert found(graph) == set()


def test_sizes_that_depend_on_data_are_data() -> None:
    graph = graph_of(
        "m = ReduceMax<keepdims = 0>(x) i = Cast<to = 7>(m) k = Reshape(i, m1) y = Tile(x, k)"
    )
    assert found(graph) == set()


def test_an_output_of_the_model_is_no_arithmetic() -> None:
    graph = graph_of("s = Shape(x) t = Cast<to = 1>(s) y = Reshape(t, m1)")
    assert found(graph) == set()


def test_only_the_last_reader_decides() -> None:
    """One gathered size goes to a Reshape and into the data."""
    graph = graph_of(
        "s = Shape(x) k = Gather(s, i2) f = Cast<to = 1>(k) d = Mul(x, f) "
        "t = Concat<axis = 0>(k, m1) y = Reshape(d, t)"
    )
    assert found(graph) == {"t"}
