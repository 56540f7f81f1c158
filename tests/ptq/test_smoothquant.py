"""SmoothQuant: the float network stays, what is rounded gets easier, and where s goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from product_models import Feed, calibrated, samples_of

from studio.errors import CancelledError
from studio.graph.additions import additions_of, is_scale
from studio.jobs.events import CancelToken, silent
from studio.ptq.options import SmoothQuantOptions
from studio.ptq.smoothquant import scales, smoothquant
from studio.runtime.executor import Executor
from studio.runtime.session import float_session
from studio.sim.plan import Role
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import simulating_executor
from studio.techniques.technique import Outcome

WIDTH = 8
rng = np.random.default_rng(7)


def matrix(rows: int = WIDTH, columns: int = WIDTH) -> np.ndarray:
    return rng.standard_normal((rows, columns)).astype(np.float32)


GAIN = np.array([1, 1, 30, 1, 1, 0.2, 1, 1], np.float32)  # outliers, as transformers have them
NORM = {"gain": GAIN, "shift": 0.1 * np.ones(WIDTH, np.float32)}
LAYER_NORM = helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["n"], "norm")


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], f"{op}_{output}", **attributes)


QKV = [LAYER_NORM, *(node("MatMul", f"n w{part}", part) for part in "qkv")]
QKV_WEIGHTS = {**NORM, **{f"w{part}": matrix() for part in "qkv"}}
JOIN = [node("Add", "q k", "qk"), node("Add", "qk v", "y")]

RMS = [
    node("Pow", "x two", "square"),
    helper.make_node("ReduceMean", ["square", "axes"], ["mean"], "mean"),
    node("Add", "mean eps", "safe"),
    node("Sqrt", "safe", "root"),
    node("Div", "x root", "unit"),
    node("Mul", "unit gain", "n"),
    node("MatMul", "n wq", "y"),
]
RMS_CONSTANTS = {
    "two": np.array(2, np.float32),
    "axes": np.array([-1]),
    "eps": np.array(1e-6, np.float32),
    "gain": GAIN,
    "wq": matrix(),
}
GATED = [
    node("MatMul", "x wg", "g"),
    node("Sigmoid", "g", "s"),
    node("MatMul", "x wu", "u"),
    node("Mul", "s u", "m"),
    node("MatMul", "m wd", "y"),
]
HIDDEN = [node("Gemm", "x w1 b1", "a", transB=1), node("Relu", "a", "r"), node("Gemm", "r w2", "y")]
HEADS = {"apart": np.array([0, 0, 2, 4]), "join": np.array([0, 0, WIDTH])}
ATTENTION = [
    *(node("MatMul", f"x w{part}", part) for part in "qkv"),
    node("Add", "v bv", "vb"),
    *(node("Reshape", f"{part} apart", f"{part}4") for part in ("q", "k", "vb")),
    node("Transpose", "q4", "qh", perm=[0, 2, 1, 3]),
    node("Transpose", "k4", "kh", perm=[0, 2, 3, 1]),
    node("Transpose", "vb4", "vh", perm=[0, 2, 1, 3]),
    node("MatMul", "qh kh", "scores"),
    helper.make_node("Softmax", ["scores"], ["p"], "softmax", axis=-1),
    node("MatMul", "p vh", "heads"),
    node("Transpose", "heads", "back", perm=[0, 2, 1, 3]),
    node("Reshape", "back join", "c"),
    node("MatMul", "c wo", "y"),
]
WIDE_V = matrix() * GAIN

NETS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], str, set[str]]] = {
    # nodes, constants, a smoothed layer, the layers that get a Mul
    "LayerNorm": ([*QKV, *JOIN], QKV_WEIGHTS, "MatMul_q", set()),
    "LayerNorm and a residual": (
        [*QKV, node("Add", "q k", "qk"), node("Add", "qk v", "qkv"), node("Add", "qkv n", "y")],
        QKV_WEIGHTS,
        "MatMul_q",
        {"MatMul_q", "MatMul_k", "MatMul_v"},
    ),
    "RMSNorm, written out": (RMS, RMS_CONSTANTS, "MatMul_y", set()),
    "gated": (
        GATED,
        {"wg": matrix(), "wu": WIDE_V, "wd": matrix()},
        "MatMul_y",
        set(),
    ),
    "hidden": (
        HIDDEN,
        {"w1": WIDE_V.T.copy(), "b1": GAIN, "w2": matrix()},
        "Gemm_y",
        set(),
    ),
    "attention": (
        ATTENTION,
        {**HEADS, "bv": GAIN, "wo": matrix(), "wq": matrix(), "wk": matrix(), "wv": WIDE_V},
        "MatMul_y",
        set(),
    ),
    "biases": (
        [
            node("MatMul", "x w1", "a"),
            node("Add", "a b1", "b"),
            node("Tanh", "b", "t"),
            node("MatMul", "t w2", "c"),
            node("Add", "c b2", "y"),
        ],
        {
            "w1": matrix() * np.geomspace(1e-3, 2, WIDTH, dtype=np.float32),
            "w2": matrix(),
            "b1": matrix(1)[0],
            "b2": matrix(1)[0],
        },
        "MatMul_c",
        {"MatMul_c"},
    ),
    "tanh": (
        [node("MatMul", "x w1", "a"), node("Tanh", "a", "t"), node("MatMul", "t w2", "y")],
        {"w1": matrix() * np.geomspace(1e-3, 2, WIDTH, dtype=np.float32), "w2": matrix()},
        "MatMul_y",
        {"MatMul_y"},
    ),
}


def net(name: str, folder: Path, **settings: Any) -> tuple[QuantizedModel, Feed, str, set[str]]:
    nodes, constants, layer, muls = NETS[name]
    shape = (48, 5, WIDTH) if name not in ("hidden",) else (48, WIDTH)
    settings = {"act_observer": "minmax", **settings}
    model, feed = calibrated(folder, nodes, {"x": shape}, {"y": shape}, constants, **settings)
    return model, feed, layer, muls


def run(model: QuantizedModel, feed: Feed, **options: Any) -> Outcome:
    chosen = SmoothQuantOptions(**options)
    return smoothquant(model, samples_of(feed), chosen, silent, CancelToken())


def output(model: QuantizedModel, feed: Feed) -> np.ndarray:
    return float_session(model.graph).run(feed)["y"]


def layers_with_weights(model: QuantizedModel) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        layer.name: (layer.title, layer.nodes)
        for layer in model.plan.layers
        if any(model.plan.tensors[name].role is Role.WEIGHT for name in layer.weights)
    }


@pytest.mark.parametrize("alpha", [0.5, 0.8])
@pytest.mark.parametrize("name", NETS)
def test_the_float_network_stays(name: str, alpha: float, tmp_path: Path) -> None:
    model, feed, layer, muls = net(name, tmp_path)
    outcome = run(model, feed, search=False, alpha=alpha)
    expected, found = output(model, feed), output(outcome.model, feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert muls <= set(additions_of(outcome.model.graph).scales)
    assert layers_with_weights(outcome.model) == layers_with_weights(model)
    assert layer in {row.layer for row in outcome.rows}
    weight = model.graph.node(layer).inputs[1].name
    assert not np.array_equal(outcome.model.graph.constant(weight), model.graph.constant(weight))
    if not muls:
        assert layer not in additions_of(outcome.model.graph).scales


@pytest.mark.parametrize("name", NETS)
def test_the_search_makes_no_layer_worse(name: str, tmp_path: Path) -> None:
    model, feed, layer, _ = net(name, tmp_path)
    outcome = run(model, feed)
    rows = {row.layer: row for row in outcome.rows}
    assert all(row.after >= row.before - 1e-6 for row in outcome.rows)  # type: ignore[operator]
    assert rows[layer].after > rows[layer].before + 1  # type: ignore[operator]


@pytest.mark.parametrize("name", ["LayerNorm", "LayerNorm and a residual"])
def test_layers_behind_outliers_come_nearer_to_float(name: str, tmp_path: Path) -> None:
    """The layer's own output, which this target does not round."""
    model, feed, _, _ = net(name, tmp_path, target="tensorrt")
    outcome = run(model, feed)
    exact = Executor(model.graph).run(feed, ["q"])["q"]
    noise = []
    for other in (model, outcome.model):
        made = simulating_executor(other.graph, other.plan, other.encodings).run(feed, ["q"])["q"]
        noise.append(float((made - exact).square().sum()))
    assert noise[1] < 0.5 * noise[0]


