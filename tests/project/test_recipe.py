"""Recipes say what was done and are strict about what they read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import small_models

from studio.errors import ConfigError
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.recipe import Recipe, document_recipe, load_recipe, parse_recipe


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Document:
    """Calibrated; model and data are named from the current folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    small_models.images(Path("images.npz"))
    opened = steps.open_document(small_models.conv_net(Path("net.onnx")))
    config = opened.config.with_layers(["conv*"], weight_bits=5)
    document = opened.with_config(config).with_data(DataSettings(path=Path("images.npz")))
    return steps.calibrate(document)


def written(recipe: Recipe, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(recipe.model_dump(mode="json")), "utf-8")
    return path


def test_a_recipe_names_files_around_it_from_its_own_folder(
    document: Document, tmp_path: Path
) -> None:
    out = Path("out")  # beside model and data
    recipe = document_recipe(document, out)
    assert recipe.model.path == Path("../net.onnx")
    assert recipe.data.path == Path("../images.npz")
    assert recipe.steps == ("calibrate", "export")
    assert document_recipe(steps.evaluate(document), out).steps == (
        "calibrate",
        "evaluate",
        "export",
    )
    loaded = load_recipe(written(recipe, out / "recipe.json"))
    assert loaded.model.path and loaded.data.path
    assert loaded.model.path.is_absolute() and loaded.data.path.is_absolute()
    assert loaded.model.path.samefile(tmp_path / "work" / "net.onnx")
    assert loaded.data.path.samefile(tmp_path / "work" / "images.npz")
    assert loaded.config == recipe.config
    again = load_recipe(written(loaded, tmp_path / "absolute.json"))
    assert again == loaded, "absolute paths stay what they are"


def test_a_recipe_names_files_elsewhere_by_their_absolute_paths(
    document: Document, tmp_path: Path
) -> None:
    recipe = document_recipe(document, tmp_path / "other" / "out")
    assert recipe.model.path == tmp_path / "work" / "net.onnx"
    assert recipe.data.path == tmp_path / "work" / "images.npz"


def test_a_folder_reached_by_a_link(document: Document, tmp_path: Path) -> None:
    """`..` of a link is the folder around what it leads to."""
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "work" / "out").symlink_to(tmp_path / "far" / "away")
    recipe = document_recipe(document, Path("out"))
    loaded = load_recipe(written(recipe, Path("out") / "recipe.json"))
    assert loaded.model.path and loaded.model.path.samefile("net.onnx")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    source = replace(document.graph.source, path=tmp_path / "link" / "net.onnx")
    linked = replace(document, graph=replace(document.graph, source=source))
    assert document_recipe(linked, Path("inner")).model.path == Path("../net.onnx")


def test_random_data_have_no_path(document: Document) -> None:
    recipe = document_recipe(document.with_data(DataSettings(path=None)), Path("out"))
    assert load_recipe(written(recipe, Path("recipe.json"))).data.path is None


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
