"""Recognised layers: the spellings of exporters, and what only looks like one."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from graph_models import as_graph
from torch import nn

from studio.graph.model import ModelGraph
from studio.graph.open import prepare_again
from studio.graph.patterns import RECOGNITION, block_of, float_reason, layer_of
from studio.graph.prepare import prepare
from studio.runtime.session import float_session

SHAPE = "float[n, 6, 8]"
NUMBERS = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "minus_half": -0.5, "zero": 0.0,
    "six": 6.0, "sixth": 1 / 6, "root2": math.sqrt(2), "root_half": math.sqrt(0.5),
    "quick": 1.702, "cubic": 0.044715, "gauss": math.sqrt(2 / math.pi), "eps": 1e-5,
    "wrong": 1.3, "low": -1e9,
}  # fmt: skip


def text_graph(body: str, inputs: str = f"{SHAPE} x", opset: int = 17) -> ModelGraph:
    """A prepared graph of the lines `body`, which make y; the names of NUMBERS are scalars."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> '
        f"g ({inputs}) => (float[n, p, q] y) {{ {body} }}"
    )
    arrays = {name: np.float32(number) for name, number in NUMBERS.items()}
    arrays["axes"] = np.array([-1], np.int64)
    arrays["gamma"] = np.linspace(0.5, 2, 8, dtype=np.float32)
    arrays["beta"] = np.linspace(-1, 1, 8, dtype=np.float32)
    arrays["slope"] = np.linspace(0.1, 0.4, 8, dtype=np.float32)
    used = {name for node in model.graph.node for name in node.input}
    for name, array in arrays.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model)
    return prepare(as_graph(model))


