"""Recipes: what was done to which model with which data, to be replayed without a window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import ConfigError
from studio.graph.model import ModelSource
from studio.project.document import DataSettings, Document
from studio.sim.config import QuantConfig

Step = Literal["calibrate", "evaluate", "export"]


class ModelReference(BaseModel):
    """Where the model is; see `ModelSource`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    factory: str | None = None
    weights: Path | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, source: ModelSource) -> ModelReference:
        return cls(
            path=source.path,
            factory=source.factory,
            weights=source.weights,
            input_shapes=source.input_shapes,
        )

    def source(self, base: Path) -> ModelSource:
        """The source, relative paths taken from the folder `base`."""
        weights = None if self.weights is None else base / self.weights
        return ModelSource(base / self.path, self.factory, weights, self.input_shapes)


class Recipe(BaseModel):
    """Model, data, settings and the steps in order; versioned JSON.

    Relative paths are taken from the recipe's own folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model: ModelReference
    data: DataSettings
    config: QuantConfig = QuantConfig()
    steps: tuple[Step, ...] = Field(("calibrate", "evaluate", "export"), min_length=1)
    out: Path = Path("quantized")


def document_recipe(document: Document) -> Recipe:
    """The recipe that leads to `document`."""
    assert document.data is not None
    data = document.data
    if data.path is not None:
        data = data.model_copy(update={"path": data.path.absolute()})
    steps: tuple[Step, ...] = (
        ("calibrate", "evaluate", "export") if document.evaluation else ("calibrate", "export")
    )
    source = document.graph.source
    absolute = ModelReference(
        path=source.path.absolute(),
        factory=source.factory,
        weights=None if source.weights is None else source.weights.absolute(),
        input_shapes=source.input_shapes,
    )
    return Recipe(model=absolute, data=data, config=document.config, steps=steps)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; ConfigError names what is wrong with it."""
    return parse_recipe(read_json(path, "recipe"), path)


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