def test_the_published_scales(tmp_path: Path) -> None:
    """Equation 4, in the weight of LayerNorm and of the layers."""
    model, feed, _, _ = net("LayerNorm", tmp_path)
    outcome = run(model, feed, search=False, alpha=0.5)
    x = Executor(model.graph).run(feed, ["n"])["n"].abs().amax((0, 1)).numpy()
    w = np.max([np.abs(QKV_WEIGHTS[f"w{part}"]).max(1) for part in "qkv"], axis=0)
    s = np.sqrt(x / w)
    np.testing.assert_allclose(scales(x, w, 0.5), s, rtol=1e-6)
    graph = outcome.model.graph
    np.testing.assert_allclose(graph.constant("gain"), GAIN / s, rtol=1e-5)
    np.testing.assert_allclose(graph.constant("shift"), NORM["shift"] / s, rtol=1e-5)
    for part in "qkv":
        expected = QKV_WEIGHTS[f"w{part}"] * s[:, None]
        np.testing.assert_allclose(graph.constant(f"w{part}"), expected, rtol=1e-5)
    assert outcome.model.statistics["n"].maximum < model.statistics["n"].maximum


def test_layers_that_read_one_tensor_share_a_mul_which_reads_it_as_it_is(tmp_path: Path) -> None:
    model, feed, _, _ = net("LayerNorm and a residual", tmp_path)
    after = run(model, feed).model
    muls = [node for node in after.graph.nodes() if is_scale(node)]
    assert len(muls) == 1
    (mul,) = muls
    assert {use.node.name for use in mul.outputs[0].uses()} == {f"MatMul_{part}" for part in "qkv"}
    source, made = after.plan.tensors["n"], after.plan.tensors[mul.outputs[0].name or ""]
    assert source.spec is not None and source.read_by == frozenset(["Add_y"])
    assert made.spec is not None and made.read_by is None
    factor = after.plan.tensors[mul.inputs[1].name or ""]
    assert factor.spec is None and "scale of channels" in factor.reason


