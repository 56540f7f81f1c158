"""What is exported opens again as its float graph and the same quantization, in every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from forms import attention, exported, inputs_of, mlp, operators, pools, quantized, recurrent
from sim_graphs import conv_net, graph_of

from studio.errors import ModelError
from studio.exporting.files import save_onnx
from studio.exporting.options import ExportOptions
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.quant.encoding import Encoding
from studio.runtime.session import Optimizations, Session
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.found import AS_IN_FILE, constant_integers
from studio.sim.placement import place
from studio.sim.plan import Plan, Role

GRAPHS = {
    "conv": conv_net(),
    "mlp": mlp(),
    "attention": attention(),
    "recurrent": recurrent(),
    "pools": pools(),
}
CONFIG = QuantConfig(target="custom")
FP8 = "float8e4m3fn"
BLOCKS = {"weight_block_size": 16, "act_enabled": False}

FORMS: dict[str, tuple[dict, ExportOptions]] = {
    "QDQ of 2 and 4 bits": (
        {"weight_bits": 2, "act_bits": 4},
        ExportOptions(weight_storage_bits=2, activation_storage_bits=2),
    ),
    "QCDQ": ({"weight_bits": 4, "act_bits": 6}, ExportOptions()),
    "strict 8 bits": ({"act_strict": True, "act_symmetric": True}, ExportOptions()),
    "strict 12 bits": ({"act_strict": True, "act_symmetric": True, "act_bits": 12},
                       ExportOptions()),
    "4 bits in bytes, QOperator": ({"weight_bits": 4}, ExportOptions(format="qoperator")),
    "blocks": ({"weight_bits": 4, "weight_block_size": 16}, ExportOptions(weight_storage_bits=4)),
    "blocks of floats": ({"weight_bits": 4, "weight_block_size": 16},
                         ExportOptions(weights="float")),
    "low-power blocks": (
        {"weight_bits": 4, "weight_block_size": 16, "weight_lpbq": True},
        ExportOptions(weight_storage_bits=4),
    ),
    "MatMulNBits of 2": (
        {"weight_bits": 2, **BLOCKS}, ExportOptions(format="weight-only", weight_storage_bits=2)
    ),
    "MatMulNBits of 4": (
        {"weight_bits": 4, "weight_symmetric": False, **BLOCKS},
        ExportOptions(format="weight-only", weight_storage_bits=4),
    ),
    "MatMulNBits of 4 in 8": ({"weight_bits": 4, **BLOCKS}, ExportOptions(format="weight-only")),
    "fp8": ({"weight_format": FP8, "act_format": FP8}, ExportOptions()),
    "fp8 weights in float": ({"weight_format": FP8, "act_format": FP8},
                             ExportOptions(weights="float")),
    "fp8 weights in blocks": (
        {"weight_format": "float8e5m2", "weight_block_size": 16, "act_enabled": False},
        ExportOptions(),
    ),
    "float16": ({"weight_format": "float16", "act_format": "float16"}, ExportOptions()),
    "bfloat16": ({"weight_format": "bfloat16", "act_format": "bfloat16"},
                 ExportOptions(weights="float")),
    "dynamic as pairs": ({"act_dynamic": True}, ExportOptions()),
    "dynamic": ({"act_dynamic": True, "weight_bits": 4}, ExportOptions(format="dynamic")),
    "dynamic per tensor": (
        {"act_dynamic": True, "weight_per_channel": False, "weight_symmetric": False},
        ExportOptions(format="dynamic", contrib_ops=True),
    ),
}  # fmt: skip

every_model = pytest.mark.parametrize("name", GRAPHS)


def opened(model: ir.Model, folder: Path) -> tuple[ModelGraph, Plan, dict[str, Encoding]]:
    path = folder / "model.onnx"
    save_onnx(model, path)
    graph = open_model(path)
    plan = place(graph, CONFIG)
    return graph, plan, compute_encodings(graph, plan, {})


def outputs(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """As onnxruntime computes them without its optimisations."""
    return list(Session(model, optimizations=Optimizations.NONE).run(feeds).values())


def steps(graph: ModelGraph, plan: Plan, encoding: Encoding, name: str) -> np.ndarray:
    """Numbers of the constant `name` on its grid, less their zero points."""
    numbers = np.asarray(constant_integers(graph, plan.tensors[name], encoding)).astype(np.float64)
    return numbers - encoding.spread(encoding.zero_point, numbers.shape)


@every_model
@pytest.mark.parametrize("form", FORMS)
def test_reopened_and_exported_again(tmp_path: Path, name: str, form: str) -> None:
    numbers, options = FORMS[form]
    source = GRAPHS[name]
    plan, encodings = quantized(source, CONFIG.with_defaults(**numbers))
    first = exported(source, plan, encodings, options)
    graph, again, found = opened(first, tmp_path)
    second = exported(graph, again, found, options)

    assert operators(second) == operators(first)
    feeds = inputs_of(source, seed=9)
    for before, after in zip(outputs(first, feeds), outputs(second, feeds), strict=True):
        np.testing.assert_array_equal(before, after)

    assert found.keys() == encodings.keys()
    rounds_state = "DynamicQuantizeLSTM" in operators(first)
    assert len(graph.warnings) == rounds_state
    for tensor, encoding in encodings.items():
        other, turned = found[tensor], False
        shape = tuple(source.value(tensor).shape or ())
        if shape != tuple(graph.value(tensor).shape or ()):
            # a Gemm with transB became a product of the transposed weight
            assert plan.tensors[tensor].role is Role.WEIGHT
            turned = True
        scale = encoding.scale.T if turned else encoding.scale
        np.testing.assert_array_equal(other.scale, scale, err_msg=tensor)
        assert (other.grid.bits, other.block_size) == (encoding.grid.bits, encoding.block_size)
        if plan.tensors[tensor].role in (Role.INPUT, Role.ACTIVATION):
            assert encoding.grid.symmetric <= other.grid.symmetric
            np.testing.assert_array_equal(other.zero_point, encoding.zero_point)
        else:
            expected = steps(source, plan, encoding, tensor)
            actual = steps(graph, again, other, tensor)
            np.testing.assert_array_equal(actual, expected.T if turned else expected)


def test_tensors_ranged_at_every_inference_stay_so(tmp_path: Path) -> None:
    source = GRAPHS["attention"]
    plan, encodings = quantized(source, CONFIG.with_defaults(act_dynamic=True))
    graph, again, _ = opened(exported(source, plan, encodings), tmp_path)
    ranged = {name for name, row in plan.tensors.items() if row.dynamic}
    assert {name for name, row in again.tensors.items() if row.dynamic} == ranged
    assert all(again.tensors[name].reason == AS_IN_FILE for name in ranged)
    reading = next(layer for layer in again.layers if ranged & {*layer.inputs})
    assert reading.settings.act_dynamic is True

    calibrated = place(graph, CONFIG.with_defaults(act_dynamic=False))
    assert not any(row.dynamic for row in calibrated.tensors.values())
    assert ranged <= {*calibrated.observed}
    only_here = place(graph, CONFIG.with_layers([reading.name], act_dynamic=False))
    left = {name for name, row in only_here.tensors.items() if row.dynamic}
    assert left == ranged - {*reading.inputs}


@pytest.mark.parametrize("form", ["blocks", "MatMulNBits of 4", "fp8", "float16", "dynamic"])
@pytest.mark.parametrize("name", ["mlp", "recurrent"])
def test_a_damaged_file_opens_or_is_refused(tmp_path: Path, name: str, form: str) -> None:
    """Operands missing or exchanged, constants of other shapes, types and values."""
    numbers, options = FORMS[form]
    plan, encodings = quantized(GRAPHS[name], CONFIG.with_defaults(**numbers))
    whole = ir.to_proto(exported(GRAPHS[name], plan, encodings, options))
    rng = np.random.default_rng(len(form))
    refused = 0
    for _ in range(20):
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        node = model.graph.node[rng.integers(len(model.graph.node))]
        constant = model.graph.initializer[rng.integers(len(model.graph.initializer))]
        array = onnx.numpy_helper.to_array(constant)
        sizes = [item for item in node.attribute if item.type == onnx.AttributeProto.INT]
        match rng.integers(5):
            case 0:
                node.input[rng.integers(len(node.input))] = rng.choice(["", constant.name])
            case 1:
                del node.input[-1]
            case 2:
                array = np.resize(array, [(), (3,), (0,), (2, 2), (1, 2, 3)][rng.integers(5)])
            case 3 if sizes:
                sizes[rng.integers(len(sizes))].i = int(rng.choice([-1, 0, 1, 3, 100000]))
            case _:
                array = array.astype(np.float32) * np.float32(rng.choice([0, -1]))
        constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
        onnx.save(model, tmp_path / "damaged.onnx")
        try:
            place(open_model(tmp_path / "damaged.onnx"), CONFIG)
        except ModelError:
            refused += 1
    assert refused < 20


def test_other_settings_free_weights_in_blocks(tmp_path: Path) -> None:
    source = GRAPHS["mlp"]
    plan, encodings = quantized(source, CONFIG.with_defaults(weight_bits=4, **BLOCKS))
    options = ExportOptions(format="weight-only", weight_storage_bits=4)
    graph, again, _ = opened(exported(source, plan, encodings, options), tmp_path)
    layer = next(layer for layer in again.layers if "w2" in layer.weights)
    assert (layer.settings.weight_bits, layer.settings.weight_block_size) == (4, 16)
    changed = place(graph, CONFIG.with_layers([layer.name], weight_bits=8))
    assert changed.tensors["w2"].spec.grid.bits == 8
    assert not changed.tensors["w2"].from_file
    assert changed.tensors["w3"].from_file


def test_a_recurrent_layer_in_both_directions_with_a_scale_for_each_column(
    tmp_path: Path,
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    source = graph_of(
        """(float[7, n, 16] x) => (float[7, 2, n, 12] y) {
            y = LSTM<hidden_size = 12, direction = "bidirectional">(x, w, r, bias)
        }""",
        w=(2, 48, 16),
        r=(2, 48, 12),
        bias=(2, 96),
    )
    onnx.save(ir.to_proto(source.ir), tmp_path / "float.onnx")
    file = tmp_path / "file.onnx"
    quantization.quantize_dynamic(tmp_path / "float.onnx", file, per_channel=True)
    (node,) = (n for n in onnx.load(file).graph.node if n.op_type == "DynamicQuantizeLSTM")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
    scale = stored[node.input[8]]
    assert scale.shape == (2, 48)

    graph = open_model(file)
    assert [item.op_type for item in graph.nodes()] == ["LSTM"]
    assert any("rounds its state at every step" in warning for warning in graph.warnings)
    weight = graph.node("LSTM0").inputs[1].name
    np.testing.assert_array_equal(graph.found[weight].scale[..., 0], scale)
    expected = stored[node.input[1]].transpose(0, 2, 1) * scale[..., None]
    np.testing.assert_array_equal(graph.constant(weight), expected)
    plan = place(graph, CONFIG)
    model = exported(graph, plan, compute_encodings(graph, plan, {}))
    feeds = inputs_of(source)
    (before,) = outputs(ir.load(file), feeds)
    (after,) = outputs(model, feeds)
    (floats,) = outputs(source.ir, feeds)
    # the file rounds its state besides
    assert np.abs(before - after).max() < 0.5 * np.abs(before - floats).max() < 0.1


@pytest.mark.parametrize("weight", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ["mlp", "attention", "recurrent"])
def test_files_of_quantize_dynamic(
    tmp_path: Path, name: str, per_channel: bool, weight: str
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    source = GRAPHS[name]
    proto = ir.to_proto(source.ir)
    del proto.graph.value_info[:]  # the quantizer turns weights around without regard to it
    onnx.save(proto, tmp_path / "float.onnx")
    file = tmp_path / "file.onnx"
    quantization.quantize_dynamic(
        tmp_path / "float.onnx",
        file,
        per_channel=per_channel,
        weight_type=quantization.QuantType[weight],
    )
    graph = open_model(file)
    plan = place(graph, CONFIG)
    assert any(row.dynamic for row in plan.tensors.values())
    options = ExportOptions(format="dynamic", contrib_ops=True)
    model = exported(graph, plan, compute_encodings(graph, plan, {}), options)
    feeds = inputs_of(source, seed=9)
    for before, after in zip(outputs(ir.load(file), feeds), outputs(model, feeds), strict=True):
        np.testing.assert_array_equal(before, after)
