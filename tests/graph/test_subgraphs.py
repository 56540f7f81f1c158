"""Branches and loops: inlined, unrolled, or left with everything they read intact; fixed inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_models import ops, run

from studio.errors import ModelError
from studio.graph.bind import bind_inputs
from studio.graph.model import ModelGraph
from studio.graph.onnx_file import load_onnx
from studio.graph.prepare import prepare
from studio.graph.subgraphs import captured, nodes_within
from studio.project.fingerprint import fingerprint


def loaded(text: str, folder: Path, opset: int = 18, version: int = 9) -> ModelGraph:
    model = onnx.parser.parse_model(f'<ir_version: {version}, opset_import: ["" : {opset}]> {text}')
    path = folder / "model.onnx"
    onnx.save(model, path)
    return load_onnx(path)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def assert_same(before: ModelGraph, after: ModelGraph, feeds: dict[str, np.ndarray]) -> None:
    """Both compute the same, and preparing again changes nothing."""
    expected = run(before.to_proto(), feeds)
    names = {value.name for value in after.inputs}
    found = run(after.to_proto(), {k: v for k, v in feeds.items() if k in names})
    assert [value.name for value in after.outputs] == [value.name for value in before.outputs]
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert prepare(after).changes == after.changes


def rules(graph: ModelGraph) -> set[str]:
    return {change.rule for change in graph.changes}


def all_names(graph: ModelGraph) -> list[str]:
    """Names of all tensors, those in subgraphs too."""
    names: list[str] = []
    for part in (graph.ir.graph, *graph.ir.graph.subgraphs()):
        values = {*part.inputs, *part.initializers.values()}
        values |= {value for node in part for value in node.outputs}
        names += [value.name or "" for value in values]
    return names


# ---- branches

BY_RATE = """
g (float[N, 4] x, int64 rate) => (float[N, 2] y, float[N, 2] z)
{
    known = Constant<value = int64 {16000}>()
    high = Equal(rate, known)
    y, z = If (high) <
        then_branch = t () => (float[N, 2] a, float[N, 2] b)
        <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
            a = MatMul(x, w)
            zero = Constant<value = float {0}>()
            positive = Greater(zero, zero)
            b = If (positive) <
                then_branch = t2 () => (float[N, 2] c) { c = Neg(a) },
                else_branch = e2 () => (float[N, 2] d) { d = Mul(a, a) }>
        },
        else_branch = e () => (float[N, 2] a, float[N, 2] a)
        <float[4, 2] w = {8, 7, 6, 5, 4, 3, 2, 1}> { a = MatMul(x, w) }>
}
"""


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_fixed_input_decides_a_branch_whose_operators_become_the_models(
    tmp_path: Path, rate: int
) -> None:
    raw = loaded(BY_RATE, tmp_path)
    before = raw.copy()
    assert bind_inputs(raw.ir, {"rate": rate})[0].layer == "rate"
    graph = prepare(raw)
    assert [value.name for value in graph.inputs] == ["x"]
    assert "If" not in ops(graph)
    assert ops(graph)[0] == "MatMul"
    assert "inline branches" in rules(graph)
    assert len(graph.initializers) == 1  # the weights of the branch never taken are gone
    assert_same(before, graph, {"x": floats(3, 4), "rate": np.array(rate)})


def test_a_branch_that_depends_on_the_data_stays_whole(tmp_path: Path) -> None:
    raw = loaded(BY_RATE, tmp_path)
    graph = prepare(raw)
    assert ops(graph) == ["Equal", "If"]
    branch = next(node for node in graph.nodes() if node.op_type == "If")
    assert {"x", "w"} <= {value.name for value in captured(branch)}
    names = all_names(graph)
    assert len(set(names)) == len(names)
    assert set(graph.initializers) >= {"w"}  # weights are constants of the model
    assert "body constants" in rules(graph)
    for rate in (16000, 8000):
        assert_same(raw, graph, {"x": floats(3, 4), "rate": np.array(rate)})


def test_inlining_can_be_switched_off(tmp_path: Path) -> None:
    raw = loaded(BY_RATE, tmp_path)
    bind_inputs(raw.ir, {"rate": 8000})
    source = replace(raw.source, without=("inline branches",))
    assert "If" in ops(prepare(replace(raw, source=source)))


def test_a_branch_may_hand_on_a_value_from_outside(tmp_path: Path) -> None:
    raw = loaded(
        """g (float[4] x, bool c) => (float[4] y, float[4] z)
        <bool always = {1}> {
            y = If (c) <then_branch = t () => (float[4] x) {},
                        else_branch = e () => (float[4] n) { n = Neg(x) }>
            z = If (always) <then_branch = t3 () => (float[4] x) {},
                             else_branch = e3 () => (float[4] m) { m = Neg(x) }>
        }""",
        tmp_path,
    )
    graph = prepare(raw)
    assert sorted(ops(graph)) == ["Identity", "If"]
    for c in (True, False):
        x = floats(4)
        y, z = run(graph.to_proto(), {"x": x, "c": np.array(c)})
        np.testing.assert_array_equal(y, x if c else -x)
        np.testing.assert_array_equal(z, x)


# ---- loops

REPEAT = """
g (float[N, 2] x) => (float[N, 2] last, float[3, N, 2] rows)
<int64 n = {3}, bool go = {1}> {
    last, rows = Loop (n, go, x) <body =
        b (int64 i, bool c, float[N, 2] s) => (bool c2, float[N, 2] t, float[N, 2] row)
        <float[2, 2] w = {0.5, -1, 2, 0.25}> {
            c2 = Identity(c)
            m = MatMul(s, w)
            f = Cast<to = 1>(i)
            t = Add(m, s)
            moved = Sub(t, x)
            row = Mul(moved, f)
        }>
}
"""


def test_a_short_loop_is_written_out_and_shares_its_weights(tmp_path: Path) -> None:
    raw = loaded(REPEAT, tmp_path)
    graph = prepare(raw)
    assert "Loop" not in ops(graph)
    assert [use.idx for use in graph.value("w").uses()] == [1, 1, 1]
    assert {"unroll loops", "shared weights"} <= rules(graph)
    names = all_names(graph)
    assert len(set(names)) == len(names)
    assert_same(raw, graph, {"x": floats(2, 2)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<int64 n = {3}, bool go = {1}>", "<int64 n = {65}, bool go = {1}>"),
        ("c2 = Identity(c)", "k = Constant<value = int64 {1}>() c2 = Less(i, k)"),
        ("(float[N, 2] x) =>", "(float[N, 2] x, bool go) =>"),
    ],
    ids=["too long", "may end early", "may not start"],
)
def test_other_loops_stay(tmp_path: Path, old: str, new: str) -> None:
    text = REPEAT.replace("float[3, N, 2] rows", "float[K, N, 2] rows").replace(old, new)
    if "bool go)" in text:
        text = text.replace(", bool go = {1}", "")
    raw = loaded(text, tmp_path)
    graph = prepare(raw)
    assert ops(graph) == ["Loop"]
    feeds = {"x": floats(2, 2), "go": np.array(True)}
    assert_same(raw, graph, {k: feeds[k] for k in (value.name for value in raw.inputs)})


def test_a_loop_whose_state_is_swapped_is_written_out_rightly(tmp_path: Path) -> None:
    raw = loaded(
        """g (float[2] x, float[2] y) => (float[2] p, float[2] q)
        <int64 n = {3}> {
            p, q = Loop (n, "", x, y) <body = b (int64 i, bool c, float[2] s, float[2] t) =>
                (bool c2, float[2] t, float[2] s) { c2 = Identity(c) }>
        }""",
        tmp_path,
    )
    graph = prepare(raw)
    assert ops(graph) == ["Identity", "Identity"]
    assert_same(raw, graph, {"x": floats(2), "y": floats(2, seed=1)})


# ---- what subgraphs read stays as it was


def test_preparation_leaves_alone_what_a_body_reads(tmp_path: Path) -> None:
    raw = loaded(
        """g (float[N, 2, 4] x, bool c) => (float[N, 2, 4] y)
        <float[2, 2, 1] w = {1, 2, 3, 4}, float[2] gamma = {2, 3}, float[2] beta = {1, -1},
         float[2] mean = {0.5, 1}, float[2] var = {1, 4}, float[2, 1] bias = {5, 6}> {
            same = Identity(x)
            conv = Conv(same, w)
            norm = BatchNormalization(conv, gamma, beta, mean, var)
            biased = Add(norm, bias)
            y = If (c) <
                then_branch = t () => (float[N, 2, 4] p) { p = Add(conv, same) },
                else_branch = e () => (float[N, 2, 4] q) {
                    q0 = Mul(norm, biased) k = Conv(q0, w) q = Mul(k, bias) }>
        }""",
        tmp_path,
    )
    graph = prepare(raw)
    assert "fold batch norm" not in rules(graph)  # the branch reads what is before it
    for c in (True, False):
        assert_same(raw, graph, {"x": floats(3, 2, 4), "c": np.array(c)})


def test_nodes_come_after_what_their_bodies_read(tmp_path: Path) -> None:
    raw = loaded(
        """g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] p) { p = Exp(a) },
                        else_branch = e () => (float[2] q) { q = Neg(a) }>
            a = Abs(x)
        }""",
        tmp_path,
    )
    assert ops(raw) == ["Abs", "If"]
    assert ops(prepare(raw)) == ["Abs", "If"]


def test_operators_within_a_body_are_brought_to_the_new_opset(tmp_path: Path) -> None:
    text = """g (float[1, N, 4] x, bool c) => (float[N, 4] y) {
        y = If (c) <then_branch = t () => (float[N, 4] p) { p = Squeeze<axes = [0]>(x) },
                    else_branch = e () => (float[N, 4] q) {
                        s = Softmax<axis = 2>(x) q = Squeeze<axes = [0]>(s) }> }"""
    raw = loaded(text, tmp_path, opset=11, version=6)
    graph = prepare(raw)
    assert graph.opset == 17
    original = onnx.load(tmp_path / "model.onnx")
    for c in (True, False):
        feeds = {"x": floats(1, 3, 4), "c": np.array(c)}
        np.testing.assert_allclose(
            run(graph.to_proto(), feeds)[0], run(original, feeds)[0], rtol=1e-6
        )


def test_a_removed_branch_takes_its_weights_along(tmp_path: Path) -> None:
    raw = loaded(
        """g (float[2] x, bool c) => (float[2] y) {
            unused = If (c) <
                then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Add(x, w) },
                else_branch = e () => (float[2] q) { q = Neg(x) }>
            y = Abs(x)
        }""",
        tmp_path,
    )
    graph = prepare(raw)
    assert ops(graph) == ["Abs"]
    assert not graph.initializers


def test_the_fingerprint_covers_bodies(tmp_path: Path) -> None:
    text = "g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] p)"
    end = " { p = Abs(x) }, else_branch = e () => (float[2] q) { q = Neg(x) }> }"
    one, same, other = (
        fingerprint(prepare(loaded(text + body, tmp_path)))
        for body in (end, end, end.replace("Abs", "Exp"))
    )
    assert one == same != other


def test_nodes_within(tmp_path: Path) -> None:
    graph = loaded(BY_RATE, tmp_path)
    branch = next(node for node in graph.nodes() if node.op_type == "If")
    assert [node.op_type for node in nodes_within(branch)].count("MatMul") == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", else_branch = e () => (float[2] q) { q = Neg(x) }", "", "lacks its else_branch"),
        (
            "=> (float[2] q) { q",
            "=> (float[2] q, float[2] q2) { q2 = Abs(x) q",
            "2 outputs instead",
        ),
        ("p = Abs(x)", "p = Abs(nothing)", "lacks the tensor 'nothing'"),
        ("e () =>", "e (float[2] r) =>", "1 inputs and 1 outputs instead of 0 and 1"),
    ],
)
def test_malformed_branches_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (
        "g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] p)"
        " { p = Abs(x) }, else_branch = e () => (float[2] q) { q = Neg(x) }> }"
    )
    with pytest.raises(ModelError, match=message):
        loaded(text.replace(old, new), tmp_path)


# ---- fixed inputs

TWO = "g (float[N, 2] x, {kind} k) => (float[N, 2] y) {{ f = Cast<to = 1>(k) y = Add(x, f) }}"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("int64[1]", 3, [3]),
        ("int64[1]", [3], [3]),
        ("int64", np.float32(3), 3),
        ("float[2]", [1, 2.5], [1, 2.5]),
        ("float", 0.1, np.float32(0.1)),
        ("bool[A, 2]", [[True, False]], [[True, False]]),
        ("bool", 1, True),
        ("float16", 0.5, 0.5),
    ],
)
def test_values_take_the_inputs_type(
    tmp_path: Path, kind: str, value: object, expected: object
) -> None:
    raw = loaded(TWO.format(kind=kind), tmp_path)
    dtype = raw.value("k").dtype
    bind_inputs(raw.ir, {"k": value})
    constant = raw.ir.graph.initializers["k"].const_value
    assert constant is not None
    assert constant.dtype == dtype
    np.testing.assert_array_equal(constant.numpy(), np.array(expected))
    graph = prepare(ModelGraph(raw.ir, raw.source))
    assert [value.name for value in graph.inputs] == ["x"]
    run(graph.to_proto(), {"x": floats(1, 2)})


@pytest.mark.parametrize(
    ("kind", "fixed", "message"),
    [
        ("int64", {"sr": 1}, "no input 'sr'"),
        ("int64", {"k": 1, "x": [[0, 0]]}, "nothing is left"),
        ("int64", {"k": 1.5}, "cannot be stored as int64"),
        ("int64", {"k": float("nan")}, "cannot be stored as int64"),
        ("uint8", {"k": 300}, "cannot be stored as uint8"),
        ("float16", {"k": 1e9}, "cannot be stored as float16"),
        ("int64", {"k": "16k"}, "not made of numbers"),
        ("int64", {"k": [[1], [2, 3]]}, "not made of numbers"),
        ("int64", {"k": [1]}, r"shape \[1\]"),
        ("float[2]", {"k": [1, 2, 3]}, r"shape \[3\]"),
        ("float[2]", {"k": 1}, r"shape \[\]"),
    ],
)
def test_values_that_do_not_fit_are_refused_and_change_nothing(
    tmp_path: Path, kind: str, fixed: dict[str, object], message: str
) -> None:
    raw = loaded(TWO.format(kind=kind), tmp_path)
    with pytest.raises(ModelError, match=message):
        bind_inputs(raw.ir, fixed)
    assert [value.name for value in raw.ir.graph.inputs] == ["x", "k"]
    assert not raw.ir.graph.initializers


def test_a_large_whole_number_is_kept_exactly(tmp_path: Path) -> None:
    raw = loaded(TWO.format(kind="int64"), tmp_path)
    bind_inputs(raw.ir, {"k": 2**62 + 1})
    assert raw.ir.graph.initializers["k"].const_value.numpy() == 2**62 + 1
    assert isinstance(raw.ir.graph.initializers["k"].const_value, ir.Tensor)
