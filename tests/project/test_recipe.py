"""Recipes say what was done and are strict about what they read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_models

from studio.errors import ConfigError
from studio.project import steps
from studio.project.document import DataSettings
from studio.project.recipe import Recipe, document_recipe, load_recipe, parse_recipe


def test_a_recipe_is_absolute_and_round_trips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_models.images(Path("images.npz"))
    opened = steps.open_document(small_models.conv_net(Path("net.onnx")))
    config = opened.config.with_layers(["conv*"], weight_bits=5)
    document = opened.with_config(config).with_data(DataSettings(path=Path("images.npz")))
    document = steps.calibrate(document)
    recipe = document_recipe(document)
    assert recipe.model.path == tmp_path / "net.onnx"
    assert recipe.data.path == tmp_path / "images.npz"
    assert recipe.steps == ("calibrate", "export")
    assert document_recipe(steps.evaluate(document)).steps == ("calibrate", "evaluate", "export")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.model_dump(mode="json")), "utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "the top level"),
        ({}, "model"),
        ({"model": {"path": "a.onnx"}}, "data"),
        ({"model": {"path": "a.onnx"}, "data": {"path": None}, "version": 2}, "version"),
        ({"model": {"path": "a.onnx"}, "data": {"path": None, "size": 2}}, "data.size"),
        ({"model": {"path": "a.onnx"}, "data": {"path": None}, "steps": ["x"]}, "steps.0"),
        (
            {"model": {"path": "a"}, "data": {"path": None}, "config": {"bits": 1}},
            "config.bits",
        ),
    ],
)
def test_what_is_wrong_is_named(values: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(values, Path("r.json"))
    assert says in caught.value.message
    assert "r.json" in caught.value.message


def test_defaults() -> None:
    recipe = Recipe.model_validate({"model": {"path": "a.onnx"}, "data": {"path": None}})
    assert recipe.steps == ("calibrate", "evaluate", "export")
    assert recipe.config.target == "onnxruntime"
