"""Outlier channels: tensors with one scale in which a few channels reach far beyond the others.

The scale follows the widest channel; one that reaches only 1/16 as far is left with 4 of 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from studio.analysis.sensitivity_figures import LEAST, Outlier
from studio.data.dataset import Dataset
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.runtime.budget import BudgetedReader
from studio.runtime.session import float_session
from studio.sim import op_rules
from studio.sim.plan import Plan, Role, TensorPlan

SAMPLES = 16
"""Samples the ranges of activations are taken from."""

_MATRIX_OPS = frozenset({"MatMul", "Gemm"})
_LAST_AXIS_OPS = _MATRIX_OPS | {"LayerNormalization", "Softmax", "Attention"}
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})

Ranges = npt.NDArray[np.float64]


def outliers(
    graph: ModelGraph,
    plan: Plan,
    data: Dataset,
    *,
    batch_size: int,
    emit: Emit,
    cancel: CancelToken,
) -> tuple[Outlier, ...]:
    """Tensors of one scale with outlier channels, the worst first.

    Weights are looked at along their output channels, activations along axis 1 or, where matrix
    products read or make them, along the last; their ranges are those of `SAMPLES` samples. A
    channel that is zero everywhere does not count. Tensors with a scale for each channel or block
    have no such loss and are not listed.
    """
    found = _weight_outliers(graph, plan)
    axes = _activation_axes(graph, plan)
    ranges = _activation_ranges(graph, axes, data.subset(SAMPLES), batch_size, emit, cancel)
    for name, reached in ranges.items():
        found += _outlier(plan.tensors[name], reached, _activation_advice(graph, name))
    return tuple(sorted(found, key=lambda item: -item.factor))


def _outlier(row: TensorPlan, reached: Ranges, advice: str) -> list[Outlier]:
    alive = reached[reached > 0.0]
    if len(alive) < 2:
        return []
    median = float(np.median(alive))
    factor = float(alive.max()) / median
    if not math.isfinite(factor) or factor < LEAST:
        return []
    return [
        Outlier(
            row.name,
            row.layer,
            row.role is Role.WEIGHT,
            int(reached.argmax()),
            len(reached),
            int(np.count_nonzero(reached > LEAST * median)),
            factor,
            advice,
        )
    ]


def _one_scale(row: TensorPlan) -> bool:
    spec = row.spec
    return spec is not None and spec.axis is None and spec.block_size is None


def _largest(array: np.ndarray, axis: int) -> Ranges:
    """Largest absolute value of each channel along `axis`."""
    others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    return np.maximum(array.max(axis=others), -array.min(axis=others)).astype(np.float64)


# -- weights -----------------------------------------------------------------------------------


def _weight_outliers(graph: ModelGraph, plan: Plan) -> list[Outlier]:
    found: list[Outlier] = []
    for row in plan.tensors.values():
        if row.role is not Role.WEIGHT or not _one_scale(row):
            continue
        axes = {op_rules.channel_axis(use.node) for use in graph.value(row.name).uses()}
        axis = axes.pop() if len(axes) == 1 else None
        array = graph.constant(row.name)
        if axis is not None and array.ndim > 1:
            found += _outlier(row, _largest(array, axis), _WEIGHT_ADVICE)
    return found


_WEIGHT_ADVICE = (
    "Give each channel its own scale (weights per channel); where the target cannot, equalize the "
    "layers."
)

# -- activations -------------------------------------------------------------------------------


def _activation_axes(graph: ModelGraph, plan: Plan) -> dict[str, int]:
    """Activation with one scale -> axis of its channels; followers of another tensor are left
    out."""
    axes = {}
    for row in plan.tensors.values():
        if row.role is not Role.ACTIVATION or not _one_scale(row) or row.tied_to is not None:
            continue
        value = graph.value(row.name)
        if value.producer() is None or value.shape is None or len(value.shape) < 2:
            continue
        if value.is_graph_output():
            continue  # classes, coordinates: nobody reads them as channels
        nodes = [use.node for use in value.uses()]
        maker = value.producer()
        nodes += [maker] if maker is not None else []
        last = any(node.op_type in _LAST_AXIS_OPS for node in nodes)
        if last or len(value.shape) > 3 or any(n.op_type in _CONVOLUTIONS for n in nodes):
            axes[row.name] = len(value.shape) - 1 if last else 1
    return axes


def _activation_ranges(
    graph: ModelGraph,
    axes: Mapping[str, int],
    data: Dataset,
    batch_size: int,
    emit: Emit,
    cancel: CancelToken,
) -> dict[str, Ranges]:
    ranges: dict[str, Ranges] = {}
    if not axes:
        return ranges
    names = list(axes)
    reader = BudgetedReader(float_session(graph, names), names)
    done = 0
    for batch in data.batches(batch_size, cancel=cancel):
        for _, values in reader.read(batch.inputs):
            cancel.check()
            for name, array in values.items():
                if array.dtype != np.float32 or not array.size or array.ndim <= axes[name]:
                    continue
                reached = _largest(array, axes[name])
                known = ranges.get(name)
                if known is not None and known.shape != reached.shape:
                    reached = known  # a length that differs from sample to sample is no channel
                ranges[name] = reached if known is None else np.maximum(known, reached)
        done += len(batch)
        emit(Progress("Analysing", done, len(data), "ranges of channels"))
    return ranges


def _activation_advice(graph: ModelGraph, name: str) -> str:
    readers = {use.node.op_type for use in graph.value(name).uses()}
    if readers and readers <= _MATRIX_OPS:
        return "SmoothQuant moves the range of these channels into the weights behind."
    if readers & _CONVOLUTIONS:
        return "Equalize the layers (cross-layer equalization), or give this tensor more bits."
    return "Give this tensor more bits, or cut its range off with a percentile."
