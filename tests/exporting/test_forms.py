"""Every form of the quantized ONNX computes what the torch simulation computes, layer by layer on
equal inputs, in onnxruntime with its optimisations off."""

from __future__ import annotations

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

from studio.errors import ConfigError, ExportError
from studio.exporting.files import save_onnx
from studio.exporting.graphs import float_model, quantized_model
from studio.exporting.options import ExportOptions, export_form
from studio.sim.config import QuantConfig
from studio.sim.plan import Role
from studio.sim.qdq import Constants, insert_qdq
from studio.sim.simulator import simulating_executor
from studio.sim.target import load_target, target_names

MODELS = {
    "conv": conv_net,
    "mlp": mlp,
    "attention": attention,
    "recurrent": recurrent,
    "pools": pools,
}
GRAPHS = {name: build() for name, build in MODELS.items()}

every_model = pytest.mark.parametrize("name", MODELS)

NUMBERS = {
    "W8A8": {},
    "W4A8": {"weight_bits": 4},
    "W2A4": {"weight_bits": 2, "act_bits": 4},
    "W8A16": {"act_bits": 16},
    "strict": {"weight_strict": True, "act_strict": True, "act_symmetric": True},
    "strict 12 bits": {"act_strict": True, "act_symmetric": True, "act_bits": 12},
    "powers of two": {"weight_power_of_two": True, "act_power_of_two": True},
    "blocks": {"weight_bits": 4, "weight_block_size": 16},
    "low-power blocks": {"weight_bits": 4, "weight_block_size": 16, "weight_lpbq": True},
    "dynamic": {"act_dynamic": True},
}
FLOATS = (
    "float16",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
)
NARROWEST = ExportOptions(weight_storage_bits=2, activation_storage_bits=2)


@every_model
@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS.keys())
def test_qdq_is_the_simulation(name: str, numbers: dict) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig(target="custom").with_defaults(**numbers))
    for options in (ExportOptions(), NARROWEST, ExportOptions(weights="float")):
        model = exported(graph, plan, encodings, options)
        steps = differences(graph, plan, encodings, model)
        assert steps
        assert max(steps.values()) < 1e-5 or numbers.get("act_bits") in (12, 16)
        assert max(steps.values()) <= 1


@every_model
@pytest.mark.parametrize("format", FLOATS)
def test_floating_point_formats(name: str, format: str) -> None:
    graph = GRAPHS[name]
    config = QuantConfig(target="custom").with_defaults(weight_format=format, act_format=format)
    plan, encodings = quantized(graph, config)
    # A float result that lies between two numbers of the format may round either way.
    ulp = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(format, 0.0)
    for options in (ExportOptions(), ExportOptions(weights="float")):
        model = exported(graph, plan, encodings, options)
        assert max(differences(graph, plan, encodings, model).values()) <= ulp + 1e-6
    casts = format in ("float16", "bfloat16")
    assert ("Cast" in operators(model)) is casts
    assert model.opset_imports[""] >= (13 if casts else 19)


@every_model
def test_float4_is_simulated_by_arithmetic(name: str) -> None:
    graph = GRAPHS[name]
    config = QuantConfig(target="custom").with_defaults(
        weight_format="float4e2m1", act_format="float4e2m1"
    )
    plan, encodings = quantized(graph, config)
    model = insert_qdq(graph, plan, encodings, constants=Constants.FLOAT)
    assert max(differences(graph, plan, encodings, model).values()) == 0


def test_float4_file_computes_the_same_in_the_reference_evaluator() -> None:
    graph = GRAPHS["mlp"]
    config = QuantConfig(target="custom").with_defaults(
        weight_format="float4e2m1", act_format="float4e2m1"
    )
    plan, encodings = quantized(graph, config)
    model = exported(graph, plan, encodings)
    assert model.opset_imports[""] == 23
    feeds = inputs_of(graph, seed=9)
    evaluator = onnx.reference.ReferenceEvaluator(ir.to_proto(model))
    expected = simulating_executor(graph, plan, encodings).run(feeds, ["y"])["y"].numpy()
    np.testing.assert_allclose(evaluator.run(None, feeds)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["conv", "attention", "recurrent"])
@pytest.mark.parametrize("target", target_names())
def test_every_target(name: str, target: str) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig(target=target))
    model = exported(graph, plan, encodings, target=target)
    steps = differences(graph, plan, encodings, model)
    assert max(steps.values(), default=0) <= (1 if "16" in target else 1e-5)
    rule = load_target(target).export
    assert rule.opset_minimum <= model.opset_imports[""] <= rule.opset_maximum


