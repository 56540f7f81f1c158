"""What every step that improves a model declares: options, what it needs, and how to run it.

One declaration gives the form in the window, the step of a recipe, the flags of the command line
and the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from studio.data.dataset import Dataset
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit
from studio.sim.quantized_model import QuantizedModel


class Options(BaseModel):
    """Options of a technique. Every field has a default and a description of one line. `common`
    names those that are asked first, the rest is for the few that need them (none: all alike)."""

    common: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Row:
    """What a technique did to one layer: a measure before and after, in words its table shows."""

    layer: str
    what: str
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Point:
    """A point of a chart. `settings` are those of the layers by name where choosing the point means
    anything: the configuration that it was measured with. `note` says more in a sentence. A point
    `aside` is there to compare with; the line does not go through it."""

    x: float
    y: float
    label: str = ""
    note: str = ""
    chosen: bool = False
    settings: Mapping[str, Mapping[str, Any]] | None = None
    aside: bool = False


@dataclass(frozen=True)
class Chart:
    """What a technique has to show as a plot: points in order, `line` joins them. `target` is a
    level of y to reach (None: none)."""

    title: str
    x: str
    y: str
    points: tuple[Point, ...]
    line: bool = True
    target: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The improved model and what was done, for people. `measure` names what the rows measure."""

    model: QuantizedModel
    summary: str
    measure: str = ""
    rows: tuple[Row, ...] = ()
    chart: Chart | None = None


@dataclass(frozen=True)
class Samples:
    """Data a technique may read: `calibration` for statistics and reconstruction, `training` to
    train on, `validation` to measure on, `apart` if it is other data than the training's.
    `batch_size` is the one the model takes (None: any). `original` is the float model before any
    technique changed its weights (None: the model's own graph)."""

    calibration: Dataset
    training: Dataset
    validation: Dataset
    batch_size: int | None = None
    apart: bool = True
    original: ModelGraph | None = None


Run = Callable[[QuantizedModel, Samples, Any, Emit, CancelToken], Outcome]
"""Model, data, options of the declared kind -> the improved model; CancelledError if cancelled."""


@dataclass(frozen=True)
class Technique:
    """A step with a name (`adaround`), a title and one sentence for people.

    `load` gives the function, importing what it needs only then. `calibrated`: needs encodings.
    """

    name: str
    title: str
    description: str
    options: type[Options]
    load: Callable[[], Run]
    calibrated: bool = True
