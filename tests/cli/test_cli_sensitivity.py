"""`quant-studio sensitivity`, the step of a recipe, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

from cli_run import CALIBRATION, MODEL, TEST, Cli

from studio.project import steps
from studio.project.document import DataSettings
from studio.project.store import load_project, save_project

FAST = ("--samples", "16", "--calibration-size", "16")


def test_the_layers_are_listed_the_worst_first(cli: Cli) -> None:
    words = ("sensitivity", MODEL, "--data", TEST, "--training-data", CALIBRATION)
    result = cli(*words, *FAST, "--weight-bits", "3", "--per-tensor")
    assert result.code == 0
    assert "weights alone" in result.out
    assert "16 samples of test" in result.out
    found = cli(*words, *FAST, "--weight-bits", "3", "--per-tensor", "--json").json
    by_noise = sorted(found["layers"], key=lambda layer: -layer["alone"]["noise"])
    places = [result.out.index(f"\n{layer['layer']} ") for layer in by_noise]
    assert places == sorted(places)
    assert found["both"]["top1"] is not None
    assert found["both"]["noise"] > found["activations"]["noise"]


def test_labels_are_not_needed(cli: Cli) -> None:
    found = cli("sensitivity", MODEL, "--random-data", *FAST, "--no-left", "--json").json
    assert found["synthetic"] is True
    assert found["float_top1"] is None
    assert all(layer["left"] is None for layer in found["layers"])
    assert "RANDOM DATA" in cli("sensitivity", MODEL, "--random-data", *FAST, "--no-left").out


def test_a_recipe_runs_it_and_the_summary_has_it(cli: Cli, tmp_path: Path) -> None:
    data = DataSettings(path=CALIBRATION, calibration_size=16, evaluation_size=16)
    recipe = {
        "model": {"path": str(MODEL)},
        "data": data.model_dump(mode="json"),
        "steps": ["calibrate", "sensitivity", "export"],
        "out": str(tmp_path / "out"),
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    answer = cli("run", tmp_path / "recipe.json", "--json").json
    assert answer["sensitivity"]["layers"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert summary["sensitivity"] == answer["sensitivity"]
    written = json.loads((tmp_path / "out" / "recipe.json").read_text("utf-8"))
    assert written["steps"] == ["calibrate", "sensitivity", "export"]


def test_a_project_keeps_it(tmp_path: Path) -> None:
    opened = steps.open_document(MODEL)
    data = DataSettings(path=CALIBRATION, calibration_size=16)
    document = steps.sensitivity(steps.calibrate(opened.with_data(data)))
    save_project(document, tmp_path / "digits.qstudio")
    assert load_project(tmp_path / "digits.qstudio").sensitivity == document.sensitivity
