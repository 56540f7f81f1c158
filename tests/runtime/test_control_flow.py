"""If, Loop, Scan and SequenceMap: values against onnxruntime, captured values, gradients."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

import studio.runtime.plan as plan_module
from studio.errors import ModelError, UnsupportedOpsError
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.onnx_file import load_onnx
from studio.graph.prepare.names import fill_names
from studio.runtime.budget import samples
from studio.runtime.executor import Executor
from studio.runtime.ops import unsupported_ops

HEADER = '<ir_version: 9, opset_import: ["" : 18]> '
Load = Callable[[str], ModelGraph]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A graph as it is in a file of that text, its nodes named, nothing prepared."""

    def from_text(text: str) -> ModelGraph:
        model = onnx.parser.parse_model(HEADER + text)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        graph = load_onnx(path)
        fill_names(graph.ir)
        return ModelGraph(graph.ir, ModelSource(path))

    return from_text


def judge(graph: ModelGraph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def assert_as_onnxruntime(graph: ModelGraph, **feeds: np.ndarray) -> None:
    expected = judge(graph, feeds)
    for recording in (False, True):
        with torch.set_grad_enabled(recording):
            found = Executor(graph).run(feeds)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert tuple(found[name].shape) == array.shape, name
            assert found[name].numpy().dtype == array.dtype, name
            np.testing.assert_allclose(found[name].numpy(), array, rtol=1e-6, atol=1e-6)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


BRANCHES = """
g (float[N, 3] x, bool c, bool d) => (float[N, 3] y, float[N, 3] z)
<float[3] w = {1, -2, 3}>
{
    a = Relu(x)
    y, z = If (c) <
        then_branch = yes () => (float[N, 3] p, float[N, 3] q) {
            p = Mul(a, w)
            q = If (d) <
                then_branch = inner () => (float[N, 3] r) { r = Sub(x, p) },
                else_branch = other () => (float[N, 3] s) { s = Neg(a) }>
        },
        else_branch = no () => (float[N, 3] p2, float[N, 3] x) { p2 = Add(a, w) }>
}
"""


@pytest.mark.parametrize("c", [True, False])
@pytest.mark.parametrize("d", [True, False])
def test_nested_branches_read_values_of_every_graph_around_them(
    load: Load, c: bool, d: bool
) -> None:
    assert_as_onnxruntime(load(BRANCHES), x=floats(2, 3), c=np.array(c), d=np.array(d))


LOOP = """
g (int64 n, bool go, float[2] x) => (float[2] last, float[K, 2] rows, int64[K] counts)
<float[2] step = {1, 0.5}, float limit = {3}>
{
    last, rows, counts = Loop (n, go, x) <body =
        body (int64 i, bool before, float[2] state) =>
            (bool goes_on, float[2] after, float[2] row, int64 count)
        {
            after = Add(state, step)
            most = ReduceMax<keepdims = 0>(after)
            goes_on = Less(most, limit)
            row = Mul(after, x)
            count = Identity(i)
        }>
}
"""


@pytest.mark.parametrize(
    ("n", "go"), [(0, True), (3, False), (2, True), (50, True)], ids=["none", "not", "two", "stop"]
)
def test_a_loop_ends_by_its_count_or_its_condition(load: Load, n: int, go: bool) -> None:
    assert_as_onnxruntime(load(LOOP), n=np.array(n), go=np.array(go), x=floats(2))


def test_a_loop_without_a_count_or_without_a_condition(load: Load) -> None:
    text = LOOP.replace("int64 n, ", "").replace("Loop (n, go, x)", 'Loop ("", go, x)')
    assert_as_onnxruntime(load(text), go=np.array(True), x=floats(2))
    text = LOOP.replace("bool go, ", "").replace("Loop (n, go, x)", 'Loop (n, "", x)')
    assert_as_onnxruntime(load(text), n=np.array(3), x=floats(2))


def test_the_state_of_a_loop_may_grow(load: Load) -> None:
    graph = load(
        """g (int64 n, float[N] x) => (float[M] y) {
        y = Loop (n, "", x) <body = b (int64 i, bool c, float[A] s) => (bool c2, float[B] t) {
            c2 = Identity(c)
            t = Concat<axis = 0>(s, x)
        }> }"""
    )
    assert_as_onnxruntime(graph, n=np.array(4), x=floats(3))


def test_a_loop_within_a_loop_and_a_branch_within_that(load: Load) -> None:
    graph = load(
        """g (float[2] x, int64 n) => (float[2] y)
        <int64 two = {2}, int64 one = {1}, bool always = {1}>
        {
          y = Loop (n, always, x) <body = outer (int64 i, bool c, float[2] s) =>
              (bool c2, float[2] t) {
            c2 = Identity(c)
            t = Loop (two, c, s) <body = inner (int64 j, bool d, float[2] u) =>
                (bool d2, float[2] v) {
              d2 = Identity(d)
              odd = Equal(i, one)
              v = If (odd) <
                then_branch = a () => (float[2] e) { e = Add(u, s) },
                else_branch = b () => (float[2] f) { f = Sub(u, x) }>
            }>
          }>
        }"""
    )
    assert_as_onnxruntime(graph, x=floats(2), n=np.array(3))


@pytest.mark.parametrize(
    "settings",
    [
        "",
        ", scan_input_directions = [1], scan_input_axes = [1], "
        "scan_output_directions = [1], scan_output_axes = [-1]",
    ],
)
def test_scan(load: Load, settings: str) -> None:
    graph = load(
        f"""g (float[3] start, float[3, 3] xs) => (float[3] last, float[3, 3] sums)
        <float half = {{0.5}}>
        {{ last, sums = Scan (start, xs) <num_scan_inputs = 1{settings}, body =
            b (float[3] s, float[3] x) => (float[3] t, float[3] row)
            {{ scaled = Mul(x, half)  t = Add(s, scaled)  row = Mul(t, start) }}> }}"""
    )
    assert_as_onnxruntime(graph, start=floats(3), xs=floats(3, 3, seed=1))


def test_a_sequence_as_the_state_of_a_loop(load: Load) -> None:
    graph = load(
        """g (int64 n, float[2] x) => (float[M, 2] y) {
        empty = SequenceEmpty()
        all = Loop (n, "", empty) <body = b (int64 i, bool c, seq(float[2]) s) =>
            (bool c2, seq(float[2]) t) {
            c2 = Identity(c)
            as_float = Cast<to = 1>(i)
            row = Mul(x, as_float)
            t = SequenceInsert(s, row)
        }>
        y = ConcatFromSequence<axis = 0, new_axis = 1>(all) }"""
    )
    assert_as_onnxruntime(graph, n=np.array(3), x=floats(2))


def test_a_map_over_sequences(load: Load) -> None:
    graph = load(
        """g (float[2] a, float[2] b, float[2] scale) => (float[2, 2] y) {
        parts = SequenceConstruct(a, b)
        more = SequenceMap (parts, scale) <body = m (float[2] e, float[2] f) => (float[2] r)
            { p = Mul(e, f)  r = Sub(p, a) }>
        y = ConcatFromSequence<axis = 0, new_axis = 1>(more) }"""
    )
    a, b, scale = floats(2), floats(2, seed=1), floats(2, seed=2)
    found = Executor(graph).run({"a": a, "b": b, "scale": scale})["y"].numpy()
    np.testing.assert_allclose(found, np.stack([a * scale - a, b * scale - a]), rtol=1e-6)


CAPTURED = """
g (float[4] x, bool c) => (float[4] y)
{
    a = Exp(x)
    b = Neg(a)
    d = If (c) <then_branch = t () => (float[4] p) { p = Identity(a) },
                else_branch = e () => (float[4] q) { q = Exp(b) }>
    y = Add(d, b)
}
"""


def test_work_in_place_leaves_alone_what_a_branch_reads_later(load: Load) -> None:
    x = floats(4)
    for c in (True, False):
        assert_as_onnxruntime(load(CAPTURED), x=x, c=np.array(c))


def test_a_quantizer_of_a_captured_value_reaches_the_branch(load: Load) -> None:
    executor = Executor(load(CAPTURED), quantize={"a": torch.round})
    with torch.inference_mode():
        y = executor.run({"x": torch.tensor([0.0, 1.0, 2.0, 3.0]), "c": torch.tensor(True)})["y"]
    assert torch.equal(y, torch.zeros(4))  # round(a) - round(a)


def test_what_a_branch_reads_is_kept_until_then_and_no_longer(load: Load) -> None:
    text = CAPTURED.replace("y = Add(d, b)", "h = Neg(d)  y = Relu(h)").replace(
        "q = Exp(b)", "q = Exp(x)"
    )
    alive: dict[str, weakref.ref[Tensor]] = {}
    seen: list[bool] = []

    def remember(tensor: Tensor) -> Tensor:
        alive["a"] = weakref.ref(tensor)
        return tensor

    def look(tensor: Tensor) -> Tensor:
        gc.collect()
        seen.append(alive["a"]() is not None)
        return tensor

    executor = Executor(load(text), quantize={"a": remember, "d": look, "h": look})
    with torch.inference_mode():
        executor.run({"x": floats(4), "c": np.array(False)})
    assert seen == [True, False]


def test_running_a_node_alone_needs_what_it_captures(load: Load) -> None:
    graph = load(CAPTURED)
    node = next(node.name or "" for node in graph.nodes() if node.op_type == "If")
    a, b = torch.rand(4), torch.rand(4)
    executor = Executor(graph)
    found = executor.run_nodes([node], {"a": a, "b": b, "c": torch.tensor(False)}, ["d"])["d"]
    assert torch.equal(found, torch.exp(b))
    with pytest.raises(ModelError, match=r"missing: b\."):
        executor.run_nodes([node], {"a": a, "c": torch.tensor(False)}, ["d"])


def test_gradients_flow_through_branches_and_loops(load: Load) -> None:
    graph = load(
        """g (float[2] x, int64 n, bool c) => (float[2] y)
        <float[2] w = {0.5, 2}>
        {
          p = Loop (n, "", x) <body = b (int64 i, bool d, float[2] s) => (bool d2, float[2] t)
            { d2 = Identity(d)  t = Mul(s, w) }>
          y = If (c) <then_branch = t1 () => (float[2] q) { q = Mul(p, w) },
                      else_branch = t2 () => (float[2] r) { r = Identity(p) }>
        }"""
    )
    executor = Executor(graph)
    w = executor.parameters["w"].requires_grad_()
    x = torch.tensor([3.0, 5.0], requires_grad=True)
    feeds = {"x": x, "n": torch.tensor(3), "c": torch.tensor(True)}
    executor.run(feeds)["y"].sum().backward()
    expected = torch.tensor([0.5, 2.0])
    assert torch.allclose(w.grad, 4 * expected**3 * x.detach())
    assert torch.allclose(x.grad, expected**4)


def test_a_body_is_compiled_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = plan_module._body
    monkeypatch.setattr(plan_module, "_body", lambda *a: compiled.append(1) or original(*a))
    executor = Executor(load(LOOP))
    for n in (2, 3):
        executor.run({"n": np.array(n), "go": np.array(True), "x": floats(2)})
    assert compiled == [1]


def test_an_operator_within_a_body_that_fails_is_named(load: Load) -> None:
    graph = load(
        """g (float[N] x, float[M] y, bool c) => (float[K] z)
        { z = If (c) <then_branch = t () => (float[K] p) { p = Add(x, y) },
                      else_branch = e () => (float[K] q) { q = Identity(x) }> }"""
    )
    feeds = {"x": floats(2), "y": floats(3), "c": np.array(True)}
    inner = next(n.name for n in graph.ir.graph.all_nodes() if n.op_type == "Add")
    with pytest.raises(ModelError, match=rf"'{inner}' \(Add\).*\[2\], \[3\]"):
        Executor(graph).run(feeds)


def test_an_operator_within_a_body_that_is_not_supported_is_named(load: Load) -> None:
    graph = load(
        """g (float[N] x, bool c) => (float[N] z)
        { z = If (c) <then_branch = t () => (float[N] p) { p = vendor.Magic(x) },
                      else_branch = e () => (float[N] q) { q = Identity(x) }> }"""
    )
    ((key, names),) = unsupported_ops(graph).items()
    assert key.startswith("vendor::Magic")
    assert len(names) == 1
    assert names[0]
    with pytest.raises(UnsupportedOpsError, match="Magic"):
        Executor(graph)


def test_single_numbers_among_the_inputs_are_no_samples() -> None:
    assert samples({"sr": np.array(16000), "x": np.zeros((3, 2))}) == 3
    assert samples({"sr": np.array(16000)}) == 1
