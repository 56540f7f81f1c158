"""A model that came quantized: a document that needs no calibration until it is edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from quantized_models import float_model, quantized_by_onnxruntime, samples

from studio.errors import ConfigError, DataError
from studio.jobs.events import Event, Warned
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.recipe import document_recipe, load_recipe
from studio.project.store import load_project, save_project
from studio.sim.config import QuantConfig


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """Opened with data, nothing else done."""
    path = quantized_by_onnxruntime(tmp_path, "QDQ")
    np.savez(tmp_path / "data.npz", x=np.concatenate([samples(i)["x"] for i in range(6)]))
    data = DataSettings(path=tmp_path / "data.npz", calibration_size=8)
    return steps.open_document(path).with_data(data)


def test_it_is_ready_at_once(document: Document) -> None:
    assert document.from_file
    assert document.calibrated
    assert document.calibration is None
    assert document.encodings.keys() == set(document.plan.quantized)


def test_evaluated_and_exported_without_calibration(document: Document, tmp_path: Path) -> None:
    evaluated = steps.evaluate(document)
    assert evaluated.evaluation is not None
    assert evaluated.evaluation.output.sqnr_db > 15
    done = steps.export(evaluated, tmp_path / "out").export
    assert done is not None
    assert done.verification is not None
    assert done.verification.passed
    assert not done.verification.different_constants
    before = onnx.load(tmp_path / "QDQ.onnx")
    after = onnx.load(tmp_path / "out" / "model.onnx")
    for op in ("QuantizeLinear", "DequantizeLinear"):
        counts = [sum(n.op_type == op for n in model.graph.node) for model in (before, after)]
        assert counts[0] == counts[1]
    recipe = load_recipe(tmp_path / "out" / "recipe.json")
    assert recipe.steps == ("evaluate", "export")


def test_export_asks_for_data_to_verify_on(document: Document, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No data"):
        steps.export(document.with_data(None), tmp_path / "out")


def test_an_edit_needs_calibration_and_undoing_it_does_not(
    document: Document, tmp_path: Path
) -> None:
    layer = next(layer for layer in document.plan.layers if layer.ops[0] == "Conv")
    edited = document.with_config(document.config.with_layers([layer.name], act_bits=6))
    assert not edited.calibrated
    with pytest.raises(ConfigError, match="not calibrated"):
        steps.export(edited, tmp_path / "out")
    back = edited.with_config(document.config)
    assert back.calibrated
    assert back.encodings == document.encodings

    calibrated = steps.calibrate(edited)
    assert calibrated.calibrated
    changed = calibrated.encodings[layer.output]
    assert changed.grid.bits == 6
    others = [n for n, row in calibrated.plan.tensors.items() if row.from_file]
    assert len(others) > 10
    for name in others:
        assert calibrated.encodings[name] == document.encodings[name]
    done = steps.export(calibrated, tmp_path / "out").export
    assert done is not None
    assert done.verification is not None
    assert done.verification.passed


def test_every_tensor_that_an_edit_may_free_is_calibrated(document: Document) -> None:
    """Later edits must not need the data again."""
    layer = next(layer for layer in document.plan.layers if layer.ops[0] == "Conv")
    calibrated = steps.calibrate(document)
    edited = calibrated.with_config(calibrated.config.with_layers([layer.name], act_bits=6))
    assert steps.refresh_encodings(edited).calibrated
    anew = calibrated.with_config(QuantConfig(source_encodings=False))
    assert steps.refresh_encodings(anew).calibrated


def test_dropping_the_files_encodings_needs_calibration(document: Document) -> None:
    anew = document.with_config(QuantConfig(source_encodings=False))
    assert not anew.from_file
    assert not anew.calibrated
    with pytest.raises(ConfigError, match="not calibrated"):
        steps.evaluate(anew)
    measured = steps.evaluate(steps.calibrate(anew)).evaluation
    assert measured is not None
    assert measured.output.sqnr_db > 15


def test_a_project_keeps_all_of_it(document: Document, tmp_path: Path) -> None:
    layer = document.plan.layers[1].name
    evaluated = steps.evaluate(document)
    saved = save_project(evaluated, tmp_path / "net.qstudio")
    loaded = load_project(tmp_path / "net.qstudio")
    assert loaded.plan == saved.plan
    assert loaded.encodings == saved.encodings
    assert loaded.evaluation == saved.evaluation
    assert loaded.calibration is None

    edited = steps.calibrate(document.with_config(document.config.with_layers([layer], act_bits=5)))
    save_project(edited, tmp_path / "edited.qstudio")
    loaded = load_project(tmp_path / "edited.qstudio")
    assert loaded.config == edited.config
    assert loaded.encodings == edited.encodings


def test_a_project_whose_file_has_other_scales_says_so(document: Document, tmp_path: Path) -> None:
    save_project(steps.evaluate(document), tmp_path / "net.qstudio")
    path = tmp_path / "QDQ.onnx"
    model = onnx.load(path)
    for array in model.graph.initializer:
        if array.name == "y_scale":
            number = onnx.numpy_helper.to_array(array) * np.float32(1.5)
            array.CopyFrom(onnx.numpy_helper.from_array(number, array.name))
    onnx.save(model, path)
    events: list[Event] = []
    loaded = load_project(tmp_path / "net.qstudio", emit=events.append)
    assert loaded.evaluation is None
    assert any(isinstance(event, Warned) and "changed" in event.message for event in events)


def test_the_recipe_of_a_calibrated_document_calibrates(document: Document) -> None:
    assert document_recipe(document, Path("out")).steps == ("export",)
    assert document_recipe(steps.calibrate(document), Path("out")).steps == ("calibrate", "export")


def test_a_float_model_still_has_to_be_calibrated(tmp_path: Path) -> None:
    onnx.save(float_model(), tmp_path / "float.onnx")
    opened = steps.open_document(tmp_path / "float.onnx")
    assert not opened.from_file
    assert not opened.calibrated
    nothing = replace(opened, config=opened.config.with_defaults(act_enabled=False))
    with pytest.raises(ConfigError, match="not calibrated"):
        steps.evaluate(nothing)
