"""The document: model, data, settings and results, as one immutable value.

Every edit and every step returns a new `Document`; undo is going back to the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from studio.analysis.quality import Evaluation
from studio.analysis.sensitivity_figures import Sensitivity
from studio.analysis.shape_layers import shape_layers
from studio.data.preprocess import Preprocess
from studio.exporting.summary import ExportSummary
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.statistics import TensorStatistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import fits_spec
from studio.sim.found import found_encodings, uses_file
from studio.sim.placement import place
from studio.sim.plan import Plan
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.applied import Applied


class DataSettings(BaseModel):
    """Which data, how it is preprocessed, and how much of it is used.

    `path` None means random data, which has to be asked for and marks all results as synthetic.
    `training_path` is other data to calibrate and train on (None: the same). `evaluation_size` None
    evaluates on everything. `batch_size` None chooses small batches, whose
    activations stay in the processor's cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None
    training_path: Path | None = None
    preprocess: Preprocess | None = None
    calibration_size: int = Field(default=64, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    evaluation_size: int | None = Field(default=None, ge=1)

    @property
    def name(self) -> str:
        return "random data" if self.path is None else self.path.name


@dataclass(frozen=True)
class Calibration:
    """Statistics of every observed tensor and what they were collected on."""

    statistics: Mapping[str, TensorStatistics]
    data: str
    samples: int
    synthetic: bool


@dataclass(frozen=True)
class Document:
    """One model being quantized. `encodings` holds what is up to date with `config`: a tensor whose
    settings changed is missing until `steps.refresh_encodings` ran.

    `applied` are the techniques in order, `given` the encodings they found, each of which holds
    until the settings of its tensor ask for another grid. `tuned` names the constants of the graph
    that they changed or added, `untuned` is the graph before that.
    """

    graph: ModelGraph
    config: QuantConfig
    plan: Plan
    data: DataSettings | None = None
    calibration: Calibration | None = None
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    export: ExportSummary | None = None
    path: Path | None = None
    given: Mapping[str, Encoding] = field(default_factory=dict)
    applied: tuple[Applied, ...] = ()
    tuned: frozenset[str] = frozenset()
    untuned: ModelGraph | None = None
    sensitivity: Sensitivity | None = None

    @property
    def model(self) -> QuantizedModel:
        """Graph, settings and encodings: what techniques work on."""
        statistics = self.calibration.statistics if self.calibration else {}
        return QuantizedModel(
            self.graph, self.config, self.plan, statistics, self.given, self.encodings
        )

    @property
    def original(self) -> ModelGraph:
        """The prepared float model, as it was before any technique changed its weights."""
        return self.untuned or self.graph

    @property
    def name(self) -> str:
        return self.path.stem if self.path else self.graph.source.name

    @property
    def calibrated(self) -> bool:
        """True if every quantized tensor has an encoding."""
        return all(name in self.encodings for name in self.plan.quantized)

    @cached_property
    def shape_layers(self) -> frozenset[str]:
        """Names of the layers that only compute sizes, which lists and counts leave out."""
        return shape_layers(self.graph, self.plan)

    @property
    def from_file(self) -> bool:
        """True if the model came quantized and its settings keep that."""
        return uses_file(self.graph, self.config)

    def with_config(self, config: QuantConfig) -> Document:
        """This document under other settings: placed anew; encodings of tensors whose settings did
        not change are kept, those of the model's file are there wherever they hold, results
        measured under the old settings are dropped."""
        if config == self.config:
            return self
        plan = place(self.graph, config)
        kept = {
            name: encoding
            for name, encoding in self.encodings.items()
            if name in plan.tensors and plan.tensors[name] == self.plan.tensors.get(name)
        }
        kept = {
            name: encoding
            for name, encoding in kept.items()
            if all(source in kept for source in plan.tensors[name].bias_of or ())
            and (plan.tensors[name].tied_to or name) in kept
        }
        kept.update(found_encodings(self.graph, plan))
        kept.update(
            (name, encoding)
            for name, encoding in self.given.items()
            if name in plan.tensors and fits_spec(encoding, plan.tensors[name].spec)
        )
        changed = replace(self, config=config, plan=plan, encodings=kept)
        return changed.without_results()

    def without_results(self) -> Document:
        """This document without what was measured on it as it was before, and its export."""
        return replace(self, evaluation=None, sensitivity=None, export=None)

    def with_data(self, data: DataSettings | None) -> Document:
        """This document with other data; earlier calibration stays until the next one."""
        return replace(self, data=data)
