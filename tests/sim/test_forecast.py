"""The forecast of kernels, held against the graphs that onnxruntime really makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sim_graphs import batches, conv_net, graph_of

import studio
from studio.analysis.forecast import Forecast, Runs, forecast
from studio.exporting.files import save_onnx
from studio.exporting.graphs import quantized_model
from studio.exporting.kernels import LayerKernel, layer_kernels
from studio.exporting.options import ExportOptions, export_form
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.prepare import prepare
from studio.runtime.session import Optimizations, Session
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.target import load_target


def operators() -> ModelGraph:
    """One of every operator with an integer kernel of its own, and integer moves."""
    text = """g (float[n, 8, 8, 8] x) => (float[n, 8, 8, 8] y, float[n, 16, 8, 8] c,
        float[n, 8, 4, 4] p, float[n, 64, 6] m, float[n, 64, 64] mm, float[n, 8, 16, 16] z) {
            s = Sigmoid(x)
            l = LeakyRelu(x)
            a = Add(s, l)
            y = Mul(a, x)
            c = Concat<axis = 1>(s, l)
            p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(l)
            r = Reshape(x, shape)
            t = Transpose<perm = [0, 2, 1]>(r)
            m = MatMul(t, w)
            mm = MatMul(t, r)
            z = Resize<mode = "nearest">(x, , scales)
        }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((8, 6)).astype(np.float32),
        "shape": np.array([0, 8, 64]),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}{index}"
    return prepare(ModelGraph(ir.from_proto(proto), ModelSource(Path("test.onnx"))))


def transformer() -> ModelGraph:
    """Attention, LayerNormalization and a SiLU between two products."""
    return graph_of(
        """(float[n, 16, 32] x) => (float[n, 16, 32] y) {
            q = MatMul(x, wq)
            qb = Add(q, bq)
            k = MatMul(x, wk)
            kt = Transpose<perm = [0, 2, 1]>(k)
            s = MatMul(qb, kt)
            p = Softmax<axis = -1>(s)
            v = MatMul(x, wv)
            o = MatMul(p, v)
            r = Add(o, x)
            ln = LayerNormalization<axis = -1>(r, g1, b1)
            h = MatMul(ln, w1)
            hb = Add(h, bh)
            gate = Sigmoid(hb)
            silu = Mul(hb, gate)
            f = MatMul(silu, w2)
            y = Add(f, ln)
        }""",
        wq=(32, 32),
        bq=(32,),
        wk=(32, 32),
        wv=(32, 32),
        g1=(32,),
        b1=(32,),
        w1=(32, 64),
        bh=(64,),
        w2=(64, 32),
    )


def mixed() -> ModelGraph:
    """SiLU, HardSwish, a Relu alone, ConvTranspose, Conv + Clip(-1, 1), Gemm with and without Relu,
    tensors that several layers read."""
    return graph_of(
        """(float[n, 8, 8, 8] x) => (float[n, 8, 8, 8] y, float[n, 8, 16, 16] z,
            float[n, 8, 8, 8] k, float[n, 6] g, float[n, 6] e) {
            a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
            gate = Sigmoid(a)
            silu = Mul(a, gate)
            hs = HardSwish(silu)
            y = Relu(hs)
            z = ConvTranspose<strides = [2, 2]>(a, wt)
            low = Constant<value_float = -1.0>()
            high = Constant<value_float = 1.0>()
            k0 = Conv<pads = [1, 1, 1, 1]>(x, w2)
            k = Clip(k0, low, high)
            pool = GlobalAveragePool(silu)
            flat = Flatten(pool)
            g0 = Gemm(flat, w3, b3)
            g = Relu(g0)
            e0 = Gemm(flat, w4)
            e = Softmax<axis = 1>(e0)
        }""",
        w1=(8, 8, 3, 3),
        b1=(8,),
        wt=(8, 8, 2, 2),
        w2=(8, 8, 3, 3),
        w3=(8, 6),
        b3=(6,),
        w4=(8, 6),
    )


NETS: dict[str, Callable[[], ModelGraph]] = {
    "conv": conv_net,
    "operators": operators,
    "transformer": transformer,
    "mixed": mixed,
}
SYMMETRIC = {"act_symmetric": True, "act_unsigned_symmetric": False}
SIGNED = {"activations": {"signed": True}}
UNSIGNED_WEIGHTS = {"weights": {"signed": False, "symmetric": False}}
IN_4_BITS = {"export": {"weight_storage_bits": 4}}
# what is changed of the target, and of the settings
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "symmetric": ({}, SYMMETRIC),
    "unsigned symmetric": ({}, {"act_symmetric": True, "act_unsigned_symmetric": True}),
    "signed": (SIGNED, {}),
    "signed symmetric": (SIGNED, SYMMETRIC),
    "signed 4-bit activations": (SIGNED, {"act_bits": 4}),
    "16-bit activations": ({}, {"act_bits": 16}),
    "12-bit activations": ({}, {"act_bits": 12}),
    "4-bit activations": ({}, {"act_bits": 4}),
    "4-bit weights in bytes": ({}, {"weight_bits": 4}),
    "4-bit weights": (IN_4_BITS, {"weight_bits": 4}),
    "16-bit weights": ({}, {"weight_bits": 16}),
    "unsigned weights": (UNSIGNED_WEIGHTS, {}),
    "signed, unsigned weights": ({**SIGNED, **UNSIGNED_WEIGHTS}, {}),
    "float activations": ({}, {"act_enabled": False}),
    "float activations, 4-bit weights": (IN_4_BITS, {"act_enabled": False, "weight_bits": 4}),
    "float activations, 16-bit weights": ({}, {"act_enabled": False, "weight_bits": 16}),
    "float weights": ({}, {"weight_enabled": False}),
}


