"""What a report is made from, and the questions its parts ask of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from studio.analysis.quality import Evaluation
from studio.analysis.sensitivity_figures import LayerSensitivity, Sensitivity
from studio.analysis.shape_layers import shape_layers
from studio.analysis.validation import Validation
from studio.exporting.summary import Artifact, Verification
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.statistics import TensorStatistics
from studio.sim.config import QuantConfig
from studio.sim.plan import Layer, Plan
from studio.techniques.applied import Applied


class Sizes(NamedTuple):
    """Bytes of the model; `planned`: of its constants, nothing is exported yet."""

    before: int
    after: int
    planned: bool

    @property
    def compression(self) -> float:
        """How many times smaller the quantized model is."""
        return self.before / max(self.after, 1)


@dataclass(frozen=True)
class ReportContent:
    """Everything a report states.

    statistics: may be empty (nothing was observed). synthetic: calibrated on random data.
    float_bytes, quantized_bytes: sizes of the float and the quantized model file; None: nothing was
    exported, and there is neither a verification nor an artifact. validation: what was known of the
    model before calibrating it. applied: the techniques, in order.
    """

    graph: ModelGraph
    config: QuantConfig
    plan: Plan
    encodings: Mapping[str, Encoding]
    statistics: Mapping[str, TensorStatistics]
    calibration_data: str
    calibration_samples: int
    synthetic: bool
    evaluation: Evaluation | None
    verification: Verification | None
    artifacts: tuple[Artifact, ...]
    float_bytes: int | None
    quantized_bytes: int | None
    created: datetime
    version: str
    validation: Validation | None = None
    applied: tuple[Applied, ...] = ()
    sensitivity: Sensitivity | None = None

    @cached_property
    def sqnr(self) -> dict[str, float]:
        """SQNR in dB of the layers' outputs, by layer; empty without an evaluation."""
        layers = self.evaluation.layers if self.evaluation else ()
        return {quality.layer: quality.distance.sqnr_db for quality in layers}

    @cached_property
    def sensitivities(self) -> dict[str, LayerSensitivity]:
        """What the quantization of each layer does, by layer; empty if that was not measured."""
        return {} if self.sensitivity is None else self.sensitivity.by_layer

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in execution order, without those that only compute sizes."""
        sizes = shape_layers(self.graph, self.plan)
        return tuple(layer for layer in self.plan.layers if layer.name not in sizes)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number a layer has in all tables and charts, from 1, by layer."""
        return {layer.name: number for number, layer in enumerate(self.layers, 1)}

    @cached_property
    def quantized_layers(self) -> int:
        """Layers whose weight or output is quantized."""
        return sum(self._is_quantized(layer) for layer in self.layers)

    @property
    def any_synthetic(self) -> bool:
        """True if the calibration or the evaluation used random data."""
        results = (self.evaluation, self.sensitivity)
        return self.synthetic or any(known.synthetic for known in results if known is not None)

    @property
    def sizes(self) -> Sizes | None:
        """Of the files, else those planned for the constants; None if neither is known."""
        if self.float_bytes is not None and self.quantized_bytes is not None:
            return Sizes(self.float_bytes, self.quantized_bytes, planned=False)
        if self.validation is None:
            return None
        return Sizes(self.validation.float_bytes, self.validation.quantized_bytes, planned=True)

    def lowest_layers(self) -> list[Layer]:
        """Evaluated layers whose output is not exact, lowest SQNR first."""
        altered = (name for name, sqnr in self.sqnr.items() if sqnr < math.inf)
        known = {layer.name: layer for layer in self.plan.layers}
        return [known[name] for name in sorted(altered, key=self.sqnr.__getitem__) if name in known]

    def encoding(self, tensor: str) -> Encoding | None:
        """The encoding `tensor` uses: its own, or that of the tensor it is tied to."""
        tied = self.plan.tensors[tensor].tied_to
        return self.encodings.get(tensor) or (self.encodings.get(tied) if tied else None)

    def observed(self, tensor: str) -> TensorStatistics | None:
        """What calibration saw of `tensor`, or of the tensor it is tied to."""
        tied = self.plan.tensors[tensor].tied_to
        return self.statistics.get(tensor) or (self.statistics.get(tied) if tied else None)

    def _is_quantized(self, layer: Layer) -> bool:
        tensors = (*layer.weights[:1], *layer.outputs)
        return any(self.plan.tensors[name].spec is not None for name in tensors)
