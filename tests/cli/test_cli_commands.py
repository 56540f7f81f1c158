"""What the commands do on the bundled example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cli_run import ARTIFACTS, CALIBRATION, DIGITS, MODEL, TEST, Cli, written

from studio import __version__


def accuracy_in_onnxruntime(model: Path) -> float:
    """Top-1 in percent on the test images, without any of our code."""
    test = np.load(TEST)
    session = ort.InferenceSession(str(model))
    (logits,) = session.run(None, {"image": test["image"]})
    return 100 * float((logits.argmax(1) == test["labels"]).mean())


def test_inspect_shows_layers_tensors_and_reasons(cli: Cli) -> None:
    layers = cli("inspect", MODEL).out
    assert "logits N×10" in layers
    assert "8 bit per channel" in layers
    assert "Conv + Relu" in layers
    tensors = cli("inspect", MODEL, "--tensors").out
    assert "int8 symmetric per channel" in tensors
    assert "inside Conv + Relu: runs as one kernel" in tensors


def test_inspect_json_states_every_layer(cli: Cli) -> None:
    answer = cli("inspect", MODEL, "--json").json
    assert answer["inputs"] == {"image": "N×1×8×8"}
    by_name = {layer["layer"]: layer for layer in answer["layers"]}
    assert by_name["classifier"]["parameters"] == 48 * 10 + 10
    assert by_name["classifier"]["macs"] == 48 * 10
    assert all(row["why"] for row in answer["tensors"])


def test_quantize_writes_the_six_artifacts_and_keeps_the_accuracy(digits_export: Path) -> None:
    assert written(digits_export) == ARTIFACTS
    measured = accuracy_in_onnxruntime(digits_export / "model.onnx")
    assert measured >= accuracy_in_onnxruntime(MODEL) - 1.0
    report = (digits_export / "report.html").read_text("utf-8")
    assert all(name in report for name in ARTIFACTS)


def test_quantize_json_is_the_only_thing_on_stdout(cli: Cli, tmp_path: Path) -> None:
    result = cli("quantize", MODEL, "--data", CALIBRATION, "--out", tmp_path / "out", "--json")
    answer = result.json
    assert result.err == ""
    assert answer["evaluation"]["samples"] == 200
    assert answer["export"]["verification"]["passed"] is True
    assert {artifact["name"] for artifact in answer["export"]["artifacts"]} == ARTIFACTS
    sizes = {a["name"]: a["bytes"] for a in answer["export"]["artifacts"]}
    for name, size in sizes.items():
        assert (tmp_path / "out" / name).stat().st_size == size


def test_quantize_tells_a_person_what_was_written(cli: Cli, tmp_path: Path) -> None:
    result = cli("quantize", MODEL, "--data", CALIBRATION, "--out", tmp_path / "out")
    assert result.code == 0
    for text in (*ARTIFACTS, "equal to the simulation", "top-1", "lowest SQNR"):
        assert text in result.out
    assert "Calibrating" in result.err


def test_evaluate_a_model(cli: Cli) -> None:
    answer = cli("evaluate", MODEL, "--data", TEST, "--json").json
    assert answer["samples"] == 360
    (row,) = answer["results"]
    assert row["engine"] == "float"
    assert row["top1"] == pytest.approx(accuracy_in_onnxruntime(MODEL))


def test_evaluate_limit_is_spread_over_the_data(cli: Cli) -> None:
    answer = cli("evaluate", MODEL, "--data", TEST, "--limit", 50, "--json").json
    assert answer["samples"] == 50


def test_evaluate_a_folder_in_three_engines(cli: Cli, digits_export: Path) -> None:
    rows = cli("evaluate", digits_export, "--data", TEST, "--json").json["results"]
    assert [row["engine"] for row in rows] == ["float", "simulated", "onnxruntime"]
    truth = accuracy_in_onnxruntime(digits_export / "model.onnx")
    assert rows[2]["top1"] == pytest.approx(truth)
    assert abs(rows[1]["top1"] - truth) <= 0.6
    table = cli("evaluate", digits_export, "--data", TEST).out
    assert "simulated" in table
    assert "dB" in table


def test_verify_a_folder_on_its_own_data_and_on_others(cli: Cli, digits_export: Path) -> None:
    own = cli("verify", digits_export, "--json").json
    assert own["passed"]
    assert own["largest_step_difference"] <= 1
    assert own["samples"] == 32
    assert "equal to the simulation" in cli("verify", digits_export, "--data", TEST).out


def test_a_recipe_replays_to_the_same_numbers(
    cli: Cli, digits_export: Path, tmp_path: Path
) -> None:
    result = cli("run", digits_export / "recipe.json", "--out", tmp_path / "again", "--json")
    assert result.code == 0
    again = tmp_path / "again"
    assert written(again) == ARTIFACTS
    for name in ("model.encodings", "model.onnx", "model_float.onnx", "recipe.json"):
        assert (again / name).read_bytes() == (digits_export / name).read_bytes(), name
    before = json.loads((digits_export / "summary.json").read_text("utf-8"))
    assert result.json["evaluation"]["accuracy"] == before["evaluation"]["accuracy"]


def test_a_recipe_writes_beside_itself_and_takes_relative_paths(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").write_bytes(MODEL.read_bytes())
    (tmp_path / "data.npz").write_bytes(CALIBRATION.read_bytes())
    recipe = {
        "model": {"path": "digits.onnx"},
        "data": {"path": "data.npz", "calibration_size": 16, "evaluation_size": 16},
        "out": "results",
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    assert cli("run", tmp_path / "recipe.json").code == 0
    assert written(tmp_path / "results") == ARTIFACTS


def test_targets(cli: Cli) -> None:
    assert {"onnxruntime", "qualcomm-htp"} <= {
        target["name"] for target in cli("targets", "--json").json
    }
    assert "qualcomm-htp" in cli("targets").out


def test_a_target_as_aimets_configuration_and_back(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "htp.json"
    cli("targets", "qualcomm-htp-v69", "--write-aimet", path)
    written = json.loads(path.read_text())
    assert {"defaults", "params", "op_type", "supergroups", "model_input", "model_output"} <= set(
        written
    )
    (listed,) = cli("targets", path, "--json").json
    assert listed["name"] == "htp"
    assert "htp" in cli("inspect", MODEL, "--target", path).out


def layer_settings(cli: Cli, *words: object) -> dict[str, dict[str, str]]:
    answer = cli("inspect", MODEL, *words, "--json").json
    return {layer["layer"]: layer for layer in answer["layers"]}


def test_overrides_reach_the_layers_they_name(cli: Cli) -> None:
    layers = layer_settings(
        cli,
        "--override",
        "block?.*:weight_bits=4",
        "--override",
        "classifier:weight_per_channel=false,act_bits=16",
    )
    assert layers["block1.pointwise"]["weights"].startswith("4 bit")
    assert layers["block2.depthwise.conv"]["weights"].startswith("4 bit")
    assert layers["stem.conv"]["weights"].startswith("8 bit")
    assert layers["classifier"]["weights"] == "8 bit per tensor"
    assert layers["classifier"]["activations"] == "16 bit"


def test_an_override_that_matches_nothing_is_said(cli: Cli) -> None:
    assert "'nothing.*' matches no layer" in (
        cli("inspect", MODEL, "--override", "nothing.*:weight_bits=4").out
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("classifier", "LAYER:key=value"),
        ("classifier:", "LAYER:key=value"),
        ("classifier:weight_bits", "LAYER:key=value"),
        ("classifier:weight_bits=99", "weight_bits"),
        ("classifier:weight_bits=1", "weight_bits"),
        ("classifier:weight_bits=four", "weight_bits"),
        ("classifier:colour=red", "colour"),
        ("classifier:act_enabled=perhaps", "act_enabled"),
    ],
)
def test_bad_overrides_are_named(cli: Cli, override: str, says: str) -> None:
    assert says in cli.fails(6, "inspect", MODEL, "--override", override)


def test_four_bit_weights(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = cli("quantize", MODEL, "--data", CALIBRATION, "--weight-bits", 4, "--out", out)
    assert result.code == 0
    assert "4-bit weights are stored in 8 bits" in result.out
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(out / "model.onnx").graph.initializer
    }
    document = json.loads((out / "model.encodings").read_text("utf-8"))
    weights = [entry for entry in document["param_encodings"] if entry["bw"] == 4]
    assert len(weights) == 7
    for entry in weights:
        integers = stored[f"{entry['name']}_quantized"]
        assert integers.dtype == np.int8
        assert integers.min() >= -8
        assert integers.max() <= 7
        assert len(np.unique(integers)) > 4


def test_qualcomm_stores_four_bits_as_such(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--target", "qualcomm-htp", "--weight-bits", 4, "--no-evaluate"]
    result = cli("quantize", MODEL, "--data", CALIBRATION, "--out", out, *words)
    assert result.code == 0
    assert "are stored in 8 bits" not in result.out
    types = {tensor.data_type for tensor in onnx.load(out / "model.onnx").graph.initializer}
    assert onnx.TensorProto.INT4 in types
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["target"] == "qualcomm-htp"
    assert summary["evaluation"] is None


def test_a_configuration_file_and_options_over_it(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = {"defaults": {"weight_bits": 6}, "layers": {"classifier": {"act_bits": 12}}}
    path.write_text(json.dumps(config), "utf-8")
    layers = layer_settings(cli, "--config", path)
    assert layers["stem.conv"]["weights"].startswith("6 bit")
    assert layers["classifier"]["activations"] == "12 bit"
    layers = layer_settings(cli, "--config", path, "--weight-bits", 5, "--per-tensor")
    assert layers["stem.conv"]["weights"] == "5 bit per tensor"


def test_a_target_on_the_command_line_wins_over_the_configuration(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"target": "onnxruntime"}), "utf-8")
    answer = cli("inspect", MODEL, "--config", path, "--target", "qualcomm-htp", "--json").json
    assert answer["target"] == "qualcomm-htp"
    assert cli("inspect", MODEL, "--config", path, "--json").json["target"] == "onnxruntime"


def test_random_data_is_marked_everywhere(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["quantize", MODEL, "--random-data", "--out", out, "--calibration-size", 8]
    answer = cli(*words, "--json").json
    assert answer["synthetic_data"] is True
    assert any("random" in warning for warning in answer["export"]["warnings"])
    assert len(answer["warnings"]) == len(set(answer["warnings"]))
    printed = cli(*words).out
    assert "RANDOM DATA" in printed
    assert "warning: Calibrated on random data" in printed
    assert json.loads((out / "summary.json").read_text("utf-8"))["synthetic_data"] is True
    assert "random data" in (out / "report.html").read_text("utf-8").lower()
    metadata = {p.key: p.value for p in onnx.load(out / "model.onnx").metadata_props}
    assert "random" in metadata["calibration_data"]


def test_real_data_is_not_marked(digits_export: Path) -> None:
    assert json.loads((digits_export / "summary.json").read_text("utf-8"))["warnings"] == []
    assert "random data" not in (digits_export / "report.html").read_text("utf-8").lower()
    metadata = {p.key for p in onnx.load(digits_export / "model.onnx").metadata_props}
    assert "calibration_data" not in metadata


PYTORCH = [
    f"{DIGITS / 'model.py'}:digits_net",
    "--weights",
    DIGITS / "weights.safetensors",
    "--input",
    "1,1,8,8",
]


def test_python_needs_trust(cli: Cli) -> None:
    message = cli.fails(4, "evaluate", *PYTORCH, "--data", TEST)
    assert "model.py" in message
    assert "--trust" in message


def test_a_pytorch_model_with_weights(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--data", CALIBRATION, "--out", out, "--no-evaluate", "--trust"]
    assert cli("quantize", *PYTORCH, *words).code == 0
    test = np.load(TEST)
    session = ort.InferenceSession(str(out / "model.onnx"))
    name = session.get_inputs()[0].name
    (logits,) = session.run(None, {name: test["image"]})
    assert 100 * (logits.argmax(1) == test["labels"]).mean() >= accuracy_in_onnxruntime(MODEL) - 1
    assert "--trust" in cli.fails(4, "run", out / "recipe.json", "--out", tmp_path / "again")


def test_help_version_and_wrong_words(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "exit codes" in cli("--help").out
    assert __version__ in cli("--version").out
    assert cli("quantize", MODEL).code == 2
    assert cli("quantize", MODEL, "--data", TEST, "--random-data", "--out", out).code == 2
    for words in (["--batch-size", "0"], ["--calibration-size", "-3"], ["--batch-size", "x"]):
        result = cli("quantize", MODEL, "--data", TEST, "--out", out, *words)
        assert result.code == 2
        assert words[0] in result.err


def test_the_installed_command_runs() -> None:
    words = [sys.executable, "-c", "from studio.cli import main; raise SystemExit(main())"]
    result = subprocess.run(
        [*words, "targets"], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 0
    assert "onnxruntime" in result.stdout


def test_a_rule_of_preparation_can_be_left_out(cli: Cli) -> None:
    plain = cli("inspect", MODEL, "--json").json
    without = cli("inspect", MODEL, "--without", "fold batch norm", "--json").json
    counts = {rule["name"]: rule["count"] for rule in plain["rules"]}
    assert counts["fold batch norm"] > 0
    assert [rule["name"] for rule in without["rules"] if not rule["on"]] == ["fold batch norm"]
    assert not any(change["rule"] == "fold batch norm" for change in without["changes"])
    assert "off (--without)" in cli("inspect", MODEL, "--without", "fold batch norm").out
    assert "does not exist" in cli.fails(6, "inspect", MODEL, "--without", "fold bn")
