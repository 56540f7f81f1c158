"""Integer operators in place of float ones between DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from forms import (
    attention,
    differences,
    exported,
    inputs_of,
    mlp,
    operators,
    pools,
    quantized,
    recurrent,
)
from sim_graphs import conv_net, graph_of

from studio.exporting.files import save_onnx
from studio.exporting.graphs import kept_as_pairs
from studio.exporting.operators.matmul_nbits import pack
from studio.exporting.options import ExportOptions
from studio.graph.open import open_model
from studio.quant.grid import Grid
from studio.runtime.session import Optimizations, Session
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.plan import DYNAMIC as DYNAMIC_RANGE
from studio.sim.plan import QuantSpec
from studio.sim.simulator import simulating_executor

GRAPHS = {
    "conv": conv_net(),
    "mlp": mlp(),
    "attention": attention(),
    "recurrent": recurrent(),
    "pools": pools(),
}
every_model = pytest.mark.parametrize("name", GRAPHS)

# --- QOperator --------------------------------------------------------------------------------

QOPERATOR = ExportOptions(format="qoperator")
EXPECTED = {
    "conv": {
        "QLinearConv": 3,
        "MaxPool": 1,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "Flatten": 1,
        "QGemm": 1,
        "QLinearSoftmax": 1,
        "QuantizeLinear": 1,
        "DequantizeLinear": 1,
    },
    "mlp": {
        "QGemm": 2,
        "QLinearMatMul": 1,
        "QLinearAdd": 1,
        "QuantizeLinear": 1,
        "DequantizeLinear": 1,
    },
    "pools": {
        "QLinearConv": 1,
        "QLinearLeakyRelu": 1,
        "QLinearSigmoid": 1,
        "QLinearConcat": 1,
        "QLinearAveragePool": 1,
        "QLinearMul": 1,
        "QLinearMatMul": 2,
        "QLinearSoftmax": 1,
        "QLinearAdd": 1,
        "Pad": 0,
        "QuantizeLinear": 1,
        "DequantizeLinear": 1,
    },
}
SETTINGS = {
    "unsigned": ("onnxruntime", {}),
    "signed": ("arm-ethos", {}),
    "narrow": ("onnxruntime", {"weight_bits": 4, "act_bits": 5}),
    "one scale": ("onnxruntime", {"weight_per_channel": False, "weight_symmetric": False}),
    "16 bits stay pairs": ("onnxruntime", {"act_bits": 16}),
}


@every_model
@pytest.mark.parametrize(("target", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_every_layer_is_at_most_one_step_from_the_simulation(
    name: str, target: str, settings: dict
) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig(target=target).with_defaults(**settings))
    model = exported(graph, plan, encodings, QOPERATOR)
    steps = differences(graph, plan, encodings, model)
    assert max(steps.values()) <= 1
    exact = [layer for layer, step in steps.items() if step < 1e-5]
    assert len(exact) >= len(steps) - 2


@pytest.mark.parametrize("name", EXPECTED)
def test_everything_that_has_an_integer_operator_gets_it(name: str) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig())
    found = operators(exported(graph, plan, encodings, QOPERATOR))
    expected = EXPECTED[name]
    assert {op: found[op] for op in expected} == expected


def test_standard_operators_alone() -> None:
    graph = GRAPHS["conv"]
    plan, encodings = quantized(graph, QuantConfig())
    options = ExportOptions(format="qoperator", contrib_ops=False)
    model = exported(graph, plan, encodings, options)
    assert {node.domain for node in model.graph} == {""}
    assert operators(model)["QLinearConv"] == 3
    assert operators(model)["Gemm"] == 1
    assert max(differences(graph, plan, encodings, model).values()) <= 1


def test_what_stays_in_float_is_named() -> None:
    graph = GRAPHS["attention"]
    plan, encodings = quantized(graph, QuantConfig())
    model = exported(graph, plan, encodings, QOPERATOR)
    left = {model.graph.node(name).op_type for name in kept_as_pairs(model)}
    assert left <= {"LayerNormalization", "Div", "Sigmoid", "Mul"}
    assert {"LayerNormalization", "Div", "Sigmoid"} <= left
    assert not any(op in operators(model) for op in ("MatMul", "Conv"))


def test_a_symmetric_activation_behind_relu_is_cut_off_in_integers() -> None:
    """The zero point is not the lowest integer there, so saturation cannot do the Relu's work."""
    graph = GRAPHS["conv"]
    plan, encodings = quantized(graph, QuantConfig(target="arm-ethos"))
    model = exported(graph, plan, encodings, QOPERATOR)
    assert encodings["b"].grid == Grid(8, signed=True, symmetric=True)
    (clip,) = (node for node in model.graph if node.outputs[0].name == "b_quantized")
    assert clip.op_type == "Clip"
    assert [int(value.const_value.numpy()) for value in clip.inputs[1:]] == [0, 127]


