"""`quant-studio` on a model that is quantized already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_run import ARTIFACTS, Cli, written
from quantized_models import quantized_by_onnxruntime, samples


@pytest.fixture
def model(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", x=np.concatenate([samples(i)["x"] for i in range(6)]))
    return quantized_by_onnxruntime(tmp_path, "QDQ")


def test_inspect_says_where_encodings_come_from(cli: Cli, model: Path) -> None:
    tensors = cli("inspect", model, "--tensors", "--json").json["tensors"]
    assert sum(row["why"] == "as in the file" for row in tensors) > 15
    anew = cli("inspect", model, "--tensors", "--json", "--requantize").json["tensors"]
    assert not any(row["why"] == "as in the file" for row in anew)


def test_quantize_keeps_what_is_in_the_file(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("quantize", model, "--data", tmp_path / "data.npz", "--out", out)
    result = cli(*words, "--json")
    assert result.code == 0, result.err
    assert any("nothing is calibrated" in warning for warning in result.json["warnings"])
    assert written(out) == ARTIFACTS
    scales = [
        {
            a.name.removeprefix("y_"): onnx.numpy_helper.to_array(a).tolist()
            for a in onnx.load(path).graph.initializer
            if a.name == "y_scale"
        }
        for path in (model, out / "model.onnx")
    ]
    assert scales[0] == scales[1]
    for command in ("verify", "evaluate"):
        again = cli(command, out, "--data", tmp_path / "data.npz", "--json")
        assert again.code == 0, again.err
    replayed = cli("run", out / "recipe.json", "--out", tmp_path / "again", "--json")
    assert replayed.code == 0, replayed.err
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()


def test_verify_finds_a_changed_scale(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("quantize", model, "--data", tmp_path / "data.npz", "--out", out, "--no-evaluate")
    changed = onnx.load(out / "model.onnx")
    for array in changed.graph.initializer:
        if array.name == "f_scale":
            number = onnx.numpy_helper.to_array(array) * np.float32(1.25)
            array.CopyFrom(onnx.numpy_helper.from_array(number, array.name))
    onnx.save(changed, out / "model.onnx")
    assert "f_scale" in cli("verify", out, "--data", tmp_path / "data.npz").err


def test_requantize_places_and_calibrates_anew(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = cli(
        "quantize", model, "--data", tmp_path / "data.npz", "--out", out, "--requantize", "--json"
    )
    assert result.code == 0, result.err
    assert not result.json["warnings"]
    assert cli("verify", out, "--data", tmp_path / "data.npz").code == 0


def test_bits_given_on_the_command_line_win(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = cli(
        "quantize", model, "--data", tmp_path / "data.npz", "--out", out, "--act-bits", "6",
        "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    clips = [n for n in onnx.load(out / "model.onnx").graph.node if n.op_type == "Clip"]
    assert len(clips) > 5


def test_integer_operators_that_cannot_be_lifted(cli: Cli, tmp_path: Path) -> None:
    graph = onnx.parser.parse_graph(
        "g (uint8[3, 4] x, uint8[4, 2] w) => (int32[3, 2] y) { y = MatMulInteger(x, w) }"
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "model.onnx")
    assert "MatMulInteger" in cli.fails(3, "inspect", tmp_path / "model.onnx")
