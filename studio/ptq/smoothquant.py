"""SmoothQuant: what a linear layer finds hard to round in its input moves into its weight.

(Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", arXiv 2211.10438.) Input channel j is divided by s_j = max|X_j|^alpha /
max|W_j|^(1 - alpha) (eq. 4) and its weights are multiplied by s_j, so that the float network stays
what it was. The division goes into what makes the input (`upstream`), else a Mul is put before the
layer. Layers that read one tensor share s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.graph.additions import Additions, with_additions
from studio.graph.edit import array_of, is_op
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.linear_error import InputSample, LinearError, sample_inputs, stored_by_output
from studio.ptq.options import SmoothQuantOptions
from studio.ptq.recalibration import recalibrated
from studio.ptq.upstream import Upstream, upstream_of
from studio.ptq.weight_quality import layer_names
from studio.ptq.weighted import Weighted, weighted
from studio.sim.quantized_model import QuantizedModel, with_constants
from studio.sim.target import load_target
from studio.techniques.technique import Outcome, Row, Samples

SMALLEST = 1e-5
"""Channels below are as good as zero."""

ALPHAS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Group:
    """Linear layers that read the same tensor `source`; `upstream` is where it can be scaled, or
    why that is not possible."""

    source: str
    layers: tuple[Weighted, ...]
    upstream: Upstream | str


@dataclass(frozen=True)
class Smoothing:
    """What a group's input channels are divided by, float64 (channels,), and how it was found."""

    scale: np.ndarray
    words: str


