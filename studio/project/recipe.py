"""Recipes: what was done to which model with which data, to be replayed without a window."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.errors import ConfigError
from studio.exporting.options import DEFAULTS, ExportOptions
from studio.graph.model import ModelSource
from studio.graph.sources.source import parse_inputs
from studio.plain_json import plain
from studio.project.document import DataSettings, Document
from studio.sim.config import QuantConfig

Step = Literal["calibrate", "evaluate", "sensitivity", "export"]


class ModelReference(BaseModel):
    """Where the model is; see `ModelSource`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None
    module: str | None = None
    factory: str | None = None
    weights: Path | None = None
    inputs: tuple[str, ...] = ()
    fixed_inputs: dict[str, Any] = Field(default_factory=dict)
    fixed_size: bool = False
    without: tuple[str, ...] = ()
    encodings: Path | None = None
    encodings_partial: bool = False

    @model_validator(mode="after")
    def _somewhere(self) -> ModelReference:
        if (self.path is None) == (self.module is None):
            raise ValueError("either path or module says where the model is")
        if self.module is not None and self.factory is None:
            raise ValueError("module needs a factory")
        return self

    @classmethod
    def of(cls, source: ModelSource, place: Callable[[Path], Path]) -> ModelReference:
        """What leads to `source` again; `place` turns its files into the paths to write down."""
        return cls(
            path=None if source.path is None else place(source.path),
            module=source.module,
            factory=source.factory,
            weights=None if source.weights is None else place(source.weights),
            inputs=tuple(map(str, source.inputs)),
            fixed_inputs=plain(dict(source.fixed_inputs)),
            fixed_size=source.fixed_size,
            without=source.without,
            encodings=None if source.encodings is None else place(source.encodings),
            encodings_partial=source.encodings_partial,
        )

    def source(self, base: Path = Path()) -> ModelSource:
        """The source, relative paths taken from the folder `base`. Raises ModelError."""
        return ModelSource(
            path=None if self.path is None else base / self.path,
            factory=self.factory,
            module=self.module,
            weights=None if self.weights is None else base / self.weights,
            inputs=parse_inputs(self.inputs),
            fixed_inputs=self.fixed_inputs,
            fixed_size=self.fixed_size,
            without=self.without,
            encodings=None if self.encodings is None else base / self.encodings,
            encodings_partial=self.encodings_partial,
        )


class TechniqueStep(BaseModel):
    """A technique by name, with the options that differ from its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    technique: str
    options: dict[str, Any] = Field(default_factory=dict)


class ConfigStep(BaseModel):
    """Other settings from here on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: QuantConfig


RecipeStep = Step | TechniqueStep | ConfigStep


class Recipe(BaseModel):
    """Model, data, settings and the steps in order; versioned JSON.

    In the file, relative paths are taken from the recipe's own folder; `load_recipe` makes them
    absolute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model: ModelReference
    data: DataSettings
    config: QuantConfig = QuantConfig()
    steps: tuple[RecipeStep, ...] = Field(("calibrate", "evaluate", "export"), min_length=1)
    out: Path = Path("quantized")
    export: ExportOptions = DEFAULTS


def document_recipe(document: Document, folder: Path, options: ExportOptions = DEFAULTS) -> Recipe:
    """The recipe that leads to `document`, as it is written into `folder` with `options`.

    Files in the folder around that one are named from there, so that all can be moved together.
    """
    assert document.data is not None
    around = folder.absolute().parent
    data = placed_data(document.data, lambda path: portable(path, folder, around))
    steps: tuple[RecipeStep, ...] = ("export",)
    if document.sensitivity:
        steps = ("sensitivity", *steps)
    if document.evaluation:
        steps = ("evaluate", *steps)
    config, improvements = _improvements(document)
    steps = (*improvements, *steps)
    if document.calibration:
        steps = ("calibrate", *steps)
    source = document.graph.source
    model = ModelReference.of(source, lambda path: portable(path, folder, around))
    return Recipe(model=model, data=data, config=config, steps=steps, export=options)


def _improvements(
    document: Document,
) -> tuple[QuantConfig, tuple[TechniqueStep | ConfigStep, ...]]:
    """The settings to begin with, and the techniques in order with the changes of settings between
    them that they have not made themselves."""
    known = [item.configs for item in document.applied if item.configs is not None]
    begin = current = known[0][0] if known else document.config
    steps: list[TechniqueStep | ConfigStep] = []
    for item in document.applied:
        before, after = item.configs or (current, current)
        if before != current:
            steps.append(ConfigStep(config=before))
        steps.append(TechniqueStep(technique=item.technique, options=dict(item.options)))
        current = after
    if document.config != current:
        steps.append(ConfigStep(config=document.config))
    return begin, tuple(steps)


def portable(path: Path, base: Path, around: Path) -> Path:
    """`path` seen from the folder `base` if it lies in the folder `around`; else absolute."""
    absolute = path.parent.resolve() / path.name
    if not absolute.is_relative_to(around.resolve()):
        return path.absolute()
    return Path(os.path.relpath(absolute, base.resolve()))


def placed_data(data: DataSettings, place: Callable[[Path], Path]) -> DataSettings:
    """`data` with the paths that `place` makes of its own."""
    paths = {name: getattr(data, name) for name in ("path", "training_path")}
    return data.model_copy(
        update={name: place(path) for name, path in paths.items() if path is not None}
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe, its paths made absolute; ConfigError names what is wrong with it."""
    recipe = parse_recipe(read_json(path, "recipe"), path)
    base = path.parent.absolute()
    model = ModelReference.of(recipe.model.source(base), Path.absolute)
    data = placed_data(recipe.data, base.joinpath)
    return recipe.model_copy(update={"model": model, "data": data, "out": base / recipe.out})


def parse_recipe(values: Any, path: Path) -> Recipe:
    """A recipe from JSON values; ConfigError names `path` and the key that is wrong."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top level"
        raise ConfigError(
            f"{path} is no valid recipe: {where}: {first['msg']}.",
            "Compare it with a recipe.json that an export wrote.",
        ) from None


def read_json(path: Path, what: str) -> Any:
    """The JSON in `path`; ConfigError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"The {what} {path} cannot be read: {error}.", f"Give a {what} in JSON."
        ) from None
