"""A graph under a configuration, with the encodings it has: what techniques take and give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.statistics import TensorStatistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.plan import Plan


@dataclass(frozen=True)
class QuantizedModel:
    """Graph, settings and what follows from them.

    statistics: of calibration, by tensor name. given: encodings that a technique found; each holds
    until the settings of its tensor ask for another grid or granularity. plan: `place(graph,
    config)`. encodings: of every tensor that `plan` quantizes, as far as they can be known.
    """

    graph: ModelGraph
    config: QuantConfig
    plan: Plan
    statistics: Mapping[str, TensorStatistics] = field(default_factory=dict)
    given: Mapping[str, Encoding] = field(default_factory=dict)
    encodings: Mapping[str, Encoding] = field(default_factory=dict)

    def changed(
        self,
        *,
        graph: ModelGraph | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        config: QuantConfig | None = None,
        statistics: Mapping[str, TensorStatistics] | None = None,
        encodings: Mapping[str, Encoding] | None = None,
        forget: frozenset[str] = frozenset(),
    ) -> QuantizedModel:
        """This model with another graph, other values of some initializers, other settings, a new
        calibration, or `encodings` given by a technique (those `forget` names are found anew); all
        else follows."""
        graph = graph or self.graph
        if constants:
            graph = with_constants(graph, constants)
        given = {name: item for name, item in self.given.items() if name not in forget}
        return quantized_model(
            graph,
            config or self.config,
            self.statistics if statistics is None else statistics,
            {**given, **(encodings or {})},
        )


def quantized_model(
    graph: ModelGraph,
    config: QuantConfig,
    statistics: Mapping[str, TensorStatistics],
    given: Mapping[str, Encoding],
) -> QuantizedModel:
    """The model of these parts: placed, its encodings computed."""
    plan = place(graph, config)
    encodings = compute_encodings(graph, plan, statistics, given=given)
    return QuantizedModel(graph, config, plan, statistics, given, encodings)


def with_constants(graph: ModelGraph, constants: Mapping[str, np.ndarray]) -> ModelGraph:
    """`graph` with other values of the initializers named, of the same shapes; all else is shared.

    Integers that came with an old value (`FoundQuantization.integers`) go with it.
    """
    copy = graph.copy()
    for name, array in constants.items():
        value = copy.value(name)
        known = value.const_value
        assert known is not None and tuple(known.shape.numpy()) == array.shape, name
        value.const_value = ir.tensor(array.astype(known.numpy().dtype, copy=False), name=name)
    found = {
        name: replace(item, integers=None) if name in constants else item
        for name, item in graph.found.items()
    }
    return replace(copy, found=found)
