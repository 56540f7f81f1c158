"""A document that follows an encodings file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_models

import studio
from studio.errors import ConfigError
from studio.exporting.encodings import VERSIONS, FindingKind, encodings_document, read_encodings
from studio.jobs.events import Event, Warned
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.load_encodings import load_encodings
from studio.project.recipe import document_recipe, load_recipe
from studio.project.store import load_project, save_project
from studio.sim.config import QuantConfig
from studio.sim.found import AS_IN_FILE

CONFIG = (
    QuantConfig()
    .with_layers(["conv1"], weight_bits=4, act_bits=16)
    .with_layers(["fc"], weight_symmetric=False, weight_per_channel=False)
)


def calibrated(folder: Path, config: QuantConfig | None = None) -> Document:
    model = small_models.conv_net(folder / "net.onnx")
    data = DataSettings(path=small_models.images(folder / "data.npz"))
    return steps.calibrate(steps.open_document(model, config=config).with_data(data))


def written(document: Document, path: Path, version: str = "1.0.0") -> Path:
    values = encodings_document(document.plan, document.encodings, version)
    path.write_text(json.dumps(values), "utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Document:
    return calibrated(tmp_path, CONFIG)


@pytest.fixture
def plain(source: Document) -> Document:
    """The same model, not configured and not calibrated."""
    path = source.graph.source.path
    assert path is not None
    return steps.open_document(path).with_data(source.data)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_gives_a_model_its_encodings(
    version: str, source: Document, plain: Document, tmp_path: Path
) -> None:
    path = written(source, tmp_path / "net.encodings", version)
    loaded, report = load_encodings(plain, path)
    assert not report.problems
    assert loaded.from_file
    assert loaded.calibrated
    assert loaded.calibration is None
    assert set(loaded.encodings) == set(source.encodings)
    x = small_models.numbers(30, 4, 3, 6, 6)
    for name, encoding in source.encodings.items():
        found = loaded.encodings[name]
        np.testing.assert_array_equal(found.scale, encoding.scale)
        assert found.grid.bits == encoding.grid.bits
        assert loaded.plan.tensors[name].reason == AS_IN_FILE
    settings = loaded.plan.layer("conv1").settings
    assert (settings.weight_bits, settings.act_bits) == (4, 16)
    expected = simulated(source, x)
    np.testing.assert_array_equal(simulated(loaded, x), expected)


def simulated(document: Document, x: np.ndarray) -> np.ndarray:
    from studio.sim.simulator import simulating_executor

    executor = simulating_executor(document.graph, document.plan, document.encodings)
    return executor.run({"x": x})["scores"].detach().numpy()


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_exported_again_unchanged(
    version: str, source: Document, plain: Document, tmp_path: Path
) -> None:
    path = written(source, tmp_path / "net.encodings", version)
    loaded, _ = load_encodings(plain, path)
    again = encodings_document(loaded.plan, loaded.encodings, version)
    before = json.loads(path.read_text("utf-8"))
    keys = (
        ("encodings",) if version.startswith("2.") else ("activation_encodings", "param_encodings")
    )
    for key in keys:
        assert again[key] == before[key]


def test_an_edited_layer_is_taken_from_the_file_and_given_back(
    source: Document, plain: Document, tmp_path: Path
) -> None:
    loaded, _ = load_encodings(plain, written(source, tmp_path / "net.encodings"))
    edited = loaded.with_config(loaded.config.with_layers(["conv2"], weight_bits=3))
    assert not edited.plan.tensors["w2"].from_file
    assert edited.plan.tensors["w1"].from_file
    assert edited.plan.tensors["w2"].spec.grid.bits == 3
    back = edited.with_config(loaded.config)
    assert back.encodings == loaded.encodings


def test_settings_made_before_give_way_and_the_old_document_stays(
    source: Document, tmp_path: Path
) -> None:
    path = written(calibrated(tmp_path), tmp_path / "net.encodings")
    loaded, _ = load_encodings(source, path)
    assert not loaded.config.layers
    assert loaded.plan.tensors["w1"].spec.grid.bits == 8
    assert source.plan.tensors["w1"].spec.grid.bits == 4


def without(path: Path, *names: str) -> Path:
    values = json.loads(path.read_text("utf-8"))
    values["encodings"] = [e for e in values["encodings"] if e["name"] not in names]
    path.write_text(json.dumps(values), "utf-8")
    return path


def test_what_the_file_has_not_stays_float(
    source: Document, plain: Document, tmp_path: Path
) -> None:
    path = without(written(source, tmp_path / "net.encodings", "2.0.0"), "r1", "b1")
    events: list[Event] = []
    loaded, report = load_encodings(plain, path, emit=events.append)
    assert {finding.name for finding in report.of(FindingKind.MISSING)} == {"r1", "b1"}
    assert any("r1" in event.message for event in events if isinstance(event, Warned))
    assert loaded.plan.tensors["r1"].spec is None
    assert loaded.calibrated
    again = encodings_document(loaded.plan, loaded.encodings, "2.0.0")["encodings"]
    assert {entry["name"] for entry in again} == set(read_encodings(path).encodings)


def test_weights_alone_leave_activations_to_be_calibrated(
    source: Document, plain: Document, tmp_path: Path
) -> None:
    path = written(source, tmp_path / "net.encodings", "2.0.0")
    path = without(path, "x", "r1", "c2", "flat", "scores", "b1", "b3")
    loaded, report = load_encodings(plain, path, partial=True)
    assert not report.problems
    assert not loaded.calibrated
    assert loaded.encodings["w1"] == source.encodings["w1"]
    done = steps.calibrate(loaded)
    assert done.calibrated
    assert done.encodings["w1"] == source.encodings["w1"]
    assert done.encodings["x"] == calibrated(tmp_path).encodings["x"]
    bias = done.encodings["b1"].scale
    np.testing.assert_array_equal(bias, done.encodings["x"].scale * done.encodings["w1"].scale)


def test_a_file_of_another_model_is_refused(
    source: Document, plain: Document, tmp_path: Path
) -> None:
    path = written(source, tmp_path / "net.encodings", "2.0.0")
    text = path.read_text("utf-8").replace('"w1"', '"w1x"')
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"w1x.*nearest name is 'w1'"):
        load_encodings(plain, path)
    loaded, report = load_encodings(plain, path, partial=True)
    assert [finding.name for finding in report.problems] == ["w1x"]
    assert not loaded.plan.tensors["w1"].from_file
    linear = steps.open_document(small_models.linear(tmp_path / "linear.onnx"))
    with pytest.raises(ConfigError, match="no encoding for any tensor"):
        load_encodings(linear, without(path, "x", "scores"), partial=True)


def test_a_tensor_inside_a_fused_layer_can_be_given_an_encoding(
    source: Document, plain: Document, tmp_path: Path
) -> None:
    """Conv and Relu no longer run as one: the file rounds what is between them."""
    path = written(source, tmp_path / "net.encodings", "2.0.0")
    values = json.loads(path.read_text("utf-8"))
    between = {"name": "c1", "output_dtype": "uint8", "y_scale": 0.05, "y_zero_point": 128}
    values["encodings"].append(between)
    path.write_text(json.dumps(values), "utf-8")
    loaded, report = load_encodings(plain, path)
    assert [f.name for f in report.of(FindingKind.DIFFERENT) if f.name == "c1"] == ["c1"]
    assert loaded.encodings["c1"].scale == np.float32(0.05)
    assert loaded.plan.layer("relu1").outputs == ("r1",)


def test_projects_and_recipes_keep_the_file(
    source: Document, plain: Document, tmp_path: Path
) -> None:
    path = written(source, tmp_path / "net.encodings")
    loaded, _ = load_encodings(plain, path)
    save_project(loaded, tmp_path / "net.qstudio")
    opened = load_project(tmp_path / "net.qstudio")
    assert opened.encodings == loaded.encodings
    assert opened.plan == loaded.plan
    recipe = document_recipe(loaded, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.json").write_text(recipe.model_dump_json(), "utf-8")
    again = load_recipe(tmp_path / "out" / "recipe.json")
    replayed = steps.open_document(again.model.source(), config=again.config)
    assert replayed.encodings == loaded.encodings
    assert steps.prepare_again(loaded, []).encodings == loaded.encodings


def test_the_python_api(source: Document, tmp_path: Path) -> None:
    path = written(source, tmp_path / "net.encodings", "2.1.0")
    model = source.graph.source.path
    sim = studio.QuantSim(studio.open_model(model))
    with pytest.raises(ConfigError, match="not calibrated"):
        sim(small_models.numbers(1, 2, 3, 6, 6))
    report = sim.load_encodings(path)
    assert len(report.encodings) == len(source.encodings)
    x = small_models.numbers(1, 2, 3, 6, 6)
    other = studio.QuantSim(studio.open_model(model), CONFIG)
    other.calibrate(dict(np.load(tmp_path / "data.npz"))["x"])
    np.testing.assert_array_equal(sim(x), other(x))


def test_encodings_replace_those_a_model_came_with(source: Document, tmp_path: Path) -> None:
    done = steps.export(source, tmp_path / "out")
    assert done.export is not None
    came = steps.open_document(tmp_path / "out" / "model.onnx")
    assert came.from_file
    path = written(calibrated(tmp_path), tmp_path / "other.encodings", "2.0.0")
    names = {
        value.name for value in onnx.load(tmp_path / "out" / "model_float.onnx").graph.initializer
    }
    assert "w1" in names
    loaded, _ = load_encodings(came, path)
    assert loaded.plan.tensors["w1"].spec.grid.bits == 8