@every_model
def test_tensorrt_reads_no_zero_points_and_float_biases(name: str) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig(target="tensorrt"))
    model = exported(graph, plan, encodings, target="tensorrt")
    pairs = [node for node in model.graph if node.op_type.endswith("uantizeLinear")]
    assert pairs
    for node in pairs:
        scale, zero_point = (node.inputs[slot].const_value for slot in (1, 2))
        assert zero_point.dtype == ir.DataType.INT8
        assert not zero_point.numpy().any()
        assert ("axis" in node.attributes) is bool(scale.numpy().ndim)
    for row in plan.tensors.values():
        assert row.role is not Role.BIAS or row.spec is None
    for node in model.graph:  # nothing between a Conv and the Add and Relu that it fuses with
        if node.op_type == "Conv":
            assert all(use.node.op_type != "QuantizeLinear" or not _feeds_add(use.node)
                       for use in node.outputs[0].uses())  # fmt: skip


def _feeds_add(quantize: ir.Node) -> bool:
    (dequantize,) = (use.node for use in quantize.outputs[0].uses())
    return any(use.node.op_type == "Add" for use in dequantize.outputs[0].uses())


def test_zero_points_that_the_target_does_not_know_are_named() -> None:
    graph = GRAPHS["mlp"]
    plan, encodings = quantized(graph, QuantConfig())
    with pytest.raises(ExportError, match="knows no zero points, which x and"):
        exported(graph, plan, encodings, target="tensorrt")


@pytest.mark.parametrize("bias", ["int32", "float"])
def test_biases_are_the_same_numbers_in_both_forms(bias: str) -> None:
    graph = GRAPHS["conv"]
    plan, encodings = quantized(graph, QuantConfig())
    model = exported(graph, plan, encodings, ExportOptions(bias=bias))
    assert max(differences(graph, plan, encodings, model).values()) == 0
    stored = model.graph.initializers
    assert ("b1_quantized" in stored) is (bias == "int32")
    if bias == "float":
        found = stored["b1"].const_value.numpy()
        expected = encodings["b1"].quantize_dequantize(graph.constant("b1"))
        np.testing.assert_array_equal(found, expected)


def test_float_weights_are_the_original_ones() -> None:
    graph = GRAPHS["mlp"]
    plan, encodings = quantized(graph, QuantConfig())
    model = exported(graph, plan, encodings, ExportOptions(weights="float"))
    found = model.graph.initializers["w1"].const_value.numpy()
    np.testing.assert_array_equal(found, graph.constant("w1"))
    assert "w1_quantized" not in model.graph.initializers


def test_rounded_float_model() -> None:
    graph = GRAPHS["mlp"]
    plan, encodings = quantized(graph, QuantConfig())
    rule = load_target("onnxruntime").export
    form = export_form(ExportOptions(float_weights="rounded"), rule)
    model = float_model(graph, plan, encodings, form)
    found = model.graph.initializers["w1"].const_value.numpy()
    np.testing.assert_array_equal(found, encodings["w1"].quantize_dequantize(graph.constant("w1")))
    assert not (found == graph.constant("w1")).all()
    np.testing.assert_array_equal(
        model.graph.initializers["b1"].const_value.numpy(), graph.constant("b1")
    )
    assert float_model(graph, plan, encodings, export_form(ExportOptions(), rule)) is graph.ir


# --- opsets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv", "mlp", "recurrent", "pools"])
@pytest.mark.parametrize("opset", [10, 11, 13, 14, 21, 25, 26])
def test_opset_as_asked(name: str, opset: int) -> None:
    graph = GRAPHS[name]
    plan, encodings = quantized(graph, QuantConfig().with_defaults(weight_per_channel=False))
    model = exported(graph, plan, encodings, ExportOptions(opset=opset))
    assert model.opset_imports[""] == opset
    assert max(differences(graph, plan, encodings, model).values()) == 0


TOO_OLD = {
    "channels": ({}, {}, 12, "w. and 2 more tensors: scales for channels need opset 13"),
    "int16": ({"act_bits": 16}, {"contrib_ops": False}, 20, "16-bit integers need opset 21"),
    "int4": (
        {"weight_bits": 4},
        {"weight_storage_bits": 4, "contrib_ops": False},
        17,
        "4-bit integers need opset 21",
    ),
    "int2": (
        {"weight_bits": 2},
        {"weight_storage_bits": 2},
        24,
        "2-bit integers need opset 25",
    ),
    "float8": ({"weight_format": "float8e4m3fn"}, {}, 18, "float8e4m3fn need opset 19"),
    "float4": ({"weight_format": "float4e2m1"}, {}, 22, "float4e2m1 need opset 23"),
    "blocks": (
        {"weight_block_size": 16},
        {},
        20,
        "scales for blocks need opset 21",
    ),
}