def test_a_tensor_that_others_read_in_float_stays_a_pair() -> None:
    graph = graph_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            a = MatMul(x, w)
            b = Erf(a)
            c = MatMul(a, w2)
            y = Add(b, c)
        }""",
        w=(4, 4),
        w2=(4, 4),
    )
    plan, encodings = quantized(graph, QuantConfig(target="tensorrt"))
    model = exported(graph, plan, encodings, QOPERATOR)
    assert max(differences(graph, plan, encodings, model).values()) < 1e-5


@every_model
@pytest.mark.parametrize("settings", [{}, {"weight_bits": 4}, {"act_bits": 5, "weight_bits": 3}])
def test_opening_the_file_gives_the_encodings_back(
    tmp_path: Path, name: str, settings: dict
) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig().with_defaults(**settings))
    path = tmp_path / "model.onnx"
    save_onnx(exported(graph, plan, encodings, QOPERATOR), path)
    again = open_model(path)
    placed = place(again, QuantConfig())
    found = compute_encodings(again, placed, {})
    assert found.keys() == encodings.keys()
    for tensor, encoding in encodings.items():
        other = found[tensor]
        np.testing.assert_array_equal(other.scale, encoding.scale, err_msg=tensor)
        np.testing.assert_array_equal(other.zero_point, encoding.zero_point, err_msg=tensor)
        assert (other.axis, other.grid.qmin, other.grid.qmax) == (
            encoding.axis,
            encoding.grid.qmin,
            encoding.grid.qmax,
        )
    feeds = inputs_of(graph, seed=9)
    before = simulating_executor(graph, plan, encodings).run(feeds, ["y"])["y"]
    after = simulating_executor(again, placed, found).run(feeds, ["y"])["y"]
    np.testing.assert_array_equal(after.numpy(), before.numpy())
    assert not any("while the model runs" in text for text in again.warnings)


# --- weights alone ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "attention"])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(("bits", "symmetric"), [(2, True), (4, True), (4, False), (8, False)])
def test_blocks_as_matmul_nbits(name: str, block: int, bits: int, symmetric: bool) -> None:
    graph = GRAPHS[name]
    config = QuantConfig(target="custom").with_defaults(
        weight_bits=bits,
        weight_symmetric=symmetric,
        weight_block_size=block,
        act_enabled=False,
    )
    plan, encodings = quantized(graph, config)
    options = ExportOptions(format="weight-only", weight_storage_bits=bits)
    model = exported(graph, plan, encodings, options)
    found = [node for node in model.graph if node.op_type == "MatMulNBits"]
    assert len(found) == {"mlp": 3, "attention": 5}[name]
    assert all((len(node.inputs) > 3 and node.inputs[3] is not None) is not symmetric
               for node in found)  # fmt: skip
    for optimizations in (Optimizations.NONE, Optimizations.INTEGER):
        steps = differences(graph, plan, encodings, model, optimizations)
        assert max(steps.values()) < 3e-6


def test_the_same_blocks_behind_dequantize_linear() -> None:
    graph = GRAPHS["mlp"]
    config = QuantConfig(target="weight-only").with_defaults(weight_block_size=16)
    plan, encodings = quantized(graph, config)
    model = exported(graph, plan, encodings, ExportOptions(format="qdq"), "weight-only")
    nodes = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    assert {node.attributes["block_size"].as_int() for node in nodes} == {16}
    assert {node.inputs[0].dtype for node in nodes} == {ir.DataType.INT4}
    assert max(differences(graph, plan, encodings, model).values()) < 3e-6


def test_blocks_that_matmul_nbits_does_not_know_stay_behind_dequantize_linear() -> None:
    graph = GRAPHS["mlp"]
    config = QuantConfig(target="custom").with_defaults(
        weight_bits=4, weight_block_size=20, act_enabled=False
    )
    plan, encodings = quantized(graph, config)
    model = exported(graph, plan, encodings, ExportOptions(format="weight-only"))
    assert "MatMulNBits" not in operators(model)
    assert len(kept_as_pairs(model)) == 3


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packing_is_low_bits_first(bits: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**bits, (3, 7)).astype(np.uint8)
    packed = pack(rows, bits)
    for row, numbers in zip(packed, rows, strict=True):
        stream = int.from_bytes(row.tobytes(), "little")
        assert [stream >> (bits * i) & (2**bits - 1) for i in range(7)] == numbers.tolist()


# --- ranges taken at every inference ----------------------------------------------------------

DYNAMIC = ExportOptions(format="dynamic")


@every_model
def test_dynamic_products_are_the_simulation(name: str) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig(target="onnxruntime-dynamic"))
    model = exported(graph, plan, encodings, DYNAMIC)
    steps = differences(graph, plan, encodings, model)
    assert max(steps.values()) < 1e-5
    found = operators(model)
    assert found["MatMulInteger"] + found["DynamicQuantizeLSTM"] == {
        "conv": 1, "mlp": 3, "attention": 5, "recurrent": 2, "pools": 2,
    }[name]  # fmt: skip


@pytest.mark.parametrize("channels", [True, False])
def test_dynamic_convolutions(channels: bool) -> None:
    graph = GRAPHS["conv"]
    config = QuantConfig(bias="float").with_defaults(weight_per_channel=channels)
    plan, encodings = quantized(graph, config)
    spec = QuantSpec(Grid(8, signed=False, symmetric=False), None, DYNAMIC_RANGE)
    rows = {
        name: replace(row, spec=spec, tied_to=None) if name in ("x", "b", "e") else row
        for name, row in plan.tensors.items()
    }
    plan = replace(plan, tensors=rows)
    encodings = {name: encodings[name] for name in plan.quantized}
    model = exported(graph, plan, encodings, DYNAMIC)
    assert operators(model)["ConvInteger"] == 3
    assert max(differences(graph, plan, encodings, model).values()) < 1e-5


def test_dynamic_lstm_rounds_its_state_too() -> None:
    graph = GRAPHS["recurrent"]
    plan, encodings = quantized(graph, QuantConfig(target="onnxruntime-dynamic"))
    feeds = inputs_of(graph, seed=9)
    simulated = simulating_executor(graph, plan, encodings).run(feeds, ["y"])["y"].numpy()
    model = exported(graph, plan, encodings, DYNAMIC)
    assert operators(model)["DynamicQuantizeLSTM"] == 1
    result = Session(model, optimizations=Optimizations.NONE).run(feeds)["y"]
    error = np.abs(result - simulated).max() / np.abs(simulated).max()
    assert 1e-6 < error < 0.02
    options = ExportOptions(format="dynamic", contrib_ops=False)
    plain = exported(graph, plan, encodings, options)
    assert "DynamicQuantizeLSTM" not in operators(plain)
    result = Session(plain, optimizations=Optimizations.NONE).run(feeds)["y"]
    np.testing.assert_allclose(result, simulated, atol=1e-5 * float(np.abs(simulated).max()))


def test_dynamic_file_of_onnxruntimes_own_quantizer_agrees(tmp_path: Path) -> None:
    """The same weights and the same float input give the same integers in both files."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = graph_of("(float[n, 32] x) => (float[n, 8] y) { y = MatMul(x, w) }", w=(32, 8))
    onnx.save(graph.to_proto(), tmp_path / "float.onnx")
    quantize_dynamic(
        tmp_path / "float.onnx",
        tmp_path / "theirs.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"WeightSymmetric": True},
    )
    config = QuantConfig(target="onnxruntime-dynamic").with_defaults(
        weight_strict=True, weight_bits=8, weight_per_channel=True
    )
    plan, encodings = quantized(graph, config)
    model = exported(graph, plan, encodings, DYNAMIC)
    feeds = inputs_of(graph)
    ours = Session(model, optimizations=Optimizations.NONE).run(feeds)["y"]
    theirs = Session(tmp_path / "theirs.onnx", optimizations=Optimizations.NONE).run(feeds)["y"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
