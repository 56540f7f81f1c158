"""Recipes: what was done to which model with which data, to be replayed without a window."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.errors import ConfigError
from studio.graph.model import ModelSource
from studio.graph.sources.source import parse_inputs
from studio.plain_json import plain
from studio.project.document import DataSettings, Document
from studio.sim.config import QuantConfig

Step = Literal["calibrate", "evaluate", "export"]


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
        )

    def source(self, base: Path) -> ModelSource:
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
        )


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
    steps: tuple[Step, ...] = ("export",)
    if document.evaluation:
        steps = ("evaluate", *steps)
    if document.calibration:
        steps = ("calibrate", *steps)
    model = ModelReference.of(document.graph.source, Path.absolute)
    return Recipe(model=model, data=data, config=document.config, steps=steps)


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