def layers(graph: ModelGraph) -> dict[str, list[str]]:
    """Name and kind of each recognised layer -> its operators."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes():
        mark = layer_of(node)
        if mark is not None:
            found.setdefault(mark.kind, []).append(node.op_type)
    return found


LAYER_NORMS = {
    "torch": """m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) s = Pow(d, two)
        v = ReduceMean<axes = [-1]>(s) e = Add(v, eps) r = Sqrt(e) q = Div(d, r)
        g = Mul(q, gamma) y = Add(g, beta)""",
    "no bias, two Subs, Mul for the square": """m = ReduceMean<axes = [-1]>(x) d = Sub(x, m)
        d2 = Sub(x, m) s = Mul(d2, d2) v = ReduceMean<axes = [-1]>(s) e = Add(eps, v)
        r = Sqrt(e) i = Reciprocal(r) q = Mul(i, d) y = Mul(gamma, q)""",
    "power": """m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) s = Pow(d, two)
        v = ReduceMean<axes = [-1]>(s) e = Add(v, eps) r = Pow(e, minus_half) y = Mul(d, r)""",
    "one over the root": """m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) s = Mul(d, d)
        v = ReduceMean<axes = [-1]>(s) e = Add(v, eps) r = Sqrt(e) i = Div(one, r)
        q = Mul(d, i) g = Mul(q, gamma) y = Add(beta, g)""",
    "epsilon outside, weight first": """m = ReduceMean<axes = [-1]>(x) d = Sub(x, m)
        s = Pow(d, two) v = ReduceMean<axes = [-1]>(s) r = Sqrt(v) e = Add(r, eps)
        g = Mul(d, gamma) q = Div(g, e) y = Add(q, beta)""",
    "TensorFlow": """m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) s = Mul(d, d)
        v = ReduceMean<axes = [-1]>(s) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r)
        f = Mul(i, gamma) a = Mul(x, f) b = Mul(m, f) c = Sub(beta, b) y = Add(a, c)""",
    "two axes": """m = ReduceMean<axes = [1, 2]>(x) d = Sub(x, m) s = Pow(d, two)
        v = ReduceMean<axes = [1, 2]>(s) e = Add(v, eps) r = Sqrt(e) y = Div(d, r)""",
}
SPELLINGS = {
    **{f"LayerNorm: {name}": ("LayerNorm", body) for name, body in LAYER_NORMS.items()},
    "RMSNorm: Reciprocal": ("RMSNorm", """s = Pow(x, two) v = ReduceMean<axes = [-1]>(s)
        e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) q = Mul(x, i) y = Mul(gamma, q)"""),
    "RMSNorm: Div": ("RMSNorm", """s = Mul(x, x) v = ReduceMean<axes = [-1]>(s)
        e = Add(v, eps) r = Sqrt(e) q = Div(x, r) y = Mul(q, gamma)"""),
    "RMSNorm: no weight": ("RMSNorm", """s = Pow(x, two) v = ReduceMean<axes = [-1]>(s)
        e = Add(v, eps) r = Pow(e, minus_half) y = Mul(x, r)"""),
    "GELU: torch": ("GELU", """d = Div(x, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a)
        y = Mul(m, half)"""),
    "GELU: half first": ("GELU", """h = Mul(half, x) d = Mul(x, root_half) e = Erf(d)
        a = Add(one, e) y = Mul(a, h)"""),
    "GELU: half of the sum": ("GELU", """d = Mul(x, root_half) e = Erf(d) a = Add(one, e)
        h = Mul(a, half) y = Mul(x, h)"""),
    "GELU: Div by two": ("GELU", """d = Div(x, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a)
        y = Div(m, two)"""),
    "GELU: tanh": ("GELU", """p = Pow(x, three) c = Mul(p, cubic) s = Add(x, c)
        i = Mul(gauss, s) t = Tanh(i) a = Add(t, one) h = Mul(half, x) y = Mul(h, a)"""),
    "GELU: tanh with products": ("GELU", """x2 = Mul(x, x) x3 = Mul(x, x2) c = Mul(cubic, x3)
        s = Add(c, x) i = Mul(s, gauss) t = Tanh(i) a = Add(one, t) m = Mul(x, a)
        y = Mul(half, m)"""),
    "GELU: tanh factored": ("GELU", """x2 = Mul(x, x) c = Mul(x2, cubic) s = Add(c, one)
        g = Mul(x, gauss) i = Mul(g, s) t = Tanh(i) a = Add(t, one) m = Mul(x, a)
        y = Mul(m, half)"""),
    "GELU: quick": ("GELU", "q = Mul(x, quick) s = Sigmoid(q) y = Mul(x, s)"),
    "SiLU": ("SiLU", "s = Sigmoid(x) y = Mul(x, s)"),
    "SiLU: Swish with beta": ("SiLU", "b = Mul(x, wrong) s = Sigmoid(b) y = Mul(s, x)"),
    "SiLU: exponential": ("SiLU", """m = Neg(x) e = Exp(m) a = Add(one, e) y = Div(x, a)"""),
    "HardSwish: torch": ("HardSwish", """a = Add(x, three) c = Clip(a, zero, six)
        m = Mul(x, c) y = Div(m, six)"""),
    "HardSwish: Mul": ("HardSwish", """a = Add(three, x) c = Clip(a, zero, six)
        d = Mul(c, sixth) y = Mul(d, x)"""),
    "HardSwish: Relu and Min": ("HardSwish", """a = Add(x, three) r = Relu(a) c = Min(r, six)
        m = Mul(x, c) y = Mul(m, sixth)"""),
    "HardSwish: HardSigmoid": ("HardSwish", """h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x)
        y = Mul(x, h)"""),
    "HardSigmoid": ("HardSigmoid", "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)"),
    "HardSigmoid: Clip last": ("HardSigmoid", """m = Mul(x, sixth) a = Add(m, half)
        y = Clip(a, zero, one)"""),
    "Mish": ("Mish", "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"),
    "Mish: exponential": ("Mish", """e = Exp(x) a = Add(e, one) l = Log(a) t = Tanh(l)
        y = Mul(t, x)"""),
    "Softplus": ("Softplus", "e = Exp(x) a = Add(one, e) y = Log(a)"),
    "Softplus: stable": ("Softplus", """r = Relu(x) b = Abs(x) m = Neg(b) e = Exp(m)
        a = Add(e, one) l = Log(a) y = Add(r, l)"""),
    "PReLU: TensorFlow": ("PReLU", """p = Relu(x) m = Neg(x) r = Relu(m) n = Mul(r, slope)
        k = Neg(n) y = Add(p, k)"""),
    "Softmax: with maximum": ("Softmax", """m = ReduceMax<axes = [-1]>(x) d = Sub(x, m)
        e = Exp(d) s = ReduceSum(e, axes) y = Div(e, s)"""),
    "Softmax: plain": ("Softmax", "e = Exp(x) s = ReduceSum(e, axes) y = Div(e, s)"),
    "LogSoftmax: of Softmax": ("LogSoftmax", "s = Softmax<axis = -1>(x) y = Log(s)"),
    "LogSoftmax: written out": ("LogSoftmax", """m = ReduceMax<axes = [-1]>(x) d = Sub(x, m)
        e = Exp(d) s = ReduceSum(e, axes) l = Log(s) y = Sub(d, l)"""),
    "LogSoftmax: LogSumExp": ("LogSoftmax", """l = ReduceLogSumExp<axes = [-1]>(x)
        y = Sub(x, l)"""),
    "L2 norm: ReduceL2": ("L2 norm", "n = ReduceL2<axes = [-1]>(x) y = Div(x, n)"),
    "L2 norm: floor": ("L2 norm", """n = ReduceL2<axes = [-1]>(x) c = Clip(n, eps)
        y = Div(x, c)"""),
    "L2 norm: TensorFlow": ("L2 norm", """q = Mul(x, x) s = ReduceSum(q, axes) m = Max(s, eps)
        r = Sqrt(m) i = Reciprocal(r) y = Mul(x, i)"""),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spelling_is_one_layer(kind: str, body: str) -> None:
    graph = text_graph(body)
    nodes = list(graph.nodes())
    assert {layer_of(node).kind if layer_of(node) else "" for node in nodes} == {kind}
    assert len({layer_of(node) for node in nodes}) == 1
    rules = [
        change for change in graph.changes if "one layer" in change.detail or kind in change.detail
    ]
    assert any(f"{len(nodes)} operators" in change.detail for change in rules)


NOT_LAYERS = {
    "GELU with another constant": "d = Div(x, wrong) e = Erf(d) a = Add(e, one) m = Mul(x, a) "
    "y = Mul(m, half)",
    "Sigmoid of something else": "r = Relu(x) s = Sigmoid(r) y = Mul(x, s)",
    "HardSwish with a limit of 3": "a = Add(x, three) c = Clip(a, zero, three) m = Mul(x, c) "
    "y = Div(m, six)",
    "another sum under exp": "e = Exp(x) s = Sigmoid(x) t = ReduceSum(s, axes) y = Div(e, t)",
    "product with ONNX's own HardSigmoid": "h = HardSigmoid(x) y = Mul(x, h)",
}


@pytest.mark.parametrize("body", NOT_LAYERS.values(), ids=NOT_LAYERS.keys())
def test_what_only_looks_alike_is_left(body: str) -> None:
    assert layers(text_graph(body)) == {}


def test_interior_read_elsewhere_is_no_layer() -> None:
    graph = text_graph("s = Sigmoid(x) m = Mul(x, s) y = Add(m, s)")
    assert layers(graph) == {}


def test_first_rule_wins_and_layers_do_not_overlap() -> None:
    graph = text_graph(f"""{LAYER_NORMS["torch"].replace("y =", "z =")}
        a = Add(z, three) c = Clip(a, zero, six) w = Mul(z, c) y = Div(w, six)""")
    found = layers(graph)
    assert len(found["LayerNorm"]) == 9
    assert found["HardSwish"] == ["Add", "Clip", "Mul", "Div"]


def legacy(module: nn.Module, *inputs: torch.Tensor, opset: int) -> ModelGraph:
    """The module by torch's TorchScript exporter, prepared."""
    file = io.BytesIO()
    torch.onnx.export(module.eval(), inputs, file, opset_version=opset, dynamo=False)
    return prepare(as_graph(onnx.load_from_string(file.getvalue())))


