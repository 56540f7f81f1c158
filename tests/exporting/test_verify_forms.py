"""Verification of every form a file is written in, of its speed, and in other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exporting import change_constant, constants, conv_document
from onnx import helper
from small_models import FLOAT, build, numbers

import studio
from studio.analysis.forecast import Runs, storage_of
from studio.exporting.files import save_onnx
from studio.exporting.graphs import quantized_model
from studio.exporting.latency import measure_latency
from studio.exporting.options import ExportOptions, export_form
from studio.exporting.other_runtimes import check_openvino, check_other_runtimes, command
from studio.exporting.summary import Latency, Verification
from studio.exporting.verify import verify
from studio.jobs.events import CancelToken, silent
from studio.sim.config import QuantConfig
from studio.sim.target import load_target

BLOCKS = {"weight_bits": 4, "weight_block_size": 16, "act_enabled": False}


def linear_net(folder: Path) -> Path:
    """Two products with a Relu between and two outputs, of which the first is no class score."""
    return build(
        folder / "linear.onnx",
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["r"], "relu"),
            helper.make_node("ReduceMean", ["r"], ["mean"], "mean", axes=[1], keepdims=1),
            helper.make_node("Gemm", ["r", "w2", "b"], ["scores"], "second"),
        ],
        {"x": (FLOAT, ["N", 32])},
        {"mean": (FLOAT, ["N", 1]), "scores": (FLOAT, ["N", 8])},
        {"w1": numbers(1, 32, 64), "w2": numbers(2, 64, 8), "b": numbers(3, 8)},
    )


def written(
    folder: Path, settings: dict[str, Any], target: str = "onnxruntime", **options: Any
) -> tuple[studio.QuantSim, Path]:
    sim = studio.QuantSim(
        studio.open_model(linear_net(folder)), QuantConfig(target=target).with_defaults(**settings)
    ).calibrate(numbers(4, 16, 32))
    form = export_form(ExportOptions(**options), load_target(target).export)
    path = folder / "quantized.onnx"
    save_onnx(quantized_model(sim.graph, sim.plan, sim.encodings, form), path)
    return sim, path


def verified(sim: studio.QuantSim, path: Path, **more: Any) -> Verification:
    storage = storage_of(load_target(sim.config.target))
    return verify(
        sim.graph,
        sim.plan,
        sim.encodings,
        path,
        [{"x": numbers(4, 16, 32)}],
        16,
        storage=storage,
        emit=silent,
        cancel=CancelToken(),
        **more,
    )


@pytest.mark.parametrize(
    ("settings", "target", "options"),
    [
        ({}, "onnxruntime", {}),
        ({}, "onnxruntime", {"weights": "float"}),
        ({}, "onnxruntime", {"format": "qoperator"}),
        ({"act_dynamic": True}, "onnxruntime-dynamic", {"format": "dynamic"}),
        ({"act_dynamic": True}, "onnxruntime-dynamic", {"format": "qdq"}),
        ({"act_enabled": False}, "onnxruntime", {}),
        (BLOCKS, "weight-only", {"format": "weight-only"}),
        (BLOCKS, "weight-only", {"format": "qdq"}),
        ({"act_bits": 16}, "onnxruntime", {}),
        ({"weight_format": "float16", "act_format": "float16"}, "custom", {}),
        ({"weight_format": "float8e4m3fn", "act_format": "float8e4m3fn"}, "custom", {}),
    ],
)
def test_every_form_is_what_was_simulated(
    tmp_path: Path, settings: dict[str, Any], target: str, options: dict[str, Any]
) -> None:
    result = verified(*written(tmp_path, settings, target, **options))
    assert result.passed, result.problem
    assert len(result.layers) + len(result.float_layers) >= 2
    assert result.within_one == 1
    assert all(row.distance.sqnr_db > 100 for row in result.float_layers)
    assert [row.output for row in result.outputs] == ["mean", "scores"]
    assert all(row.plain.distance.sqnr_db > 40 for row in result.outputs)
    assert result.outputs[1].plain.agreement == 100


def test_a_wrong_number_in_packed_blocks_is_found(tmp_path: Path) -> None:
    sim, path = written(tmp_path, BLOCKS, "weight-only", format="weight-only")
    name = next(name for name in constants(path) if name.endswith("_blocks"))
    blocks = constants(path)[name].copy()
    blocks.reshape(-1)[3] ^= 1
    change_constant(path, name, blocks)
    assert verified(sim, path).different_constants == (name,)


def test_a_wrong_float_layer_fails(tmp_path: Path) -> None:
    """Weight-only layers make no integers: their float results are compared."""
    sim, path = written(tmp_path, BLOCKS, "weight-only", format="weight-only")
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.name == "first")
    assert node.op_type == "MatMulNBits"
    halved = onnx.numpy_helper.from_array(np.full(1, 0.5, np.float32), "half")
    model.graph.initializer.append(halved)
    mul = helper.make_node("Mul", ["unscaled", "half"], [node.output[0]], "halved")
    node.output[0] = "unscaled"
    model.graph.node.insert(list(model.graph.node).index(node) + 1, mul)
    onnx.save(model, path)
    result = verified(sim, path)
    assert "first" in result.problem
    assert "dB" in result.problem


def test_kernels_and_what_the_optimisations_change(tmp_path: Path) -> None:
    result = verified(*written(tmp_path, {}))
    rows = {row.layer: row for row in result.kernels}
    assert rows["second"].kernel == "QGemm"
    assert rows["mean"].runs is Runs.FLOAT
    assert not result.not_as_forecast
    assert all(row.optimized_db is not None and row.optimized_db > 25 for row in result.layers)


def test_a_bias_scale_of_its_own_is_found(tmp_path: Path) -> None:
    """Fused kernels ignore it, so that nothing would show with optimisations off."""
    document = conv_document(tmp_path)
    target = load_target("onnxruntime")
    path = tmp_path / "quantized.onnx"
    model = quantized_model(
        document.graph,
        document.plan,
        document.encodings,
        export_form(ExportOptions(), target.export),
    )
    save_onnx(model, path)
    name = next(row.name for row in document.plan.tensors.values() if row.bias_of)
    scale = constants(path)[f"{name}_scale"]
    change_constant(path, f"{name}_scale", scale * np.float32(1.5))
    result = verify(
        document.graph,
        document.plan,
        document.encodings,
        path,
        [{"x": numbers(20, 12, 3, 6, 6)}],
        12,
        emit=silent,
        cancel=CancelToken(),
    )
    assert result.wrong_bias_scales == (name,)
    assert not result.passed


def test_a_file_without_integer_kernels_is_still_verified(tmp_path: Path) -> None:
    """onnxruntime refuses float8 as soon as it fuses: the reason is stated, the rest compared."""
    floats = {"weight_format": "float8e4m3fn", "act_format": "float8e4m3fn"}
    result = verified(*written(tmp_path, floats, "custom"))
    assert "onnxruntime" in result.refused
    assert result.passed
    assert not result.kernels


def test_latency(tmp_path: Path) -> None:
    sim, path = written(tmp_path, {})
    save_onnx(sim.graph.ir, tmp_path / "float.onnx")
    measured = measure_latency(tmp_path / "float.onnx", path, {"x": numbers(4, 16, 32)})
    assert measured.samples == 16
    assert measured.rounds >= 5
    assert measured.float_ms > 0
    assert measured.ratio == measured.quantized_ms / measured.float_ms
    assert Latency(4.0, 1.0, 5, 1).ratio == 0.25
    assert verified(sim, path, float_path=tmp_path / "float.onnx").latency is not None


def test_commands_for_elsewhere(tmp_path: Path) -> None:
    sim, path = written(tmp_path, {})
    batches = [{"x": numbers(4, 16, 32)}]
    checks = check_other_runtimes(
        sim.graph, sim.plan, sim.encodings, path, batches, cancel=CancelToken()
    )
    assert [check.runtime for check in checks] == ["OpenVINO", "TensorRT"]
    assert checks[1].command == "trtexec --onnx=quantized.onnx --stronglyTyped --shapes=x:1x32"
    assert command("TensorRT", path) == "trtexec --onnx=quantized.onnx --stronglyTyped"


def test_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    sim, path = written(tmp_path, {})
    batches = [{"x": numbers(4, 16, 32)}]
    arguments = sim.graph, sim.plan, sim.encodings, path, batches
    result = check_openvino(*arguments, cancel=CancelToken())
    assert result.problem == ""
    assert result.samples == 16
    assert result.distance is not None
    assert result.distance.sqnr_db > 30
    sim, path = written(tmp_path, BLOCKS, "weight-only", format="weight-only")
    refused = check_openvino(
        sim.graph, sim.plan, sim.encodings, path, batches, cancel=CancelToken()
    )
    assert "MatMulNBits" in refused.problem
