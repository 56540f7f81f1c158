"""From statistics and weights to the encoding of every quantized tensor of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.observers import OBSERVERS, weight_encoding
from studio.quant.statistics import TensorStatistics
from studio.sim.found import found_encoding
from studio.sim.plan import Plan, QuantSpec, Role, TensorPlan

LARGEST_BIAS = 2**31 - 2**15
"""Integers a bias may take: int32 with room for the accumulator (AIMET uses the same)."""

_weights: WeakKeyDictionary[ir.Model, dict[tuple[str, QuantSpec], Encoding]] = WeakKeyDictionary()


def compute_encodings(
    graph: ModelGraph,
    plan: Plan,
    statistics: Mapping[str, TensorStatistics],
    cancel: CancelToken | None = None,
) -> dict[str, Encoding]:
    """Encoding of every quantized tensor of `plan` that can be known, in graph order.

    Weights, constants and what the model's file says need no statistics; another activation without
    statistics has no entry, nor has a bias behind it. A bias that would overflow int32 at input
    scale x weight scale enlarges the weight scale of its channels (fused integer kernels ignore any
    other bias scale).
    """
    encodings: dict[str, Encoding] = {}
    rows = [plan.tensors[name] for name in plan.quantized]
    for row in rows:
        if cancel is not None:
            cancel.check()
        if row.from_file or (row.tied_to is None and row.bias_of is None):
            encoding = _own_encoding(graph, row, statistics)
            if encoding is not None:
                encodings[row.name] = encoding
    for row in rows:
        if row.tied_to in encodings:
            encodings[row.name] = encodings[row.tied_to]
    for row in rows:
        known = row.bias_of and all(name in encodings for name in row.bias_of)
        if known and not row.from_file:
            _make_room_for_bias(graph, row, encodings)
    encodings.update(bias_encodings(plan, encodings))
    return {row.name: encodings[row.name] for row in rows if row.name in encodings}


def _own_encoding(
    graph: ModelGraph, row: TensorPlan, statistics: Mapping[str, TensorStatistics]
) -> Encoding | None:
    assert row.spec is not None
    if row.from_file:
        return found_encoding(graph.found[row.name])
    if row.role in (Role.WEIGHT, Role.CONSTANT):
        return _constant_encoding(graph, row.name, row.spec)
    if row.spec.fixed_range is not None:
        return encoding_from_range(*row.spec.fixed_range, row.spec.grid)
    if row.name not in statistics:
        return None
    return _observed_encoding(statistics[row.name], row.spec)


@lru_cache(maxsize=8192)
def _observed_encoding(statistics: TensorStatistics, spec: QuantSpec) -> Encoding:
    return OBSERVERS[spec.observer](statistics, spec.grid)


def _constant_encoding(graph: ModelGraph, name: str, spec: QuantSpec) -> Encoding:
    known = _weights.setdefault(graph.ir, {})
    if (name, spec) not in known:
        array = graph.constant(name)
        if not np.isfinite(array).all():
            raise ConfigError(
                f"The constant {name} contains NaN or infinite values.",
                "Repair the model's weights, or switch the layer's weight quantization off.",
            )
        known[name, spec] = weight_encoding(array, spec.grid, spec.axis, spec.observer)
    return known[name, spec]


def _make_room_for_bias(graph: ModelGraph, row: TensorPlan, encodings: dict[str, Encoding]) -> None:
    assert row.bias_of is not None
    source, weight = row.bias_of
    bias = np.abs(graph.constant(row.name).reshape(-1).astype(np.float64))
    before = encodings[weight]
    needed = bias if before.axis is not None else bias.max(initial=0.0)
    smallest = needed / (LARGEST_BIAS * float(encodings[source].scale))
    if (smallest > before.scale).any():
        scale = np.maximum(
            before.scale, np.nextafter(smallest.astype(np.float32), np.float32(np.inf))
        )
        encodings[weight] = Encoding(before.grid, scale, before.zero_point, before.axis)


def bias_encodings(plan: Plan, encodings: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """Encodings of the biases: int32 at input scale times weight scale, zero point 0."""
    biases = {}
    for row in plan.tensors.values():
        if row.bias_of is None or row.spec is None or not all(n in encodings for n in row.bias_of):
            continue
        source, weight = (encodings[name] for name in row.bias_of)
        scale = np.asarray(source.scale * weight.scale)  # float32, as the runtimes multiply
        zero_point = np.zeros(scale.shape, dtype=np.int64)
        biases[row.name] = Encoding(row.spec.grid, scale, zero_point, row.spec.axis)
    return biases