class Rms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Wrapped(nn.Module):
    """A module inside another, so that it has a name."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.part(torch.relu(x)))


def scaled_norm() -> nn.Module:
    module = nn.LayerNorm(8)
    module.weight.data.uniform_(0.5, 2)
    module.bias.data.uniform_(-1, 1)
    return module


MODULES = {
    "LayerNorm": (scaled_norm, (2, 6, 8), 13),
    "LayerNorm 16": (scaled_norm, (2, 6, 8), 16),
    "GELU": (nn.GELU, (2, 8), 13),
    "GELU 18": (nn.GELU, (2, 8), 18),
    "GELU tanh": (lambda: nn.GELU("tanh"), (2, 8), 14),
    "SiLU": (nn.SiLU, (2, 8), 13),
    "HardSwish": (nn.Hardswish, (2, 8), 13),
    "Mish": (nn.Mish, (2, 8), 13),
    "RMSNorm": (Rms, (2, 6, 8), 17),
    "GroupNorm": (lambda: nn.GroupNorm(2, 8), (2, 8, 4, 4), 13),
}


@pytest.mark.parametrize(("make", "shape", "opset"), MODULES.values(), ids=MODULES.keys())
@pytest.mark.filterwarnings("ignore")
def test_modules_of_torch_are_layers_named_after_them(make, shape, opset, request) -> None:
    kind = request.node.callspec.id.split()[0]
    graph = legacy(Wrapped(make()), torch.randn(shape), opset=opset)
    marks = {layer_of(node) for node in graph.nodes()} - {None}
    assert {(mark.kind, mark.name) for mark in marks} == {(kind, "/part")}
    assert [node.op_type for node in graph.nodes() if layer_of(node) is None] == ["Relu", "Relu"]


def attention(mask: str, *, scale: str = "a = Div(p, two)", inputs: str = "") -> ModelGraph:
    return text_graph(
        f"""t = Transpose<perm = [0, 2, 1]>(k) p = MatMul(x, t) {scale} {mask}
        s = Softmax<axis = -1>(m) y = MatMul(s, v)""",
        f"{SHAPE} x, {SHAPE} k, {SHAPE} v{inputs}",
    )


MASKS = {
    "added input": ("m = Add(a, bias)", ", float[n, 1, 6] bias"),
    "from ones and zeros": ("i = Sub(one, bias) b = Mul(i, low) m = Add(b, a)",
                            ", float[n, 1, 6] bias"),
    "Where": ("m = Where(keep, a, low)", ", bool[n, 1, 6] keep"),
    "boolean made a number": ("f = Cast<to = 1>(keep) b = Mul(f, low) m = Add(a, b)",
                              ", bool[n, 1, 6] keep"),
}  # fmt: skip


@pytest.mark.parametrize(("mask", "inputs"), MASKS.values(), ids=MASKS.keys())
def test_masked_softmax_is_one_layer_and_the_mask_float(mask: str, inputs: str) -> None:
    graph = attention(mask, inputs=inputs)
    softmax = layers(graph)["Softmax"]
    assert softmax[0] == "Div"
    assert softmax[-1] == "Softmax"
    assert not {"MatMul", "Sub", "Cast"} & set(softmax)
    inside = {node for node in graph.nodes() if layer_of(node)}
    for node in graph.nodes():
        if node.op_type in ("Sub", "Cast") or (node.op_type == "Mul" and node not in inside):
            assert "attention scores" in float_reason(node.outputs[0])
    assert not float_reason(graph.value("p"))
    assert not float_reason(graph.value("x"))
    if "bias" in inputs:
        assert float_reason(graph.value("bias"))


def test_attention_is_a_block_of_layers() -> None:
    graph = attention("m = Add(a, bias)", inputs=", float[n, 1, 6] bias")
    inside = [node.op_type for node in graph.nodes() if block_of(node)]
    assert inside == ["Transpose", "MatMul", "Div", "Add", "Softmax", "MatMul"]
    products = [node for node in graph.nodes() if node.op_type == "MatMul"]
    assert all(layer_of(node) is None for node in products), "they stay layers of their own"


def test_guard_against_rows_that_are_masked_throughout_belongs_to_softmax() -> None:
    graph = text_graph(
        """t = Transpose<perm = [0, 2, 1]>(k) p = MatMul(x, t) m = Add(p, bias)
        s = Softmax<axis = -1>(m) n = IsNaN(s) c = Where(n, zero, s) y = MatMul(c, v)""",
        f"{SHAPE} x, {SHAPE} k, {SHAPE} v, float[n, 1, 6] bias",
    )
    assert layers(graph)["Softmax"] == ["Add", "Softmax", "IsNaN", "Where"]
    assert len([node for node in graph.nodes() if block_of(node)]) == 7


def test_residual_before_softmax_is_no_mask() -> None:
    graph = text_graph("r = Relu(x) a = Add(r, x) y = Softmax<axis = -1>(a)")
    assert layers(graph) == {}
    assert not any(float_reason(value) for node in graph.nodes() for value in node.outputs)


def test_mask_that_is_also_used_otherwise_may_be_quantized() -> None:
    graph = text_graph(
        """t = Transpose<perm = [0, 2, 1]>(k) p = MatMul(x, t) b = Mul(bias, two) m = Add(p, b)
        s = Softmax<axis = -1>(m) o = MatMul(s, v) r = ReduceMean<axes = [-1]>(b) z = Add(o, o)
        q = Transpose<perm = [0, 2, 1]>(r) y = Add(z, q)""",
        f"{SHAPE} x, {SHAPE} k, {SHAPE} v, float[n, 1, 6] bias",
    )
    assert not float_reason(graph.value("b"))


def test_rules_can_be_switched_off_and_on_again() -> None:
    graph = text_graph(LAYER_NORMS["torch"])
    off = prepare_again(graph, ("recognise LayerNorm", "recognise RMSNorm"))
    assert layers(off) == {}
    assert not any(change.rule == "recognise LayerNorm" for change in off.changes)
    assert layers(prepare_again(off, ())) == layers(graph)


def test_all_rules_are_described_and_named_alike() -> None:
    names = [rule.name for rule in RECOGNITION]
    assert len(names) == len(set(names))
    assert all(name.startswith("recognise ") for name in names)
    assert all(rule.description.endswith(".") for rule in RECOGNITION)


def test_preparing_again_changes_nothing() -> None:
    graph = attention("m = Add(a, bias)", inputs=", float[n, 1, 6] bias")
    again = prepare(graph)
    assert again.changes == graph.changes
    assert layers(again) == layers(graph)


def test_marks_are_in_the_file_and_the_operators_stay(tmp_path: Path) -> None:
    graph = text_graph(LAYER_NORMS["torch"])
    path = tmp_path / "model.onnx"
    onnx.save(graph.to_proto(), path)
    read = ir.load(path)
    assert {node.metadata_props["studio.layer"].split("\n")[0] for node in read.graph} == {
        "LayerNorm"
    }
    x = np.random.default_rng(0).standard_normal((2, 6, 8)).astype(np.float32)
    expected = torch.nn.functional.layer_norm(
        torch.from_numpy(x),
        (8,),
        torch.linspace(0.5, 2, 8),
        torch.linspace(-1, 1, 8),
    )
    np.testing.assert_allclose(
        float_session(graph, ["y"]).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5
    )


def test_constants_of_a_layer_are_not_merged_into_the_one_before() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 4, 4] x) => (float[n, 2, 4, 4] y)
        <float three = {3}, float zero = {0}, float six = {6}> {
            c = Conv(x, w) a = Add(c, three) l = Clip(a, zero, six) y = Div(l, six)
        }"""
    )
    weight = np.ones((2, 3, 1, 1), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    graph = prepare(as_graph(model))
    assert layers(graph) == {"HardSigmoid": ["Add", "Clip", "Div"]}
