"""Recognised layers in placement and in the exported file; native operators with weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.loader import load_model_tests
from sim_graphs import graph_of

import studio
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.open import prepare_again
from studio.graph.patterns import RECOGNITION
from studio.graph.prepare import prepare
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.plan import Plan, Role
from studio.sim.target import load_target, target_names

BLOCK = """(float[n, 6, 8] x, float[n, 6] keep) => (float[n, 6, 8] y) {
    two = Constant<value_float = 2.0>()
    eps = Constant<value_float = 0.00001>()
    one = Constant<value_float = 1.0>()
    half = Constant<value_float = 0.5>()
    root2 = Constant<value_float = 1.4142135>()
    low = Constant<value_float = -1000000000.0>()
    axis = Constant<value_ints = [1]>()
    m = ReduceMean<axes = [-1]>(x)
    d = Sub(x, m)
    s = Pow(d, two)
    v = ReduceMean<axes = [-1]>(s)
    e = Add(v, eps)
    r = Sqrt(e)
    z = Div(d, r)
    g = Mul(z, gamma)
    ln = Add(g, beta)
    qm = MatMul(ln, wq)
    q = Add(qm, bq)
    km = MatMul(ln, wk)
    k = Add(km, bk)
    kt = Transpose<perm = [0, 2, 1]>(k)
    scores = MatMul(q, kt)
    scaled = Div(scores, two)
    k1 = Unsqueeze(keep, axis)
    inverse = Sub(one, k1)
    mask = Mul(inverse, low)
    masked = Add(scaled, mask)
    p = Softmax<axis = -1>(masked)
    a = MatMul(p, ln)
    res = Add(x, a)
    fm = MatMul(res, wf)
    f = Add(fm, bf)
    f1 = Div(f, root2)
    f2 = Erf(f1)
    f3 = Add(f2, one)
    f4 = Mul(f, f3)
    gelu = Mul(f4, half)
    y = MatMul(gelu, wo)
}"""
SIZES = {
    "gamma": (8,), "beta": (8,), "wq": (8, 8), "bq": (8,), "wk": (8, 8), "bk": (8,),
    "wf": (8, 16), "bf": (16,), "wo": (16, 8),
}  # fmt: skip


def block() -> ModelGraph:
    """A transformer block as exporters write it out, with a mask from ones and zeros."""
    return graph_of(BLOCK, **SIZES)


def samples(count: int = 16, seed: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    keep = np.ones((count, 6), np.float32)
    for row in keep[1:]:
        row[rng.integers(2, 7) :] = 0
    return [{"x": rng.standard_normal((count, 6, 8)).astype(np.float32), "keep": keep}]


def titles(plan: Plan) -> list[str]:
    return [layer.title for layer in plan.layers]


@pytest.mark.parametrize("target", ["arm-ethos", "custom", "onnxruntime", "openvino"])
def test_a_written_out_block_is_a_few_layers(target: str) -> None:
    plan = place(block(), QuantConfig(target=target))
    assert titles(plan) == [
        "Input", "Input", "LayerNorm", "Linear", "Linear", "Transpose", "MatMul",
        "Unsqueeze", "Sub", "Mul", "Softmax", "MatMul", "Add", "Linear", "GELU", "MatMul",
    ]  # fmt: skip
    nodes = [name for layer in plan.layers for name in layer.nodes]
    assert sorted(nodes) == sorted(node.name for node in block().nodes())
    for name in ("m", "d", "s", "v", "e", "r", "z", "g"):
        assert plan.tensors[name].spec is None
        assert plan.tensors[name].reason == "inside LayerNorm: one layer"
    for name in ("ln", "q", "k", "scores", "p", "a", "res", "f", "gelu", "y"):
        assert plan.tensors[name].spec is not None, name
    assert plan.tensors["gamma"].reason == "parameter of LayerNorm, used in float"
    layer = next(layer for layer in plan.layers if layer.title == "LayerNorm")
    assert layer.ops[0] == "ReduceMean"
    assert layer.settings.act_bits == 8
    assert layer.settings.weight_bits is None


def test_masked_scores_are_in_no_range() -> None:
    graph = block()
    sim = studio.QuantSim(graph)
    sim.calibrate(samples())
    plan = sim.plan
    for name in ("keep", "k1", "inverse", "mask", "low"):
        assert plan.tensors[name].spec is None
        assert "attention scores" in plan.tensors[name].reason
    assert plan.tensors["masked"].reason == "inside Softmax: one layer"
    assert all(abs(float(e.minimum.min())) < 1e3 for e in sim.encodings.values())


def test_attention_is_a_block_of_the_layers_inside_it() -> None:
    plan = place(block(), QuantConfig())
    inside = {layer.title for layer in plan.layers if layer.block is not None}
    assert inside == {"Transpose", "MatMul", "Softmax"}
    assert len({layer.block for layer in plan.layers if layer.block is not None}) == 1


QDQ = [name for name in target_names() if load_target(name).export.format == "qdq"]
QDQ_AT_OUTPUTS = [name for name in QDQ if load_target(name).quantized_inputs is None]


@pytest.mark.parametrize("target", QDQ_AT_OUTPUTS)
def test_exported_file_equals_the_simulation(target: str, tmp_path: Path) -> None:
    sim = studio.QuantSim(block(), QuantConfig(target=target))
    sim.calibrate(samples())
    summary = studio.export(sim, tmp_path)
    checks = {check.tensor: check for check in summary.verification.layers}
    assert {"ln", "q", "p", "gelu"} <= set(checks)
    assert max(check.largest for check in checks.values()) <= 1
    assert min(check.identical for check in checks.values()) > 0.99


def test_recognition_saves_the_accuracy() -> None:
    """Each operator of a mask and of a LayerNorm rounded by itself leaves nothing of the result."""
    graph = block()
    apart = prepare_again(graph, [rule.name for rule in RECOGNITION])
    data = samples()
    float_y = studio.runtime.session.float_session(graph, ["y"]).run(data[0])["y"]
    quality = []
    for model in (graph, apart):
        sim = studio.QuantSim(model)
        sim.calibrate(data)
        noise = np.asarray(sim(data[0])) - float_y
        quality.append(10 * math.log10(float((float_y**2).sum() / (noise**2).sum())))
    assert quality[0] > 25
    assert quality[0] > quality[1] + 6


def test_linear_layer_has_weight_and_bias_and_takes_the_activation_behind_it() -> None:
    text = """(float[n, 6, 4] x) => (float[n, 6, 3] y) {
        a = MatMul(x, w) b = Add(bias, a) y = Relu(b)
    }"""
    for target, bits in (("onnxruntime", None), ("qualcomm-htp", 32)):
        plan = place(graph_of(text, w=(4, 3), bias=(3,)), QuantConfig(target=target))
        assert titles(plan) == ["Input", "Linear + Relu"]
        layer = plan.layers[1]
        assert (layer.weights, layer.bias) == (("w",), "bias")
        assert plan.tensors["w"].spec.axis == 1
        spec = plan.tensors["bias"].spec
        assert (spec.grid.bits if spec else None) == bits
    assert (
        "in float"
        in place(graph_of(text, w=(4, 3), bias=(3,)), QuantConfig()).tensors["bias"].reason
    )


def test_constant_that_is_no_bias_is_added_by_itself() -> None:
    graph = graph_of(
        "(float[n, 6, 4] x) => (float[n, 6, 3] y) { a = MatMul(x, w) y = Add(a, p) }",
        w=(4, 3),
        p=(1, 6, 3),
    )
    assert titles(place(graph, QuantConfig())) == ["Input", "MatMul", "Add"]


def test_written_out_activation_fuses_where_the_operator_would() -> None:
    graph = graph_of(
        """(float[n, 4, 4, 4] x) => (float[n, 4, 4, 4] y) {
            three = Constant<value_float = 3.0>() zero = Constant<value_float = 0.0>()
            six = Constant<value_float = 6.0>()
            c = Conv(x, w) a = Add(c, three) l = Clip(a, zero, six) m = Mul(c, l)
            y = Div(m, six)
        }""",
        w=(4, 4, 1, 1),
    )
    assert titles(place(graph, QuantConfig(target="qualcomm-htp"))) == ["Input", "Conv + HardSwish"]
    assert titles(place(graph, QuantConfig())) == ["Input", "Conv", "HardSwish"]


def test_group_norm_is_no_data_movement() -> None:
    graph = graph_of(
        """(float[n, 4, 4, 4] x) => (float[n, 4, 4, 4] y) {
            shape = Constant<value_ints = [0, 2, -1]>() back = Constant<value_ints = [0, 4, 4, 4]>()
            one = Constant<value_floats = [1.0, 1.0]>() no = Constant<value_floats = [0.0, 0.0]>()
            g = Reshape(x, shape) i = InstanceNormalization(g, one, no) y = Reshape(i, back)
        }"""
    )
    plan = place(graph, QuantConfig())
    assert titles(plan) == ["Input", "GroupNorm"]
    assert plan.tensors["y"].tied_to is None
    assert plan.tensors["y"].spec is not None


def test_settings_are_found_by_the_name_of_the_layer() -> None:
    graph = block()
    name = next(layer.name for layer in place(graph, QuantConfig()).layers if layer.kind == "GELU")
    plan = place(graph, QuantConfig().with_layers([name], act_bits=16))
    assert plan.tensors["gelu"].spec.grid.bits == 16
    assert not any("matches no layer" in text for text in plan.warnings)


# --- operators that are layers already -----------------------------------------------------------


def test_recurrent_weights_are_quantized_and_biases_say_why_not() -> None:
    text = """(float[s, n, 5] x) => (float[s, d, n, 4] y) {
        y = OP<hidden_size = 4>(x, w, r, b)
    }"""
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        graph = graph_of(
            text.replace("OP", op), w=(1, gates * 4, 5), r=(1, gates * 4, 4), b=(1, gates * 8)
        )
        plan = place(graph, QuantConfig())
        layer = plan.layers[1]
        assert layer.weights == ("w", "r")
        assert [plan.tensors[name].spec.axis for name in ("w", "r")] == [1, 1]
        assert plan.tensors["b"].reason == f"parameter of {op}, used in float"
        assert layer.editable_weight
        sim = studio.QuantSim(graph)
        sim.calibrate([{"x": np.random.default_rng(0).standard_normal((7, 2, 5)).astype("f")}])
        for name in ("w", "r"):
            encoding = sim.encodings[name]
            assert encoding.scale.shape == (gates * 4,)


def test_constant_of_an_einsum_is_a_weight() -> None:
    graph = graph_of(
        """(float[n, 6, 4] x) => (float[n, 6, 3] y) {
            y = Einsum<equation = "nij,jk->nik">(x, w)
        }""",
        w=(4, 3),
    )
    row = place(graph, QuantConfig()).tensors["w"]
    assert row.role is Role.WEIGHT
    assert row.spec.axis == 1


def test_native_attention_keeps_its_mask_in_float() -> None:
    graph = graph_of(
        """(float[n, 2, 6, 4] q, float[n, 2, 6, 4] k, float[n, 2, 6, 4] v, float[6, 6] mask)
        => (float[n, 2, 6, 4] y) { y = Attention(q, k, v, mask) }""",
        opset=23,
    )
    plan = place(graph, QuantConfig())
    assert [plan.tensors[name].spec is not None for name in ("q", "k", "v", "mask", "y")] == [
        True, True, True, False, True,
    ]  # fmt: skip


def test_infinite_constant_is_not_quantized() -> None:
    graph = graph_of(
        """(float[n, 4] x, bool[n, 4] c) => (float[n, 4] y) {
            low = Constant<value_float = -inf>() r = Relu(x) y = Where(c, r, low)
        }""".replace("-inf", "-3.0")
    )
    low = next(name for name in graph.initializers)
    graph.value(low).const_value = ir.tensor(np.float32(-np.inf), name=low)
    row = place(graph, QuantConfig()).tensors[low]
    assert row.spec is None
    assert "infinite" in row.reason


def one_model_per_operator() -> dict[str, onnx.ModelProto]:
    """ONNX's own test models: the first of each operator."""
    found: dict[str, onnx.ModelProto] = {}
    for case in load_model_tests(kind="node"):
        model = case.model
        version = max((item.version for item in model.opset_import if not item.domain), default=0)
        for node in model.graph.node:
            if node.op_type not in found and not node.domain and version:
                found[node.op_type] = model
    return found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # ONNX computes infinities on purpose
def test_no_operator_is_left_float_in_silence() -> None:
    """An encoding for every tensor or a reason, whatever the operator."""
    models = one_model_per_operator()
    assert len(models) > 150
    seen = 0
    for op, model in models.items():
        graph = ModelGraph(ir.from_proto(model), ModelSource(Path("test.onnx")))
        try:
            graph = prepare(graph)
        except studio.StudioError:
            continue  # says so on opening
        plan = place(graph, QuantConfig())
        names = {value.name for value in graph.inputs} | set(graph.initializers)
        names |= {v.name for node in graph.nodes() for v in node.outputs if v.name}
        assert names <= set(plan.tensors), op
        assert all(row.reason for row in plan.tensors.values()), op
        seen += 1
    assert seen > 150