def smoothquant(
    model: QuantizedModel,
    samples: Samples,
    options: SmoothQuantOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with smoothed inputs of its Gemm and MatMul layers, calibrated anew.

    Where no alpha brings anything the layer stays as it is. Raises DataError, CancelledError.
    """
    groups, rows = _groups(model)
    names = layer_names(model)
    if not groups:
        return Outcome(model, "no linear layer is to be smoothed; nothing is changed", "", rows)
    inputs = sample_inputs(model, [group.source for group in groups], samples, emit, cancel)
    insert = options.insert and load_target(model.config.target).export.format != "encodings"
    chosen: list[tuple[Group, Smoothing]] = []
    measured: list[Row] = []
    for index, group in enumerate(groups):
        cancel.check()
        emit(Progress("SmoothQuant", index, len(groups), names[group.layers[0].name]))
        error = LinearError(model, group.source, group.layers, inputs[group.source])
        where = _where(group, insert)
        smoothing = where and _smoothing(group, error, inputs[group.source], options, cancel)
        after = error.sqnr(smoothing.scale) if smoothing else {}
        if smoothing:
            chosen.append((group, smoothing))
        for layer, before in error.sqnr(None).items():
            words = f"{smoothing.words}, {where}" if smoothing else _why_not(group, where)
            measured.append(Row(names[layer], words, before, after.get(layer, before)))
    emit(Progress("SmoothQuant", len(groups), len(groups)))
    if not chosen:
        summary = "no linear layer gains from smoothing; nothing is changed"
        return Outcome(model, summary, "", (*measured, *rows))
    graph, moved = _smoothed(model.graph, chosen)
    after_model = recalibrated(model, graph, moved, samples, emit, cancel)
    return Outcome(
        after_model,
        _summary(chosen, measured),
        "SQNR of the layer's output, dB",
        (*measured, *rows),
    )


def _groups(model: QuantizedModel) -> tuple[list[Group], tuple[Row, ...]]:
    """What can be smoothed, in execution order, and rows of what cannot."""
    names = layer_names(model)
    readers: dict[str, list[Weighted]] = {}
    rows: list[Row] = []
    for node in model.graph.nodes():
        layer = weighted(node)
        if not is_op(node, "Gemm", "MatMul") or layer == "":
            continue
        label = names.get(node.name or "", node.name or "")
        if isinstance(layer, str):
            if array_of(node.inputs[1]) is not None:
                rows.append(Row(label, f"left: {layer}"))
            continue
        read = [model.plan.tensors[name] for name in (layer.weight, layer.source)]
        if any(row.from_file for row in read):
            rows.append(Row(label, "left: the model's file fixes its encodings"))
        else:
            readers.setdefault(layer.source, []).append(layer)
    groups = []
    for source, layers in readers.items():
        if any(model.plan.tensors[layer.weight].spec is not None for layer in layers):
            groups.append(Group(source, tuple(layers), _upstream(model.graph, source, layers)))
    return groups, tuple(rows)


def _upstream(graph: ModelGraph, source: str, layers: Sequence[Weighted]) -> Upstream | str:
    value = graph.value(source)
    ours = {layer.node for layer in layers}
    others = [use.node for use in value.uses() if use.node not in ours or use.idx != 0]
    if value.is_graph_output():
        return f"{source} leaves the model"
    if others:
        return f"{others[0].op_type} {others[0].name} reads {source} too"
    return upstream_of(value, layers[0].inputs)


def _where(group: Group, insert: bool) -> str:
    """Where the division goes, for people; "" if nowhere."""
    if isinstance(group.upstream, Upstream):
        return f"divided in {group.upstream.made_by}"
    return "divided by a Mul before it" if insert else ""


def _why_not(group: Group, where: str) -> str:
    if not where:
        return f"left: {group.upstream}, and no Mul is put before the layer"
    return "left: smoothing brings nothing"


def _smoothing(
    group: Group,
    error: LinearError,
    inputs: InputSample,
    options: SmoothQuantOptions,
    cancel: CancelToken,
) -> Smoothing | None:
    """The scales of the group; None where none is better."""
    values = np.maximum(inputs.largest, SMALLEST)
    weights = np.maximum(error.largest_weights(), SMALLEST)
    if not options.search:
        return Smoothing(scales(values, weights, options.alpha), f"alpha {options.alpha:g}")
    best, least = None, error.loss(None)
    for alpha in ALPHAS:
        cancel.check()
        scale = scales(values, weights, alpha)
        loss = error.loss(scale)
        if loss < least:
            best, least = Smoothing(scale, f"alpha {alpha:g}"), loss
    return best


def scales(values: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """s of eq. 4, from the largest absolute values of the input's channels and of their weights."""
    return np.maximum(values**alpha / weights ** (1 - alpha), SMALLEST)


def _smoothed(
    graph: ModelGraph, chosen: Sequence[tuple[Group, Smoothing]]
) -> tuple[ModelGraph, set[str]]:
    """`graph` with all inputs divided and weights multiplied, and the names of what has other
    values now."""
    arrays: dict[str, np.ndarray] = {}
    added: dict[str, np.ndarray] = {}
    moved: set[str] = set()

    def scale(name: str, factor: np.ndarray, axis: int) -> None:
        array = arrays.get(name)
        if array is None:
            array = graph.constant(name).astype(np.float64)
        shape = [1] * array.ndim
        shape[axis] = -1
        arrays[name] = array * factor.reshape(shape)

    for group, smoothing in chosen:
        for layer in group.layers:
            scale(layer.weight, smoothing.scale, 1 if stored_by_output(layer) else 0)
        if isinstance(group.upstream, Upstream):
            for constant in group.upstream.constants:
                factor = smoothing.scale if constant.divided else 1 / smoothing.scale
                scale(constant.name, factor, constant.axis)
            moved |= {group.source, *group.upstream.tensors}
        else:
            added |= {layer.name: 1 / smoothing.scale for layer in group.layers}
    constants = {name: array.astype(graph.constant(name).dtype) for name, array in arrays.items()}
    changed = with_constants(graph, constants)
    if added:
        changed = with_additions(changed, Additions(scales=added))
    return changed, moved | constants.keys()


def _summary(chosen: Sequence[tuple[Group, Smoothing]], rows: Sequence[Row]) -> str:
    layers = sum(len(group.layers) for group, _ in chosen)
    muls = sum(not isinstance(group.upstream, Upstream) for group, _ in chosen)
    gains = [row.after - row.before for row in rows if row.after is not None and row.before]
    mean = sum(gains) / max(len(gains), 1)
    text = f"{layers} linear layers smoothed, {mean:+.1f} dB SQNR of their outputs on average"
    return text + (f"; {muls} Mul operators added" if muls else "")
