"""Cross-layer equalization: channels of neighbouring layers are scaled so that their weights have
equal ranges, and the float network stays what it was.

(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, section 4.1.) With r1 the range of the weights that give a channel and r2 of those that
read it, s = sqrt(r1 r2) / r2 divides the former and multiplies the latter (eq. 11); over chains of
layers, a convolution, a depthwise one and the next among them, until nothing changes. A Clip in
between gets its limits divided by s, channel by channel: max(0, min(x, 6)) / s is
max(0, min(x / s, 6 / s)) for every input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from studio.graph.additions import Additions, with_additions
from studio.graph.edit import array_of, input_of
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.channel_statistics import channel_statistics
from studio.ptq.correction_options import EqualizationOptions, Objective
from studio.ptq.links import Link, find_links
from studio.ptq.recalibration import BATCH, recalibrated
from studio.ptq.rounding_noise import RoundingNoise
from studio.ptq.weight_quality import layer_names, weight_sqnr
from studio.ptq.weighted import Weighted
from studio.sim.quantized_model import QuantizedModel, with_constants
from studio.techniques.technique import Outcome, Row, Samples

SWEEPS = 100
SETTLED = 1e-3
"""Equalization ends when no scale changes by more, relatively."""

LARGEST_SCALE = 1e4
"""Channels whose weights are all but zero are not blown up further."""

EXPONENTS = ((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5), (0.0, 0.25, 0.5))
"""Of the largest value, of the weights that give it and of those that read it, that are tried for
a link's scales where the expected error decides."""

SWEEPS_OF_ERROR = 4


