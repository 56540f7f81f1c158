"""Techniques on documents: applied, undone, saved, opened again, in recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studio.errors import ConfigError
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.recipe import ConfigStep, TechniqueStep, document_recipe
from studio.project.store import load_project, save_project
from studio.project.techniques import apply_technique, parse_options, parse_step

DIGITS = Path(__file__).parents[2] / "resources/examples/digits"
OPTIONS = {"epochs": 8, "learning_rate": 0.01, "range_learning_rate": 1e-3, "batch_size": 20}


@pytest.fixture(scope="module")
def calibrated() -> Document:
    document = steps.open_document(DIGITS / "digits.onnx")
    config = document.config.with_defaults(weight_bits=2, act_bits=4)
    data = DataSettings(
        path=DIGITS / "test.npz", training_path=DIGITS / "calibration.npz", calibration_size=200
    )
    return steps.calibrate(document.with_config(config).with_data(data))


@pytest.fixture(scope="module")
def trained(calibrated: Document) -> Document:
    return apply_technique(calibrated, "qat", parse_options("qat", OPTIONS))


def top1(document: Document) -> tuple[float, float]:
    """Float and simulated."""
    evaluation = steps.evaluate(document).evaluation
    assert evaluation is not None
    assert evaluation.accuracy is not None
    assert evaluation.float_accuracy is not None
    return evaluation.float_accuracy.top1, evaluation.accuracy.top1


def test_training_helps_and_float_stays_the_original(
    calibrated: Document, trained: Document
) -> None:
    assert top1(calibrated)[1] < 40
    exact, simulated = top1(trained)
    assert exact == top1(calibrated)[0] > 99
    assert simulated > 70
    assert [item.technique for item in trained.applied] == ["qat"]
    assert "top-1" in trained.applied[0].summary


def test_a_project_keeps_what_was_trained(trained: Document, tmp_path: Path) -> None:
    path = tmp_path / "digits.qstudio"
    save_project(trained, path)
    opened = load_project(path)
    for name in trained.tuned:
        np.testing.assert_array_equal(opened.graph.constant(name), trained.graph.constant(name))
    assert opened.encodings == trained.encodings
    assert opened.applied == trained.applied
    assert top1(opened) == top1(trained)
    save_project(opened, path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_project_whose_weights_are_gone_says_so(trained: Document, tmp_path: Path) -> None:
    path = tmp_path / "digits.qstudio"
    save_project(trained, path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ConfigError, match="cannot be used"):
        load_project(path)


def test_a_recipe_keeps_the_settings_of_every_step(calibrated: Document, tmp_path: Path) -> None:
    few = parse_options("sequential_mse", {"samples": 40})
    document = apply_technique(calibrated, "sequential_mse", few)
    document = steps.change_config(
        document, document.config.with_layers(["down.conv"], weight_bits=8)
    )
    document = apply_technique(document, "gptq", parse_options("gptq", {"samples": 40}))
    document = steps.change_config(document, document.config.with_layers(["stem.conv"], act_bits=8))
    recipe = document_recipe(document, tmp_path)
    assert recipe.config == calibrated.config
    kinds = [getattr(step, "technique", None) or type(step).__name__ for step in recipe.steps]
    assert kinds == ["str", "sequential_mse", "ConfigStep", "gptq", "ConfigStep", "str"]
    again = calibrated
    for step in recipe.steps[1:-1]:
        if isinstance(step, TechniqueStep):
            options = parse_options(step.technique, step.options)
            again = apply_technique(again, step.technique, options)
        else:
            assert isinstance(step, ConfigStep)
            again = steps.change_config(again, step.config)
    assert again.config == document.config
    assert again.encodings == document.encodings
    for name in document.tuned:
        np.testing.assert_array_equal(again.graph.constant(name), document.graph.constant(name))


def test_changed_bits_are_found_anew(trained: Document) -> None:
    other = steps.refresh_encodings(
        trained.with_config(trained.config.with_layers(["down.conv"], weight_bits=8))
    )
    assert other.encodings["down.conv.weight"].grid.bits == 8
    name = "stem.conv.weight"
    assert other.encodings[name] == trained.encodings[name] == trained.given[name]


def test_the_recipe_has_the_technique(trained: Document, tmp_path: Path) -> None:
    recipe = document_recipe(trained, tmp_path)
    assert recipe.steps[0] == "calibrate"
    assert isinstance(recipe.steps[1], TechniqueStep)
    assert recipe.steps[1].technique == "qat"
    assert recipe.steps[1].options["epochs"] == 8
    assert recipe.steps[2] == "export"


def test_steps_as_text() -> None:
    step = parse_step("qat:epochs=3,ranges=fixed")
    assert step == TechniqueStep(technique="qat", options={"epochs": "3", "ranges": "fixed"})
    assert parse_options("qat", step.options).model_dump()["epochs"] == 3
    with pytest.raises(ConfigError, match="no technique 'adagrad'"):
        parse_step("adagrad")
    with pytest.raises(ConfigError, match="key=value"):
        parse_step("qat:epochs")
    with pytest.raises(ConfigError, match="epoch") as error:
        parse_step("qat:epoch=3")
    assert "epochs" in error.value.hint
    with pytest.raises(ConfigError, match="epochs"):
        parse_step("qat:epochs=none")


def test_calibration_comes_first() -> None:
    document = steps.open_document(DIGITS / "digits.onnx")
    with pytest.raises(ConfigError, match="not calibrated"):
        apply_technique(document, "qat", parse_options("qat", {}))
