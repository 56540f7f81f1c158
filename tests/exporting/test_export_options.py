"""Options of an export reach every file, from Python, the steps, a recipe and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_models
from exporting import conv_document, export

import studio
from studio.cli import main
from studio.errors import ConfigError
from studio.exporting.options import ExportOptions, parse_export_options
from studio.project import steps
from studio.project.recipe import load_recipe
from studio.sim.config import QuantConfig


def ops(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_forms_from_python(tmp_path: Path) -> None:
    sim = studio.QuantSim(studio.open_model(small_models.conv_net(tmp_path / "net.onnx")))
    sim.calibrate(small_models.numbers(0, 12, 3, 6, 6))
    for format, op in (("qdq", "DequantizeLinear"), ("qoperator", "QLinearConv")):
        options = studio.ExportOptions(format=format)
        summary = studio.export(sim, tmp_path / format, options=options)
        assert op in ops(tmp_path / format / "model.onnx")
        assert summary.verification is not None
        assert summary.verification.passed, summary.verification.problem
        written = json.loads((tmp_path / format / "summary.json").read_text())
        assert written["export"]["format"] == format


def test_every_artifact_is_listed(tmp_path: Path) -> None:
    options = ExportOptions(
        encodings_versions=("2.0.0", "0.6.1"), state_dict=True, exported_program=True
    )
    document = steps.export(conv_document(tmp_path), tmp_path / "out", options=options)
    assert document.export is not None
    names = {artifact.name for artifact in document.export.artifacts}
    assert {
        "model.onnx",
        "model_float.onnx",
        "model.encodings",
        "model_0.6.1.encodings",
        "model_state_dict.safetensors",
        "model.pt2",
        "report.html",
        "summary.json",
        "recipe.json",
    } == names
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == files
    versions = [
        json.loads((tmp_path / "out" / name).read_text())["version"]
        for name in ("model.encodings", "model_0.6.1.encodings")
    ]
    assert versions == ["2.0.0", "0.6.1"]


def test_a_recipe_keeps_the_options(tmp_path: Path) -> None:
    options = ExportOptions(format="qoperator", encodings_versions=("2.0.0",))
    document = conv_document(tmp_path)
    steps.export(document, tmp_path / "out", options=options)
    assert load_recipe(tmp_path / "out" / "recipe.json").export == options
    main(["run", str(tmp_path / "out" / "recipe.json"), "--out", str(tmp_path / "again")])
    assert "QLinearConv" in ops(tmp_path / "again" / "model.onnx")
    arguments = ["run", str(tmp_path / "out" / "recipe.json"), "--out", str(tmp_path / "qdq")]
    main([*arguments, "--format", "qdq", "--opset", "19"])
    assert "QLinearConv" not in ops(tmp_path / "qdq" / "model.onnx")
    assert onnx.load(tmp_path / "qdq" / "model.onnx").opset_import[0].version == 19
    again = load_recipe(tmp_path / "qdq" / "recipe.json").export
    assert again == options.model_copy(update={"format": "qdq", "opset": 19})


def test_options_on_the_command_line(tmp_path: Path) -> None:
    model = small_models.conv_net(tmp_path / "net.onnx")
    data = small_models.images(tmp_path / "data.npz")
    words = f"quantize {model} --data {data} --out {tmp_path / 'out'} --no-evaluate --state-dict"
    words += " --weight-bits 4 --weight-storage-bits 4 --weights-as float --bias-as float"
    words += " --float-weights rounded --encodings-version 2.1.0"
    code = main(words.split())
    assert code == 0
    written = onnx.load(tmp_path / "out" / "model.onnx")
    assert written.opset_import[0].version == 21
    assert "w1" in {tensor.name for tensor in written.graph.initializer}
    assert not any(tensor.name == "b1_quantized" for tensor in written.graph.initializer)
    found = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "out" / "model_float.onnx").graph.initializer
    }
    assert all(len(np.unique(channel)) <= 16 for channel in found["w1"])
    assert (tmp_path / "out" / "model_state_dict.safetensors").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--format", "tflite"], "'format' is not valid"),
        (["--opset", "9"], "'opset' is not valid"),
        (["--encodings-version", "3.0.0"], "'encodings_versions.0' is not valid"),
        (["--weight-storage-bits", "5"], "'weight_storage_bits' is not valid"),
        (["--opset", "10"], "Opset 10 cannot express"),
        (["--format", "qoperator", "--weights-as", "float"], "cannot be stored in float"),
    ],
)
def test_bad_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, given: list[str], message: str
) -> None:
    model = small_models.conv_net(tmp_path / "net.onnx")
    data = small_models.images(tmp_path / "data.npz")
    arguments = ["quantize", str(model), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--no-evaluate", *given]) in (6, 7)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_options_are_named() -> None:
    with pytest.raises(ConfigError, match="Unknown export option 'opset_version'"):
        parse_export_options({"opset_version": 13})


def test_float4_is_written_but_not_verified(tmp_path: Path) -> None:
    config = QuantConfig(target="custom").with_defaults(weight_format="float4e2m1")
    document = export(conv_document(tmp_path, config), tmp_path / "out")
    assert document.export is not None
    assert document.export.verification is None
    assert any("no kernels for float4e2m1" in text for text in document.export.warnings)
    version = json.loads((tmp_path / "out" / "model.encodings").read_text())["version"]
    assert any(f"written in {version}" in text for text in document.export.warnings) or (
        version == "1.0.0"
    )


def test_storage_in_wider_integers_is_said(tmp_path: Path) -> None:
    document = conv_document(tmp_path, QuantConfig().with_defaults(weight_bits=4))
    wide = steps.export(document, tmp_path / "wide").export
    assert any("4-bit weights are stored in 8 bits" in text for text in wide.warnings)
    options = ExportOptions(weight_storage_bits=4)
    narrow = steps.export(document, tmp_path / "narrow", options=options).export
    assert not any("stored in" in text for text in narrow.warnings)
    assert narrow.quantized_bytes < wide.quantized_bytes