@pytest.mark.parametrize(("numbers", "options", "opset", "reason"), TOO_OLD.values(), ids=TOO_OLD)
def test_an_opset_below_what_the_types_need_is_refused(
    numbers: dict, options: dict, opset: int, reason: str
) -> None:
    graph = GRAPHS["mlp"]
    config = QuantConfig(bias="float").with_defaults(**numbers)
    plan, encodings = quantized(graph, config)
    with pytest.raises(ExportError, match=reason):
        exported(graph, plan, encodings, ExportOptions(opset=opset, **options))


def test_narrow_integers_below_opset_21_by_operators_of_onnxruntime() -> None:
    graph = GRAPHS["mlp"]
    config = QuantConfig().with_defaults(act_bits=16, weight_bits=4)
    plan, encodings = quantized(graph, config)
    options = ExportOptions(opset=17, contrib_ops=True, weight_storage_bits=4)
    model = exported(graph, plan, encodings, options)
    assert model.opset_imports == {"": 17, "com.microsoft": 1}
    assert max(differences(graph, plan, encodings, model).values()) <= 1


def test_operators_that_an_opset_lacks_are_named() -> None:
    graph = GRAPHS["attention"]
    plan, encodings = quantized(graph, QuantConfig())
    with pytest.raises(ExportError, match="LayerNormalization 'LayerNormalization3'"):
        exported(graph, plan, encodings, ExportOptions(opset=16))


def test_choices_that_contradict_each_other_are_refused() -> None:
    rule = load_target("onnxruntime").export
    with pytest.raises(ConfigError, match="qoperator computes with integer weights"):
        export_form(ExportOptions(format="qoperator", weights="float"), rule)
    narrow = rule.model_copy(update={"opset_maximum": 17})
    with pytest.raises(ConfigError, match="up to 17, not 21"):
        export_form(ExportOptions(opset=21), narrow)


def test_types_beyond_the_newest_opset_of_the_target_are_named() -> None:
    graph = GRAPHS["mlp"]
    plan, encodings = quantized(graph, QuantConfig().with_defaults(act_bits=16))
    rule = load_target("onnxruntime").export.model_copy(
        update={"opset_maximum": 17, "contrib_ops": False}
    )
    with pytest.raises(ExportError, match=r"needs opset 21 \(16-bit integers\)"):
        quantized_model(graph, plan, encodings, export_form(ExportOptions(), rule))


# --- sizes ------------------------------------------------------------------------------------


def file_bytes(model: ir.Model, path: Path) -> int:
    save_onnx(model, path)
    return path.stat().st_size


def test_files_shrink_with_the_bits(tmp_path: Path) -> None:
    graph = graph_of("(float[n, 256] x) => (float[n, 256] y) { y = MatMul(x, w) }", w=(256, 256))
    weights = 256 * 256
    sizes = {}
    for bits in (2, 4, 8):
        config = QuantConfig().with_defaults(weight_bits=bits, weight_block_size=64)
        plan, encodings = quantized(graph, config)
        for format in ("qdq", "weight-only"):
            options = ExportOptions(format=format, weight_storage_bits=bits)
            model = exported(graph, plan, encodings, options)
            sizes[bits, format] = file_bytes(model, tmp_path / "model.onnx")
    overhead = 256 * 4 * (4 + 1) + 2048  # scale and zero point of each block; names and nodes
    for (bits, _), size in sizes.items():
        assert weights * bits / 8 < size < weights * bits / 8 + overhead
    plan, encodings = quantized(graph, QuantConfig().with_defaults(weight_bits=4))
    bytewise = exported(graph, plan, encodings, ExportOptions(weight_storage_bits=8))
    assert weights < file_bytes(bytewise, tmp_path / "model.onnx") < weights + overhead


def test_two_bit_storage() -> None:
    graph = GRAPHS["conv"]
    plan, encodings = quantized(graph, QuantConfig().with_defaults(weight_bits=2))
    model = exported(graph, plan, encodings, ExportOptions(weight_storage_bits=2))
    assert model.opset_imports[""] == 25
    assert model.graph.initializers["w1_quantized"].dtype == ir.DataType.INT2
    assert max(differences(graph, plan, encodings, model).values()) == 0