def test_a_tensor_that_only_a_scale_reads_is_not_rounded(tmp_path: Path) -> None:
    model, feed, _, _ = net("tanh", tmp_path)
    row = run(model, feed).model.plan.tensors["t"]
    assert model.plan.tensors["t"].spec is not None
    assert row.spec is None and "scaled for the layers that read it" in row.reason


def test_twice_needs_no_second_mul(tmp_path: Path) -> None:
    model, feed, _, _ = net("tanh", tmp_path)
    once = run(model, feed, search=False, alpha=0.5).model
    twice = run(once, feed, search=False, alpha=0.5).model
    assert [*additions_of(twice.graph).scales] == [*additions_of(once.graph).scales]
    assert [node.name for node in twice.graph.nodes()] == [node.name for node in once.graph.nodes()]
    expected, found = output(model, feed), output(twice, feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_without_muls(tmp_path: Path) -> None:
    model, feed, _, _ = net("LayerNorm and a residual", tmp_path)
    outcome = run(model, feed, insert=False)
    assert outcome.model is model
    assert "nothing is changed" in outcome.summary
    assert all("Add Add_y reads n too" in row.what for row in outcome.rows)


def test_hardware_without_float_gets_no_mul(tmp_path: Path) -> None:
    model, feed, _, _ = net("LayerNorm and a residual", tmp_path, target="qualcomm-htp")
    outcome = run(model, feed)
    assert outcome.model is model


def test_weights_alone(tmp_path: Path) -> None:
    """Nothing that is read is rounded: large inputs get small steps (as AWQ does it)."""
    model, feed, _, _ = net("LayerNorm", tmp_path, target="weight-only", weight_block_size=0)
    outcome = run(model, feed)
    expected = output(model, feed)
    noise = []
    for other in (model, outcome.model):
        engine = simulating_executor(other.graph, other.plan, other.encodings)
        noise.append(np.square(engine.run(feed)["y"].numpy() - expected).sum())
    assert noise[1] < 0.5 * noise[0]


def test_cancelled(tmp_path: Path) -> None:
    model, feed, _, _ = net("LayerNorm", tmp_path)
    token = CancelToken()
    with pytest.raises(CancelledError):
        smoothquant(model, samples_of(feed), SmoothQuantOptions(), lambda _: token.cancel(), token)