def config(folder: Path, change: dict[str, Any], settings: dict[str, Any]) -> QuantConfig:
    target = folder / "changed.json"
    rule = {"extends": "onnxruntime", "name": "changed", "title": "Changed", **change}
    target.write_text(json.dumps(rule), encoding="utf-8")
    return QuantConfig(target=str(target)).with_defaults(**settings)


def run(
    graph: ModelGraph, folder: Path, settings: QuantConfig, **options: Any
) -> tuple[Forecast, dict[str, LayerKernel]]:
    """The forecast, and what onnxruntime made of the exported file."""
    sim = studio.QuantSim(graph, settings).calibrate(batches(graph))
    target = load_target(settings.target)
    form = export_form(ExportOptions(**options), target.export)
    path = folder / "model.onnx"
    save_onnx(quantized_model(graph, sim.plan, sim.encodings, form), path)
    optimized = folder / "optimized.onnx"
    session = Session(path, optimizations=Optimizations.KERNELS, optimized_path=optimized)
    session.run(batches(graph)[0])
    return (
        forecast(graph, sim.plan, target, sim.encodings),
        layer_kernels(graph, sim.plan, optimized),
    )


def differences(expected: Forecast, kernels: dict[str, LayerKernel]) -> list[str]:
    return [
        f"{row.layer}: {row.runs} ({row.reason}), really {kernels[row.layer]}"
        for row in expected.layers
        if Runs.ABSORBED not in (row.runs, kernels[row.layer].runs)
        and row.runs is not kernels[row.layer].runs
    ]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("net", NETS)
def test_forecast_is_what_onnxruntime_does(net: str, name: str, tmp_path: Path) -> None:
    graph = NETS[net]()
    expected, kernels = run(graph, tmp_path, config(tmp_path, *SETTINGS[name]))
    assert not differences(expected, kernels)
    compared = [row for row in expected.layers if kernels[row.layer].runs is not Runs.ABSORBED]
    assert len(compared) >= len(expected.layers) - 3, "hardly any layer is compared"
    for row in compared:
        if row.runs is Runs.INTEGER and row.kernel.startswith("Q"):
            assert row.kernel in kernels[row.layer].kernel
        assert bool(row.reason) == (row.runs is Runs.FLOAT)


@pytest.mark.parametrize(
    "layers",
    [
        {"*Add*": {"act_bits": 16}, "*Conv0*": {"act_bits": 16}, "*Sigmoid*": {"act_bits": 16}},
        {"*Add*": {"act_enabled": False}, "*Conv*": {"act_enabled": False}},
        {"*Gemm*": {"act_enabled": False}, "x": {"act_enabled": False}},
        {"*MatMul*": {"weight_bits": 16}, "*Conv2*": {"weight_bits": 16}},
    ],
)
@pytest.mark.parametrize("net", NETS)
def test_layers_set_apart(net: str, layers: dict[str, Any], tmp_path: Path) -> None:
    settings = QuantConfig.model_validate({"layers": layers})
    assert not differences(*run(NETS[net](), tmp_path, settings))


def test_reasons_name_the_cause(tmp_path: Path) -> None:
    expected, _ = run(conv_net(), tmp_path, config(tmp_path, *SETTINGS["symmetric"]))
    row = next(row for row in expected.layers if row.title == "Conv + Relu")
    assert row.runs is Runs.FLOAT
    assert "keeps the Relu" in row.reason
    assert "asymmetric" in row.hint
    expected, _ = run(conv_net(), tmp_path, config(tmp_path, *SETTINGS["16-bit activations"]))
    reasons = {row.title: row.reason for row in expected.float_layers}
    assert reasons["Conv"] == "ONNX Runtime has no Conv for uint16"


def test_weights_left_in_float_are_rounded_by_onnxruntime(tmp_path: Path) -> None:
    """What it computes is not what was simulated: the forecast warns."""
    expected, kernels = run(conv_net(), tmp_path, config(tmp_path, *SETTINGS["float weights"]))
    row = next(row for row in expected.layers if row.title == "Conv")
    assert "by itself" in row.warning
    assert kernels[row.layer].kernel == "QLinearConv"


def test_before_calibration_the_grid_decides(tmp_path: Path) -> None:
    graph = conv_net()
    for given, runs in (({}, Runs.INTEGER), (SYMMETRIC, Runs.FLOAT)):
        settings = QuantConfig().with_defaults(**given)
        plan = studio.QuantSim(graph, settings).plan
        rows = forecast(graph, plan, load_target("onnxruntime")).layers
        assert next(row for row in rows if row.title == "Conv + Relu").runs is runs


def test_a_residual_block_is_one_integer_kernel_each_for_tensorrt() -> None:
    """Convolutions read rounded tensors; the Add is part of the one before it."""
    graph = graph_of(
        """(float[n, 8, 8, 8] x) => (float[n, 8, 8, 8] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, w1)
            r = Relu(a)
            b = Conv<pads = [1, 1, 1, 1]>(r, w2)
            c = Conv<pads = [1, 1, 1, 1]>(b, w3)
            d = Add(c, r)
            e = Relu(d)
            s = Sigmoid(e)
            y = Conv<pads = [1, 1, 1, 1]>(s, w1)
        }""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 3, 3),
        w3=(8, 8, 3, 3),
    )
    plan = place(graph, QuantConfig(target="tensorrt"))
    rows = {row.title: row for row in forecast(graph, plan, load_target("tensorrt")).layers}
    assert rows["Conv + Relu"].runs is Runs.INTEGER
    assert rows["Conv"].runs is Runs.INTEGER
    assert rows["Add + Relu"].runs is Runs.ABSORBED
    assert rows["Sigmoid"].runs is Runs.FLOAT
    assert rows["Sigmoid"].reason
