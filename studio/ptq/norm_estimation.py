"""Batch norm re-estimation: channels of the rounded network get the mean and spread of the float
one.

Batch normalization whose statistics are estimated anew on the quantized network (Sun et al. 2019,
"Hybrid 8-bit Floating Point Training", NeurIPS; AIMET's BN re-estimation) gives y = gamma (z - m_q)
/ d_q + beta, where rounding has changed the mean and standard deviation m, d of the layer's sums z
to m_q, d_q. In a layer that it is folded into, that is

    W' = a W,  b' = a (b - mean_q) + mean,  a = deviation / deviation_q

with the moments of the layer's outputs in float and rounded. Factors go into the scales of weights,
so that no weight is rounded anew; where all channels share a scale only means can be adjusted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from studio.graph.folded_norms import kept_norms
from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.correcting_walk import CorrectingWalk, Correction, OutputMoments
from studio.ptq.correction_options import NormEstimationOptions
from studio.ptq.weighted import Weighted, weighted
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid
from studio.sim.plan import Layer
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Row, Samples

LARGEST_FACTOR = 2.0
"""A channel that rounding has all but switched off is not blown up further."""


def norm_estimation(
    model: QuantizedModel,
    samples: Samples,
    options: NormEstimationOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with the batch normalization in its layers estimated anew, one layer after the other.

    Raises DataError without samples, CancelledError.
    """
    layers = _layers(model)
    if not layers:
        return Outcome(model, "no layer holds a batch normalization; nothing is changed")
    every = [layer for layer in model.plan.layers if layer.nodes]
    emit(Progress("Batch norm re-estimation", 0, len(every), "reading the samples"))
    walk = CorrectingWalk(model, samples, options.samples, cancel)
    constants: dict[str, np.ndarray] = {}
    encodings: dict[str, Encoding] = {}
    rows = []
    for index, layer in enumerate(every):
        emit(Progress("Batch norm re-estimation", index, len(every), layer.name))
        item = layers.get(layer.name)
        if item is None:
            walk.advance(layer, {})
            continue
        moments = walk.measure(layer, item)
        encoding = model.encodings[item.weight]
        correction = _correction(moments, scale=options.scale and _by_channel(item, encoding))
        walk.correct(layer, item, correction)
        factor, shift = correction.factor, correction.shift
        bias = model.graph.constant(item.bias)
        changed = bias * factor.reshape(bias.shape) + shift.reshape(bias.shape)
        constants[item.bias] = changed.astype(bias.dtype)
        if (factor != 1).any():
            weight = model.graph.constant(item.weight)
            matrix = item.matrix(weight) * item.of_outputs(factor)
            constants[item.weight] = item.restored(matrix, weight.shape).astype(weight.dtype)
            scale = (encoding.scale * factor).astype(np.float32)
            encodings[item.weight] = replace(encoding, scale=scale)
        rows.append(_row(layer, item, moments, correction))
    emit(Progress("Batch norm re-estimation", len(every), len(every)))
    after = model.changed(constants=constants, encodings=encodings)
    text = f"batch normalization in {len(rows)} layers estimated anew"
    if options.scale and len(encodings) < len(rows):
        text += f", in {len(rows) - len(encodings)} the mean alone (one scale for all channels)"
    measure = "Error of mean and spread of the outputs relative to the spread, rms over channels"
    return Outcome(after, text, measure, tuple(rows))


def _layers(model: QuantizedModel) -> dict[str, Weighted]:
    """Layers with rounded weights that begin with what a normalization was folded into, by name."""
    norms = {kept.weight for kept in kept_norms(model.graph)}
    found = {}
    for layer in model.plan.layers:
        item = weighted(model.graph.node(layer.nodes[0])) if layer.nodes else ""
        if isinstance(item, Weighted) and item.weight in norms and item.weight in model.encodings:
            row = model.plan.tensors[item.weight]
            if item.bias and not row.from_file:
                found[layer.name] = item
    return found


def _by_channel(item: Weighted, encoding: Encoding) -> bool:
    """True if every output channel has a scale of its own."""
    one_axis = encoding.axis is not None and encoding.block_size is None
    plain = one_axis and encoding.integer_scale is None and not isinstance(encoding.grid, FloatGrid)
    return plain and encoding.scale.size == item.outputs and not encoding.grid.power_of_two


def _correction(moments: OutputMoments, *, scale: bool) -> Correction:
    factor = np.ones_like(moments.mean)
    if scale:
        smallest = 1e-6 * max(float(moments.deviation.max()), 1e-30)
        alive = (moments.deviation > smallest) & (moments.rounded_deviation > smallest)
        factor[alive] = moments.deviation[alive] / moments.rounded_deviation[alive]
        factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return Correction(factor, moments.mean - factor * moments.rounded_mean)


def _row(layer: Layer, item: Weighted, moments: OutputMoments, correction: Correction) -> Row:
    spread = np.maximum(moments.deviation, 1e-6 * moments.deviation.max() + 1e-30)

    def error(factor: np.ndarray, shift: np.ndarray) -> float:
        mean = factor * moments.rounded_mean + shift - moments.mean
        deviation = factor * moments.rounded_deviation - moments.deviation
        return float(np.sqrt(((mean**2 + deviation**2) / spread**2).mean()))

    before = error(np.ones_like(spread), np.zeros_like(spread))
    return Row(layer.name, item.node.op_type, before, error(correction.factor, correction.shift))
