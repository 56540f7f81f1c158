"""Project files: what is saved comes back, elsewhere too, and damage is named."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_models

from studio.analysis.quality import Distance
from studio.errors import ConfigError, ConsentRequiredError, ExportError, ModelError
from studio.jobs.events import Event, Warned
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.recipe import document_recipe
from studio.project.store import load_project, save_project
from studio.resource_files import resource


@pytest.fixture
def saved(tmp_path: Path) -> Document:
    folder = tmp_path / "work"
    folder.mkdir()
    opened = steps.open_document(small_models.conv_net(folder / "net.onnx"))
    data = DataSettings(
        path=small_models.images(folder / "images.npz"), calibration_size=7, batch_size=3
    )
    config = opened.config.with_defaults(act_bits=6).with_layers(["conv*"], weight_bits=5)
    document = steps.calibrate(opened.with_config(config).with_data(data))
    return save_project(document, folder / "net.qstudio")


def same(loaded: Document, saved: Document) -> None:
    assert loaded.config == saved.config
    assert loaded.plan == saved.plan
    assert loaded.encodings == saved.encodings
    assert loaded.calibrated
    before, after = saved.calibration, loaded.calibration
    assert (after.data, after.samples, after.synthetic) == (
        before.data,
        before.samples,
        before.synthetic,
    )
    assert list(after.statistics) == list(before.statistics)
    for name, item in before.statistics.items():
        other = after.statistics[name]
        assert (other.minimum, other.maximum, other.low, other.high) == (
            item.minimum,
            item.maximum,
            item.low,
            item.high,
        )
        np.testing.assert_array_equal(other.counts, item.counts)
        np.testing.assert_array_equal(other.batch_ranges, item.batch_ranges)
        np.testing.assert_array_equal(other.top_two, item.top_two)
    assert any(len(item.batch_ranges) for item in after.statistics.values())
    assert any(len(item.top_two) for item in after.statistics.values())


def test_round_trip(saved: Document) -> None:
    loaded = load_project(saved.path)
    same(loaded, saved)
    assert loaded.data == saved.data
    assert loaded.path == saved.path
    assert loaded.name == "net"
    again = saved.path.with_name("again.qstudio")
    save_project(loaded, again)
    assert again.read_bytes() == saved.path.read_bytes()


def test_the_evaluation_is_kept(saved: Document) -> None:
    evaluated = steps.evaluate(saved)
    save_project(evaluated, saved.path)
    assert load_project(saved.path).evaluation == evaluated.evaluation
    exact = dataclasses.replace(evaluated.evaluation, output=Distance(math.inf, 1.0))
    save_project(dataclasses.replace(evaluated, evaluation=exact), saved.path)
    assert load_project(saved.path).evaluation == exact


def test_a_moved_folder_still_opens(saved: Document, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(saved.path.parent, moved)
    loaded = load_project(moved / "net.qstudio")
    same(loaded, saved)
    assert loaded.data.path == moved / "images.npz"
    assert steps.evaluate(loaded).evaluation.samples == 20


def test_a_relative_path_to_the_project(saved: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.path.parent)
    same(load_project(Path("net.qstudio")), saved)


def test_bits_change_after_loading_without_the_data(saved: Document) -> None:
    (saved.path.parent / "images.npz").unlink()
    loaded = load_project(saved.path)
    changed = steps.refresh_encodings(loaded.with_config(loaded.config.with_defaults(act_bits=8)))
    assert changed.calibrated
    assert changed.encodings["x"].grid.bits == 8
    assert changed.encodings["x"].scale < loaded.encodings["x"].scale


def test_without_data_or_calibration(tmp_path: Path) -> None:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx"))
    saved = save_project(opened, tmp_path / "net.qstudio")
    loaded = load_project(saved.path)
    assert loaded.data is None
    assert loaded.calibration is None
    assert not loaded.calibrated


def test_python_models_ask_again(tmp_path: Path) -> None:
    for name in ("model.py", "weights.safetensors"):
        shutil.copy(resource("examples", "digits", name), tmp_path)
    document = steps.open_document(
        f"{tmp_path / 'model.py'}:digits_net",
        weights=tmp_path / "weights.safetensors",
        inputs="1,1,8,8",
        trust=True,
    )
    path = tmp_path / "p.qstudio"
    save_project(document, path)
    with pytest.raises(ConsentRequiredError):
        load_project(path)
    assert load_project(path, trust=True).graph.source == document.graph.source
    values = json.loads(path.read_text("utf-8"))
    assert values["model"]["weights"] == "weights.safetensors"


def damaged(values: dict[str, Any], *keys: str, to: Any) -> dict[str, Any]:
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return values


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}", '{"version": 1}', "\xff\xfe"])
def test_files_that_are_no_project(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.qstudio"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_project(path)
    assert "p.qstudio" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("keys", "to"),
    [
        (("version",), 2),
        (("version",), "1"),
        (("model",), None),
        (("model", "path"), 3),
        (("model", "surprise"), 3),
        (("data",), 7),
        (("data", "batch_size"), 0),
        (("config",), []),
        (("config", "target"), "tpu"),
        (("config", "layers"), {"conv1": {"weight_bits": 77}}),
        (("calibration",), []),
        (("calibration", "samples"), "many"),
        (("calibration", "statistics"), None),
        (("calibration", "statistics", "x"), None),
        (("calibration", "statistics", "x"), {}),
        (("calibration", "statistics", "x", "counts"), "%%%"),
        (("calibration", "statistics", "x", "counts"), "AAAA"),
        (("calibration", "statistics", "x", "minimum"), None),
        (("calibration", "statistics", "x", "minimum"), float("nan")),
        (("calibration", "statistics", "x", "maximum"), float("inf")),
        (("calibration", "statistics", "x", "minimum"), 1e9),
        (("calibration", "statistics", "x", "low"), float("inf")),
        (("calibration", "statistics", "x", "batch_ranges"), "AAAA"),
        (("calibration", "statistics", "x", "top_two"), "AADAfw=="),
        (("evaluation",), {"samples": 3}),
    ],
)
def test_damaged_projects(saved: Document, keys: tuple[str, ...], to: Any) -> None:
    values = json.loads(saved.path.read_text("utf-8"))
    saved.path.write_text(json.dumps(damaged(values, *keys, to=to)), "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_project(saved.path)
    assert caught.value.hint


def test_a_project_whose_model_is_gone(saved: Document) -> None:
    (saved.path.parent / "net.onnx").unlink()
    with pytest.raises(ModelError, match=r"net\.onnx"):
        load_project(saved.path)


def test_a_project_whose_model_became_another(saved: Document) -> None:
    small_models.linear(saved.path.parent / "net.onnx")
    events: list[Event] = []
    loaded = load_project(saved.path, emit=events.append)
    assert not loaded.calibrated
    assert loaded.calibration is None
    assert "w3" not in loaded.plan.tensors
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert "has changed since it was calibrated" in warning.message


def test_a_project_whose_weights_were_trained_further(saved: Document) -> None:
    """Same names and shapes, but the ranges of before do not hold any more."""
    path = saved.path.parent / "net.onnx"
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    values = onnx.numpy_helper.to_array(weight) * np.float32(2)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "w2"))
    onnx.save(model, path)
    assert load_project(saved.path).calibration is None


def test_saving_where_one_cannot(saved: Document, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nowhere"):
        save_project(saved, tmp_path / "nowhere" / "p.qstudio")


def test_rules_that_are_off_stay_off(saved: Document) -> None:
    """Prepared again, saved and opened: the settings and what calibration saw are still there."""
    again = steps.prepare_again(saved, ["fold constants", "merge bias"])
    assert again.config == saved.config
    assert again.calibration is saved.calibration  # all tensors are still there
    loaded = load_project(save_project(again, saved.path).path)
    assert loaded.graph.source.without == ("fold constants", "merge bias")
    assert loaded.calibrated
    assert document_recipe(loaded, Path("out")).model.without == ("fold constants", "merge bias")
    assert steps.prepare_again(loaded, ()).graph.source.without == ()