def equalization(
    model: QuantizedModel,
    samples: Samples,
    options: EqualizationOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with equalized weights, calibrated anew. Raises DataError, CancelledError."""
    graph = model.graph
    links, left = _usable(model, options)
    if not links:
        rows = _left(model, left)
        return Outcome(model, "no layers to equalize were found; nothing is changed", rows=rows)
    emit(Progress("Equalization", 0, 1, f"{len(links)} pairs of layers"))
    layers = linked_layers(links)
    matrices = {n: item.matrix(graph.constant(item.weight)) for n, item in layers.items()}
    scales = equal_ranges(links, matrices, cancel)
    if options.objective is Objective.ERROR:
        noise = _noise(model, links, matrices, samples, emit, cancel)
        scales = least_noise(noise, scales, cancel)
    changed, moved = scaled(graph, links, scales)
    after = recalibrated(model, changed, moved, samples, emit, cancel)
    return Outcome(
        after,
        _summary(links, layers),
        "SQNR of the rounded weight, dB",
        (*_rows(model, after, layers), *_left(model, left)),
    )


def linked_layers(links: Sequence[Link]) -> dict[str, Weighted]:
    """Layers of `links` by the names of their nodes, in execution order of the links."""
    return {item.name: item for link in links for item in (link.first, link.second)}


def equal_ranges(
    links: Sequence[Link], matrices: Mapping[str, np.ndarray], cancel: CancelToken
) -> list[np.ndarray]:
    """The scales (channels,) of every link at which the ranges of both weights are equal, given all
    other links' (eq. 11, repeated until they settle)."""
    weights = {name: np.abs(matrix).max(axis=3) for name, matrix in matrices.items()}
    scales = [np.ones(link.channels) for link in links]
    for _ in range(SWEEPS):
        largest = 0.0
        for index, link in enumerate(links):
            cancel.check()
            first, second = weights[link.first.name], weights[link.second.name]
            gives = first.max(axis=2).reshape(-1)
            reads = second.max(axis=1).reshape(link.channels, link.repeat).max(axis=1)
            alive = (gives > 0) & (reads > 0)
            step = np.ones(link.channels)
            step[alive] = np.sqrt(gives[alive] / reads[alive])
            total = np.clip(scales[index] * step, 1 / LARGEST_SCALE, LARGEST_SCALE)
            step = total / scales[index]
            scales[index] = total
            weights[link.first.name] = first / step.reshape(link.first.groups, -1, 1)
            spread = link.spread(step).reshape(link.second.groups, 1, -1)
            weights[link.second.name] = weights[link.second.name] * spread
            largest = max(largest, float(np.abs(np.log(step)).max()))
        if largest < SETTLED:
            break
    return scales


def least_noise(
    noise: RoundingNoise, scales: Sequence[np.ndarray], cancel: CancelToken
) -> list[np.ndarray]:
    """Scales of less expected error than `scales`: for one link after the other the best among
    products of powers of the ranges, a^i r1^j / r2^k, as long as that brings anything."""
    found = [scale.copy() for scale in scales]
    for _ in range(SWEEPS_OF_ERROR):
        better = False
        for index in range(len(found)):
            cancel.check()
            gives, reads, values = map(_positive, noise.ranges(index, found))
            kept, least = found[index], noise.of_link(index, found) * (1 - SETTLED)
            for of_values, of_gives, of_reads in product(*EXPONENTS):
                scale = values**of_values * gives**of_gives / reads**of_reads
                found[index] = scale / np.exp(np.log(scale).mean())
                error = noise.of_link(index, found)
                if error < least:
                    kept, least, better = found[index], error, True
            found[index] = kept
        if not better:
            break
    return found


def scaled(
    graph: ModelGraph, links: Sequence[Link], scales: Sequence[np.ndarray]
) -> tuple[ModelGraph, set[str]]:
    """`graph` with the channels of `links` divided by `scales` and multiplied again, and the names
    of the constants and tensors that have other values now."""
    arrays = {item.weight: graph.constant(item.weight) for item in linked_layers(links).values()}
    matrices = {
        item.weight: item.matrix(arrays[item.weight]) for item in linked_layers(links).values()
    }
    constants: dict[str, np.ndarray] = {}
    clips: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    moved: set[str] = set()
    for link, scale in zip(links, scales, strict=True):
        first, second = link.first, link.second
        matrices[first.weight] = matrices[first.weight] / first.of_outputs(scale)
        matrices[second.weight] = matrices[second.weight] * second.of_inputs(link.spread(scale))
        for name, axis in link.constants.items():
            array = graph.constant(name)
            shape = [1] * array.ndim
            shape[axis] = -1
            numbers = link.spread(scale) if array.shape[axis] != link.channels else scale
            constants[name] = (array / numbers.reshape(shape)).astype(array.dtype)
        for name, limit_shape in link.clips.items():
            numbers = link.spread(scale) if np.prod(limit_shape) != link.channels else scale
            low, high = limits(graph, name)
            divided = numbers.reshape(limit_shape)
            clips[name] = low / divided, high / divided
        moved |= _values(graph, link)
    for item in linked_layers(links).values():
        array = arrays[item.weight]
        restored = item.restored(matrices[item.weight], array.shape)
        constants[item.weight] = np.ascontiguousarray(restored, array.dtype)
    changed = with_constants(graph, constants)
    added = with_additions(changed, Additions(clips)) if clips else changed
    return added, moved | constants.keys()


def limits(graph: ModelGraph, clip: str) -> tuple[float, float]:
    """The constant limits of a Clip, infinite where it has none."""
    low, high = (array_of(input_of(graph.node(clip), slot)) for slot in (1, 2))
    return (
        -np.inf if low is None else float(low.reshape(())),
        np.inf if high is None else float(high.reshape(())),
    )


def _values(graph: ModelGraph, link: Link) -> set[str]:
    """Tensors between both layers."""
    made = {link.first.node.outputs[0].name or "", link.first.output.name or ""}
    return made | {value.name or "" for name in link.nodes for value in graph.node(name).outputs}


def _usable(
    model: QuantizedModel, options: EqualizationOptions
) -> tuple[list[Link], dict[str, str]]:
    """Links that may be scaled, and why layers have none."""
    links, left = find_links(model.graph)
    usable = []
    for link in links:
        names = {link.first.weight, link.second.weight} | _values(model.graph, link)
        if link.clips and not options.clips:
            left[link.first.name] = f"Clip {next(iter(link.clips))} is left as it is"
        elif any(model.plan.tensors[name].from_file for name in names):
            left[link.first.name] = "the model's file fixes its encodings"
        else:
            usable.append(link)
    return usable, left


def _noise(
    model: QuantizedModel,
    links: Sequence[Link],
    matrices: Mapping[str, np.ndarray],
    samples: Samples,
    emit: Emit,
    cancel: CancelToken,
) -> RoundingNoise:
    axes: dict[str, int] = {}
    for item in linked_layers(links).values():
        axes |= {item.source: item.axis, item.output.name or "": item.axis}
    data = samples.calibration
    batches = data.batches(samples.batch_size or BATCH, cancel=cancel)
    feeds = (batch.inputs for batch in batches)
    phase = "Measuring channels"
    found = channel_statistics(model.graph, axes, feeds, len(data), phase, emit, cancel)
    return RoundingNoise(links, matrices, found, model.plan)


def _positive(numbers: np.ndarray) -> np.ndarray:
    return np.maximum(numbers, max(float(numbers.max()), 1e-30) / LARGEST_SCALE)


def _summary(links: Sequence[Link], layers: Mapping[str, Weighted]) -> str:
    clips = sum(len(link.clips) for link in links)
    text = f"{len(layers)} layers equalized over {len(links)} pairs"
    return text + (f", {clips} Clips with limits for each channel" if clips else "")


def _rows(
    before: QuantizedModel, after: QuantizedModel, layers: Mapping[str, Weighted]
) -> list[Row]:
    names = layer_names(before)
    return [
        Row(
            names.get(name, name),
            item.node.op_type,
            weight_sqnr(before, item.weight),
            weight_sqnr(after, item.weight),
        )
        for name, item in layers.items()
    ]


def _left(model: QuantizedModel, left: Mapping[str, str]) -> tuple[Row, ...]:
    names = layer_names(model)
    return tuple(
        Row(names.get(name, name), f"not linked to a next layer: {reason}")
        for name, reason in left.items()
    )
