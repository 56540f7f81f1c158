"""From statistics and weights to the encoding of every quantized tensor of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid
from studio.quant.observers import observed_encoding, weight_encoding
from studio.quant.scales import next_power_of_two
from studio.quant.statistics import TensorStatistics
from studio.sim.config import QuantConfig
from studio.sim.found import constant_integers, found_encoding
from studio.sim.plan import Plan, QuantSpec, Role, TensorPlan

LARGEST_BIAS = 2**31 - 2**15
"""Integers a bias may take: int32 with room for the accumulator (AIMET uses the same)."""

_weights: WeakKeyDictionary[ir.Model, dict[tuple[str, QuantSpec], Encoding]] = WeakKeyDictionary()


def compute_encodings(
    graph: ModelGraph,
    plan: Plan,
    statistics: Mapping[str, TensorStatistics],
    cancel: CancelToken | None = None,
    given: Mapping[str, Encoding] | None = None,
) -> dict[str, Encoding]:
    """Encoding of every quantized tensor of `plan` that can be known, in graph order.

    Weights, constants and what the model's file says need no statistics; another activation without
    statistics has no entry, nor has a bias behind it. A bias that would overflow int32 at input
    scale x weight scale enlarges the weight scale of its channels (fused integer kernels ignore any
    other bias scale). `given` encodings are used where they are of the grid and granularity asked.
    """
    encodings: dict[str, Encoding] = {}
    rows = [plan.tensors[name] for name in plan.quantized]
    for row in rows:
        if cancel is not None:
            cancel.check()
        if row.from_file or (row.tied_to is None and row.bias_of is None):
            known = (given or {}).get(row.name)
            fits = known is not None and not row.from_file and fits_spec(known, row.spec)
            encoding = known if fits else _own_encoding(graph, row, statistics)
            if encoding is not None:
                encodings[row.name] = encoding
    for row in rows:
        if row.tied_to in encodings:
            encodings[row.name] = encodings[row.tied_to]
    for row in rows:
        ready = row.bias_of and all(name in encodings for name in row.bias_of)
        if ready and not row.from_file:
            _make_room_for_bias(graph, row, encodings)
    encodings.update(bias_encodings(plan, encodings))
    return {row.name: encodings[row.name] for row in rows if row.name in encodings}


def fits_spec(encoding: Encoding, spec: QuantSpec | None) -> bool:
    """True if `encoding` is of the grid and granularity that `spec` asks for."""
    return spec is not None and (
        encoding.grid == spec.grid
        and encoding.axis == spec.axis
        and encoding.block_size == spec.block_size
        and (encoding.integer_scale is not None) == spec.lpbq
    )


def weights_to_calibrate_with(
    graph: ModelGraph, plan: Plan, config: QuantConfig
) -> dict[str, np.ndarray] | None:
    """The rounded weights if `config` asks to calibrate with them, else None: the float ones."""
    return rounded_weights(graph, plan) if config.calibrate_rounded else None


def rounded_weights(graph: ModelGraph, plan: Plan) -> dict[str, np.ndarray]:
    """The weights of `plan` rounded to their grids, float32, by name; they need no data.

    Calibrating with them in place ranges the activations that the quantized weights make (as AIMET
    does). Room for a bias is not made yet: that needs the ranges.
    """
    rounded = {}
    for name in plan.quantized:
        row = plan.tensors[name]
        if row.role is Role.WEIGHT and row.tied_to is None:
            encoding = _own_encoding(graph, row, {})
            assert encoding is not None
            rounded[name] = encoding.dequantize(constant_integers(graph, row, encoding))
    return rounded


def _own_encoding(
    graph: ModelGraph, row: TensorPlan, statistics: Mapping[str, TensorStatistics]
) -> Encoding | None:
    spec = row.spec
    assert spec is not None
    if row.from_file:
        return found_encoding(graph.found[row.name])
    if row.role in (Role.WEIGHT, Role.CONSTANT):
        return _constant_encoding(graph, row, spec)
    if spec.fixed_range is not None:
        return encoding_from_range(*spec.fixed_range, spec.grid)
    if isinstance(spec.grid, FloatGrid) and not spec.grid.scaled:
        return encoding_from_range(0.0, 0.0, spec.grid)
    if row.name not in statistics:
        return None
    try:
        return _observed_encoding(statistics[row.name], spec)
    except ValueError as error:
        raise ConfigError(
            f"The tensor {row.name} of the layer {row.layer} cannot be quantized: {error}.",
            "Switch the activations of this layer off.",
        ) from None


@lru_cache(maxsize=8192)
def _observed_encoding(statistics: TensorStatistics, spec: QuantSpec) -> Encoding:
    return observed_encoding(statistics, spec.grid, spec.observer, spec.percentile)


def _constant_encoding(graph: ModelGraph, row: TensorPlan, spec: QuantSpec) -> Encoding:
    name = row.name
    known = _weights.setdefault(graph.ir, {})
    if (name, spec) not in known:
        array = graph.constant(name)
        finite = np.isfinite(array)
        if not finite.all():
            kind = "NaN" if np.isnan(array).any() else "infinite"
            raise ConfigError(
                f"The constant {name} of the layer {row.layer} contains "
                f"{np.count_nonzero(~finite)} {kind} values of {array.size}.",
                "Repair the model's weights, or switch the layer's weight quantization off.",
            )
        known[name, spec] = weight_encoding(
            array,
            spec.grid,
            spec.axis,
            spec.observer,
            percent=spec.percentile,
            block_size=spec.block_size,
            lpbq=spec.lpbq,
        )
    return known[name, spec]


def _make_room_for_bias(graph: ModelGraph, row: TensorPlan, encodings: dict[str, Encoding]) -> None:
    assert row.bias_of is not None
    source, weight = row.bias_of
    before = encodings[weight]
    if isinstance(before.grid, FloatGrid) or before.block_size is not None:
        return  # these have no integer kernel that would need room
    bias = np.abs(graph.constant(row.name).reshape(-1).astype(np.float64))
    needed = bias if before.axis is not None else bias.max(initial=0.0)
    smallest = needed / (LARGEST_BIAS * float(encodings[source].scale))
    if (smallest > before.scale).any():
        enough = np.nextafter(smallest.astype(np.float32), np.float32(np.inf))
        if before.grid.power_of_two:
            enough = next_power_of_two(enough.astype(np.float64)).astype(np.float32)
        scale = np.where(smallest > before.scale, enough, before.scale).astype(np.float32)
        encodings[weight] = replace(before, scale=scale)


def bias_encodings(plan: Plan, encodings: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """Encodings of the biases: int32 at input scale times weight scale, zero point 0.

    Behind a weight in blocks the scale of a channel's largest block stands for the channel.
    """
    biases = {}
    for row in plan.tensors.values():
        if row.bias_of is None or row.spec is None or not all(n in encodings for n in row.bias_of):
            continue
        source, weight = (encodings[name] for name in row.bias_of)
        of_weight = weight.scale
        if weight.block_size is not None:
            others = tuple(i for i in range(weight.scale.ndim) if i != weight.channel_axis)
            of_weight = weight.scale.max(axis=others)
        scale = np.asarray(source.scale * of_weight)  # float32, as the runtimes multiply
        axis = row.spec.axis
        if scale.ndim and axis is None:
            axis = 0
        zero_point = np.zeros(scale.shape, dtype=np.int64)
        biases[row.name] = Encoding(row.spec.grid, scale, zero_point, axis)
    return biases
