"""Bias correction: the mean error that rounded weights make is taken off the biases.

(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, section 4.2.) The error of an output is E[y_rounded] - E[y] = sum (W_rounded - W) E[x].
Empirical (appendix D): both means are measured on samples, layer by layer in order, where the
layers before are rounded and corrected already. Analytic: E[x] follows from the batch normalization
of the layer that gives x, see `studio.ptq.norm_moments`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.correcting_walk import CorrectingWalk, Correction, OutputMoments
from studio.ptq.correction_options import BiasCorrectionOptions, Method
from studio.ptq.norm_moments import input_means
from studio.ptq.weighted import Weighted, weighted, with_biases
from studio.sim.plan import Layer
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Row, Samples

_WITHOUT = "it has no bias, and cannot get one"


def bias_correction(
    model: QuantizedModel,
    samples: Samples,
    options: BiasCorrectionOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with corrected biases; layers without one get it. Statistics and encodings stay: the
    corrected network has the means that were calibrated.

    Raises DataError without samples (not needed where all is analytic), CancelledError.
    """
    model, layers, left = _with_biases(model)
    means: Mapping[str, np.ndarray] = {}
    if options.method is not Method.EMPIRICAL:
        means = input_means(model.graph)
    rows: list[Row] = []
    constants: dict[str, np.ndarray] = {}
    if options.method is Method.ANALYTIC:
        for name, item in layers.items():
            cancel.check()
            if name in means:
                shift = analytic_shift(model, item, means[name])
                constants[item.bias] = _shifted(model, item, shift)
                rows.append(_row(model, item, "analytic", shift, None))
            else:
                left[name] = "no batch normalization tells what it reads"
    else:
        rows, constants = _walk(model, samples, options, layers, means, emit, cancel)
    names = {node: layer.name for layer in model.plan.layers for node in layer.nodes}
    rows += [Row(names[node], f"left: {reason}") for node, reason in left.items()]
    if not constants:
        return Outcome(
            model, "no layer has a bias to correct; nothing is changed", rows=tuple(rows)
        )
    after = model.changed(constants=constants, forget=frozenset(constants))
    summary = f"biases of {len(constants)} layers corrected"
    measure = "Mean error of the outputs relative to their spread, rms over channels"
    return Outcome(after, summary, measure, tuple(rows))


def _with_biases(
    model: QuantizedModel,
) -> tuple[QuantizedModel, dict[str, Weighted], dict[str, str]]:
    """`model` with a bias in every layer that can have one; the layers with rounded weights by
    their node, and why others are left."""
    heads = [_head(model, layer) for layer in model.plan.layers if layer.nodes]
    model = model.changed(
        graph=with_biases(model.graph, [item for item in heads if isinstance(item, Weighted)])
    )
    found, left = {}, {}
    for layer in model.plan.layers:
        item = _head(model, layer)
        if isinstance(item, Weighted) and item.bias:
            found[item.name] = item
        elif item:
            left[layer.nodes[0]] = item if isinstance(item, str) else _WITHOUT
    return model, found, left


def _head(model: QuantizedModel, layer: Layer) -> Weighted | str:
    """The layer with weights that `layer` begins with, if its weight is rounded."""
    if not layer.nodes:
        return ""
    item = weighted(model.graph.node(layer.nodes[0]))
    if isinstance(item, str):
        return item
    if item.weight not in model.encodings:
        return ""
    row = model.plan.tensors.get(item.bias)
    if row is not None and row.from_file:
        return "the model's file fixes its bias"
    return item


def analytic_shift(model: QuantizedModel, item: Weighted, mean: np.ndarray) -> np.ndarray:
    """What has to be added to the bias, (outputs,), where the layer reads values of `mean`
    (inputs,): -sum (W_rounded - W) E[x]."""
    weight = model.graph.constant(item.weight)
    rounded = model.encodings[item.weight].quantize_dequantize(weight)
    error = (item.matrix(rounded) - item.matrix(weight)).sum(axis=3)  # (groups, outputs, inputs)
    read = mean.reshape(item.groups, -1, 1)
    return -(error @ read).reshape(-1)


def _walk(
    model: QuantizedModel,
    samples: Samples,
    options: BiasCorrectionOptions,
    layers: Mapping[str, Weighted],
    means: Mapping[str, np.ndarray],
    emit: Emit,
    cancel: CancelToken,
) -> tuple[list[Row], dict[str, np.ndarray]]:
    emit(Progress("Bias correction", 0, len(model.plan.layers), "reading the samples"))
    walk = CorrectingWalk(model, samples, options.samples, cancel)
    rows, constants = [], {}
    for index, layer in enumerate(model.plan.layers):
        emit(Progress("Bias correction", index, len(model.plan.layers), layer.name))
        item = layers.get(layer.nodes[0]) if layer.nodes else None
        if item is None:
            walk.advance(layer, {})
            continue
        moments = walk.measure(layer, item)
        shift, how = moments.mean - moments.rounded_mean, "empirical"
        if item.name in means:
            shift, how = analytic_shift(model, item, means[item.name]), "analytic"
        walk.correct(layer, item, Correction(np.ones_like(shift), shift))
        constants[item.bias] = _shifted(model, item, shift)
        rows.append(_row(model, item, how, shift, moments))
    emit(Progress("Bias correction", len(model.plan.layers), len(model.plan.layers)))
    return rows, constants


def _shifted(model: QuantizedModel, item: Weighted, shift: np.ndarray) -> np.ndarray:
    bias = model.graph.constant(item.bias)
    return (bias + shift.reshape(bias.shape)).astype(bias.dtype)


def _row(
    model: QuantizedModel,
    item: Weighted,
    how: str,
    shift: np.ndarray,
    moments: OutputMoments | None,
) -> Row:
    """Before and after the correction, where the outputs were measured."""
    name = next(layer.name for layer in model.plan.layers if item.name in layer.nodes)
    if moments is None:
        return Row(name, how)
    error = moments.rounded_mean - moments.mean
    spread = np.maximum(moments.deviation, 1e-6 * moments.deviation.max() + 1e-30)

    def size(error: np.ndarray) -> float:
        return float(np.sqrt(np.square(error / spread).mean()))

    return Row(name, how, size(error), size(error + shift))
