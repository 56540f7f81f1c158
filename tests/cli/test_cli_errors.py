"""What the command line says when something is wrong: which thing, what to do, and an exit code."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_models
from cli_run import ARTIFACTS, CALIBRATION, MODEL, Cli, written
from PIL import Image

from studio.project import steps


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_models.images(tmp_path / "images.npz")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_models.conv_net(tmp_path / "net.onnx")


def broken_model(kind: str, folder: Path) -> Path:
    path = folder / "broken.onnx"
    if kind == "picture":
        Image.new("RGB", (4, 4)).save(path, format="PNG")
    elif kind == "truncated":
        path.write_bytes(MODEL.read_bytes()[:20_000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "external":
        model = onnx.load(small_models.conv_net(folder / "whole.onnx"))
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
        (folder / "weights.bin").unlink()
    elif kind == "unknown op":
        small_models.custom_op(path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"),
        ("picture", "PNG"),
        ("truncated", "broken.onnx"),
        ("folder", "folder"),
        ("external", "weights.bin"),
        ("unknown op", "strange_layer"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "quantize"])
def test_models_that_cannot_be_used(
    cli: Cli, tmp_path: Path, kind: str, says: str, command: str
) -> None:
    path = broken_model(kind, tmp_path)
    words = [] if command == "inspect" else ["--data", CALIBRATION, "--out", tmp_path / "out"]
    assert says in cli.fails(3, command, path, *words)
    assert not (tmp_path / "out").exists()


def test_an_unknown_operator_is_named_with_its_domain(cli: Cli, tmp_path: Path) -> None:
    message = cli.fails(3, "inspect", small_models.custom_op(tmp_path / "custom.onnx"))
    assert "com.example::Warp" in message


def test_validate_reports_on_a_model_that_cannot_be_executed(cli: Cli, tmp_path: Path) -> None:
    path = small_models.custom_op(tmp_path / "custom.onnx")
    result = cli("validate", path)
    assert result.code == 3
    assert "error: com.example::Warp (opset 1) cannot be executed: strange_layer." in result.out
    assert "multiply-accumulates" in result.out
    assert "strange_layer" in str(cli("validate", path, "--json").json["findings"])


def test_inspect_leaves_the_arithmetic_of_sizes_out(cli: Cli, tmp_path: Path) -> None:
    path = small_models.open_sizes(tmp_path / "sizes.onnx")
    text = cli("inspect", path).out
    assert "side" not in text
    assert "without 3 layers of arithmetic of sizes (--sizes)" in text
    assert "side" in cli("inspect", path, "--sizes").out
    answer = cli("inspect", path, "--json").json
    assert [layer["layer"] for layer in answer["layers"]] == ["x", "conv", "reshape"]
    assert answer["shape_layers"] == ["shape", "side", "sizes"]


def bad_data(kind: str, folder: Path) -> Path:
    path = folder / "data.npz"
    labels = np.arange(8) % 5
    good = small_models.numbers(0, 8, 3, 6, 6)
    if kind == "shape":
        np.savez(path, x=small_models.numbers(0, 8, 3, 7, 6), labels=labels)
    elif kind == "channels":
        np.savez(path, x=small_models.numbers(0, 8, 6, 6, 3), labels=labels)
    elif kind == "type":
        np.savez(path, x=np.zeros((8, 3, 6, 6), np.uint8))
    elif kind == "NaN":
        good[5, 0, 0, 0] = np.nan
        np.savez(path, x=good)
    elif kind == "name":
        np.savez(path, a=good, b=good)
    elif kind == "empty":
        np.savez(path, x=good[:0])
    elif kind == "lengths":
        np.savez(path, x=good, labels=labels[:3])
    elif kind == "garbage":
        path.write_bytes(b"no zip file")
    elif kind == "empty folder":
        path = folder / "nothing"
        path.mkdir()
    elif kind == "only broken pictures":
        path = folder / "pictures"
        path.mkdir()
        (path / "a.png").write_bytes(b"\x89PNG broken")
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"),
        ("shape", "8×3×7×6"),
        ("channels", "transpose"),
        ("type", "uint8"),
        ("NaN", "sample 5"),
        ("name", "'x'"),
        ("empty", "no sample"),
        ("lengths", "different numbers"),
        ("garbage", "data.npz"),
        ("empty folder", "nothing"),
        ("only broken pictures", "a.png"),
    ],
)
def test_data_that_cannot_be_used(
    cli: Cli, tmp_path: Path, model: Path, kind: str, says: str
) -> None:
    path = bad_data(kind, tmp_path)
    out = tmp_path / "out"
    assert says in cli.fails(5, "quantize", model, "--data", path, "--out", out)
    assert not out.exists()
    assert says in cli.fails(5, "evaluate", model, "--data", path)


def test_no_data_is_wrong_use(cli: Cli, tmp_path: Path, model: Path) -> None:
    result = cli("quantize", model, "--out", tmp_path / "out")
    assert result.code == 2
    assert "--data" in result.err


def test_one_broken_picture_among_many_is_named_and_left_out(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "pictures"
    for index in range(7):
        (folder / str(index % 2)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).save(folder / str(index % 2) / f"{index}.png")
    (folder / "0" / "torn.png").write_bytes((folder / "0" / "0.png").read_bytes()[:60])
    words = ["quantize", model, "--data", folder, "--out", tmp_path / "out"]
    result = cli(*words)
    assert result.code == 0, result.err
    assert "torn.png" in result.err
    answer = cli(*words, "--json").json
    assert any("torn.png" in warning for warning in answer["warnings"])
    assert answer["evaluation"]["samples"] == 7
    evaluated = cli("evaluate", tmp_path / "out", "--data", folder)
    assert evaluated.code == 0
    assert "torn.png" in evaluated.err


def test_a_broken_picture_is_not_counted_as_a_calibration_sample(
    cli: Cli, tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (6, 6), (index * 40, 9, 9)).save(folder / f"{index}.png")
    (folder / "torn.png").write_bytes(b"\x89PNG broken")
    cli("quantize", model, "--data", folder, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert summary["calibration"]["samples"] == 5


def nan_weights(path: Path) -> Path:
    model = onnx.load(small_models.conv_net(path))
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0, 0, 0, 0] = np.nan
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "w2"))
    onnx.save(model, path)
    return path


def test_nan_in_weights(cli: Cli, tmp_path: Path, data: Path) -> None:
    path = nan_weights(tmp_path / "nan.onnx")
    inspected = cli("inspect", path)
    assert inspected.code == 0
    assert "'w2' contain NaN" in inspected.out
    result = cli("quantize", path, "--data", data, "--out", tmp_path / "out")
    assert result.code in (5, 6)
    assert "NaN" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--target", "tpu"], 6, "qualcomm-htp"),
        (["--observer", "magic"], 2, "magic"),
        (["--weight-bits", "1"], 6, "2 to 16"),
        (["--act-bits", "40"], 6, "2 to 16"),
        (["--act-bits", "x"], 2, "--act-bits"),
    ],
)
def test_settings_that_cannot_be_used(
    cli: Cli, model: Path, words: list[str], code: int, says: str
) -> None:
    result = cli("inspect", model, *words)
    assert result.code == code
    assert says in result.err


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"colour": 1}', '{"version": 9}', '{"layers": {"a": {"b": 1}}}', "\xff"],
)
def test_bad_configuration_files(cli: Cli, tmp_path: Path, model: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    cli.fails(6, "inspect", model, "--config", path)
    cli.fails(6, "inspect", model, "--config", tmp_path / "missing.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"resize": "large"}', '{"colour": 1}'])
def test_bad_preprocess_files(cli: Cli, tmp_path: Path, model: Path, data: Path, text: str) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text(text, "utf-8")
    result = cli("evaluate", model, "--data", data, "--preprocess", path)
    if text == "{}":
        assert result.code in (0, 5, 6)
    else:
        assert result.code in (5, 6)
        assert "preprocess.json" in result.err


def test_a_recipe_with_unknown_keys(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    recipe: dict[str, Any] = {"model": {"path": "m.onnx"}, "data": {"path": None}, "speed": 9}
    path.write_text(json.dumps(recipe), "utf-8")
    message = cli.fails(6, "run", path)
    assert "speed" in message
    assert str(path) in message
    del recipe["speed"]
    path.write_text(json.dumps({**recipe, "steps": ["calibrate", "train"]}), "utf-8")
    assert "steps.1" in cli.fails(6, "run", path)
    path.write_text(json.dumps(recipe), "utf-8")
    assert "m.onnx" in cli.fails(3, "run", path)
    cli.fails(6, "run", tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("steps_", "says"),
    [(["export"], "not calibrated"), (["evaluate"], "not calibrated"), ([], "steps")],
)
def test_a_recipe_whose_steps_make_no_sense(
    cli: Cli, tmp_path: Path, model: Path, data: Path, steps_: list[str], says: str
) -> None:
    path = tmp_path / "recipe.json"
    recipe = {"model": {"path": str(model)}, "data": {"path": str(data)}, "steps": steps_}
    path.write_text(json.dumps(recipe), "utf-8")
    assert says in cli.fails(6, "run", path)


@pytest.mark.parametrize("command", ["evaluate", "verify"])
def test_a_folder_that_is_no_export(
    cli: Cli, tmp_path: Path, digits_export: Path, command: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "folder" in cli.fails(6, command, folder, "--data", CALIBRATION)
    for missing in ("model.encodings", "model.onnx", "model_float.onnx", "summary.json"):
        copy = tmp_path / f"without {missing}"
        shutil.copytree(digits_export, copy)
        (copy / missing).unlink()
        assert missing in cli.fails(6, command, copy, "--data", CALIBRATION)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": "0.6.1"}',
        '{"version": "1.0.0", "activation_encodings": [{}], "param_encodings": []}',
        '{"version": "1.0.0", "activation_encodings": [7], "param_encodings": []}',
        '{"version": "1.0.0", "activation_encodings": [], "param_encodings": []}',
    ],
)
def test_a_folder_with_damaged_encodings(
    cli: Cli, tmp_path: Path, digits_export: Path, text: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(digits_export, folder)
    (folder / "model.encodings").write_text(text, "utf-8")
    assert "model.encodings" in cli.fails(6, "verify", folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"config": {"target": "tpu"}}', '{"config": 3}']
)
def test_a_folder_with_a_damaged_summary(
    cli: Cli, tmp_path: Path, digits_export: Path, text: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(digits_export, folder)
    (folder / "summary.json").write_text(text, "utf-8")
    cli.fails(6, "verify", folder)


def test_a_changed_weight_is_found(cli: Cli, tmp_path: Path, digits_export: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(digits_export, folder)
    model = onnx.load(folder / "model.onnx")
    tensor = next(t for t in model.graph.initializer if t.name.endswith("weight_quantized"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[3] += 1 if values.flat[3] < 100 else -1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    result = cli("verify", folder)
    assert result.code == 8
    assert tensor.name in result.err
    assert "DIFFERENT" in result.out
    answer = cli("verify", folder, "--json")
    assert answer.code == 8
    assert answer.json["passed"] is False
    assert answer.json["different_constants"] == [tensor.name]


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not")]
)
def test_a_folder_that_cannot_be_written(
    cli: Cli,
    tmp_path: Path,
    model: Path,
    data: Path,
    number: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("studio.whole_files.os.replace", refuse)
    message = cli.fails(7, "quantize", model, "--data", data, "--out", out)
    assert str(out) in message
    assert says in message
    assert not out.exists()


def test_the_folder_is_a_file(cli: Cli, tmp_path: Path, model: Path, data: Path) -> None:
    message = cli.fails(7, "quantize", model, "--data", data, "--out", model)
    assert str(model) in message
    onnx.load(model)


def test_ctrl_c(
    cli: Cli, tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("studio.exporting.bundle.verify", interrupt)
    result = cli("quantize", model, "--data", data, "--out", tmp_path / "out")
    assert result.code == 130
    assert "Interrupted" in result.err
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_program_itself_has_no_traceback_but_a_file(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(steps, "open_document", fail)
    result = cli("inspect", model)
    assert result.code == 1
    assert "ZeroDivisionError: a bug" in result.err
    log = Path(result.err.strip().rsplit(" ", 1)[1].rstrip("."))
    assert "Traceback" in log.read_text("utf-8")
    log.unlink()


def test_out_of_memory(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(steps, "open_document", fail)
    result = cli("inspect", model)
    assert result.code == 1
    assert "--batch-size" in result.err


def test_an_earlier_export_survives_a_failing_one(
    cli: Cli, tmp_path: Path, digits_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(digits_export, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("studio.exporting.artifacts.save_onnx", refuse)
    words = ["--data", CALIBRATION, "--weight-bits", 4, "--no-evaluate", "--out", folder]
    assert cli("quantize", MODEL, *words).code == 7
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert written(folder) == ARTIFACTS
