"""Models with branches and loops through placement, calibration, export and verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from studio import QuantConfig, QuantSim, export, open_model
from studio.analysis.cost import layer_costs
from studio.errors import DataError
from studio.exporting.folder import load_export
from studio.graph.model import ModelGraph
from studio.sim.placement import place
from studio.sim.plan import Plan, Role

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w1 = {1, 2, 3, 4, 4, 3, 2, 1, -1, 0, 1, 0, 0, -1, 0, 1},
 float[4, 4] w2 = {2, 0, 0, 1, 0, 2, 1, 0, 0, 1, 2, 0, 1, 0, 0, 2},
 float[4, 4] shared = {1, 0, 0, 2, 0, 1, 2, 0, 0, 2, 1, 0, 2, 0, 0, 1},
 float[4] scale = {1, 2, 3, 4},
 float zero = {0}, int64 n = {2}, int64[2] both = {0, 1}>
{
    a = MatMul(x, w1)
    s = MatMul(a, shared)
    total = ReduceSum<keepdims = 0>(s)
    positive = Greater(total, zero)
    b = If (positive) <
        then_branch = t () => (float[N, 4] p) {
            in1 = MatMul(a, w2)
            in2 = MatMul(in1, shared)
            p = Relu(in2)
        },
        else_branch = e () => (float[N, 4] q) { in3 = Mul(s, scale) q = Neg(in3) }>
    more = Sigmoid(total)
    goes = Greater(more, zero)
    c, rows = Loop (n, goes, b) <body = l (int64 i, bool k, float[N, 4] u) =>
        (bool k2, float[N, 4] v, float[N, 4] r)
        <float[1] tenth = {0.1}> { k2 = Identity(k) h = Mul(u, tenth) v = Add(h, a) r = Sub(v, a) }>
    sum = ReduceSum<keepdims = 0>(rows)
    d = Mul(c, sum)
    y = MatMul(d, w1)
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "flow.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), file)
    return file


def placed(path: Path) -> tuple[ModelGraph, Plan]:
    graph = open_model(path)
    assert [n.op_type for n in graph.nodes() if n.op_type in ("If", "Loop")] == ["If", "Loop"]
    return graph, place(graph, QuantConfig())


def test_every_tensor_of_every_graph_has_an_encoding_or_a_reason(path: Path) -> None:
    graph, plan = placed(path)
    everywhere: set[str | None] = set()
    for part in (graph.ir.graph, *graph.ir.graph.subgraphs()):
        everywhere |= {value.name for value in part.inputs} | set(part.initializers)
        everywhere |= {value.name for node in part for value in node.outputs if value.name}
    assert set(plan.tensors) == everywhere
    assert all(row.spec is not None or row.reason for row in plan.tensors.values())


def test_inside_a_branch_nothing_is_quantized_and_at_its_end_all_is(path: Path) -> None:
    _, plan = placed(path)
    for name in ("in1", "in2", "p", "q", "u", "v", "tenth"):
        row = plan.tensors[name]
        assert row.spec is None
        assert row.reason.startswith(("inside the", "read inside the")), row.reason
    assert plan.tensors["w2"].reason == "read inside the If 'If_4', where nothing is quantized"
    assert plan.tensors["w2"].role is Role.WEIGHT
    assert plan.tensors["shared"].spec is not None  # a layer outside reads it too
    for name in ("a", "s", "b", "c", "rows"):
        assert plan.tensors[name].spec is not None, plan.tensors[name].reason
    branch = next(layer for layer in plan.layers if layer.ops == ("If",))
    assert branch.inputs == ("positive", "a", "s")


def test_what_a_branch_reads_is_no_part_of_a_fused_layer(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]>
        g (float[N, 2, 4] x, bool c) => (float[N, 2, 4] y) <float[2, 2, 1] w = {1, 2, 3, 4}> {
        a = Conv(x, w)
        y = If (c) <then_branch = t () => (float[N, 2, 4] p) { p = Relu(a) },
                    else_branch = e () => (float[N, 2, 4] q) { q = Neg(x) }> }"""
    file = tmp_path / "fused.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    plan = place(open_model(file), QuantConfig())
    assert [layer.ops for layer in plan.layers] == [("Input",), ("Input",), ("Conv",), ("If",)]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_exported_file_computes_the_simulation(path: Path, tmp_path: Path, bits: int) -> None:
    graph = open_model(path)
    defaults = QuantConfig().defaults.model_copy(update={"act_bits": bits})
    sim = QuantSim(graph, QuantConfig(defaults=defaults))
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    sim.calibrate([x[:8], x[8:]])
    summary = export(sim, tmp_path / "out")
    assert summary.verification is not None
    assert summary.verification.passed
    assert not summary.verification.different_constants
    again, plan, encodings = load_export(tmp_path / "out", sim.config)
    assert set(plan.tensors) == set(sim.plan.tensors)
    assert set(encodings) == set(sim.encodings)
    assert [node.op_type for node in again.nodes()] == [node.op_type for node in graph.nodes()]


def test_a_result_that_is_sometimes_empty_is_ranged_where_it_is_not(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]>
        g (float[N, 4] x, float[N] k) => (float[M, 4] y) <float zero = {0}> {
        keep = Greater(k, zero)
        y = Compress<axis = 0>(x, keep) }"""
    file = tmp_path / "empty.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    x = np.array([[-1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    sim = QuantSim(open_model(file))
    with pytest.raises(DataError, match=r"tensor y, made by .*, is empty for every sample"):
        sim.calibrate([{"x": x, "k": np.array([-1, -1], np.float32)}])
    batches = [{"x": x, "k": np.array(k, np.float32)} for k in ([-1, -1], [1, -1])]
    sim.calibrate(batches, batch_size=2)
    assert sim.statistics["y"].minimum == -1
    assert sim.statistics["y"].maximum == 4


def test_validation_knows_that_the_work_of_a_branch_is_unknown(path: Path) -> None:
    graph, plan = placed(path)
    costs = {cost.layer: cost for cost in layer_costs(graph, plan, {})}
    branch = next(layer for layer in plan.layers if layer.ops == ("If",))
    assert costs[branch.name].macs is None
    assert sum(cost.float_bytes for cost in costs.values()) >= 4 * 3 * 16
