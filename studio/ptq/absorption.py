"""High-bias absorption: what a channel nearly always exceeds moves into the next layer's bias.

(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, section 4.1.3.) With y of mean m and standard deviation d, c = max(0, m - 3 d) and a
ReLU behind it, ReLU(y) = ReLU(y - c) + c wherever y >= c: the first layer gives c less, the second
gets W c more, and the range between is smaller. Where y < c the float network changes: 0.135% of
normally distributed values. With nothing between both layers, c = m and nothing changes; upper
limits move by c, exactly. Zeros that the second layer pads with are no values of the first: such
pairs are left.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from studio.graph.additions import LIMITS, Additions, with_additions
from studio.graph.edit import array_of, input_of, int_attribute, ints_attribute
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit
from studio.ptq.channel_statistics import ChannelStatistics, channel_statistics
from studio.ptq.correction_options import AbsorptionOptions
from studio.ptq.equalization import limits, linked_layers
from studio.ptq.links import Link, find_links
from studio.ptq.norm_moments import Moments, output_moments
from studio.ptq.recalibration import BATCH, recalibrated
from studio.ptq.weight_quality import layer_names
from studio.ptq.weighted import with_biases
from studio.sim.quantized_model import QuantizedModel, with_constants
from studio.techniques.technique import Outcome, Row, Samples

_KEEPS = ("Dropout", "Flatten", "GlobalAveragePool", "Identity", "MaxPool", "Relu", "Reshape")
"""Operators that subtracting a number from a channel passes through."""


def absorption(
    model: QuantizedModel,
    samples: Samples,
    options: AbsorptionOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with high biases absorbed, calibrated anew. Raises DataError, CancelledError."""
    links, left = _usable(model)
    if not links:
        return Outcome(
            model,
            "no layers were found between which anything can be absorbed",
            rows=_left(model, left),
        )
    graph = with_biases(model.graph, linked_layers(links).values())
    wanted = {(link.first.name, link.second.name) for link in links}
    links = [link for link in find_links(graph)[0] if (link.first.name, link.second.name) in wanted]
    seen = _statistics(graph, links, samples, emit, cancel)
    known = output_moments(model.graph)
    amounts = {}
    for link in links:
        cancel.check()
        name = link.first.name
        amount = absorbed(graph, link, known.get(name), seen[link.first.output.name or ""], options)
        if amount.any():
            amounts[name] = amount
    if not amounts:
        text = "no channel is always high enough; nothing is changed"
        return Outcome(model, text, rows=_left(model, left))
    links = [link for link in links if link.first.name in amounts]
    changed, moved = moved_biases(graph, links, amounts)
    after = recalibrated(model, changed, moved, samples, emit, cancel)
    count = sum(int(np.count_nonzero(amount)) for amount in amounts.values())
    return Outcome(
        after,
        f"{count} channels of {len(links)} layers absorbed by the next layer",
        "Range of what the next layer reads",
        (*_rows(model, after, links, amounts), *_left(model, left)),
    )


def absorbed(
    graph: ModelGraph,
    link: Link,
    known: Moments | None,
    seen: ChannelStatistics,
    options: AbsorptionOptions,
) -> np.ndarray:
    """c of each channel: from batch normalization where `known`, else from what was `seen`."""
    mean, deviation = seen.mean, seen.deviation
    if known is not None:
        mean, deviation = known.mean, known.deviation
    if not link.nodes or not _bounded(graph, link):
        return mean.copy()
    amount = np.maximum(mean - options.deviations * deviation, 0.0)
    if options.exact:
        amount = np.minimum(amount, np.maximum(seen.minimum, 0.0))
    # An upper limit stays above 0.
    for upper in _upper(graph, link):
        amount = np.where(amount < upper, amount, 0.0)
    return amount


def moved_biases(
    graph: ModelGraph, links: list[Link], amounts: Mapping[str, np.ndarray]
) -> tuple[ModelGraph, set[str]]:
    """`graph` where each first layer gives `amounts` less and each second one makes up for it, and
    the names of constants and tensors with other values."""
    constants: dict[str, np.ndarray] = {}
    clips: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    moved: set[str] = set()

    def add(name: str, numbers: np.ndarray) -> None:
        before = constants.get(name, graph.constant(name))
        constants[name] = (before + numbers.reshape(before.shape)).astype(before.dtype)

    for link in links:
        amount = amounts[link.first.name]
        second = link.second
        matrix = second.matrix(graph.constant(second.weight)).sum(axis=3)
        read = link.spread(amount).reshape(second.groups, -1, 1)
        add(link.first.bias, -amount)
        add(second.bias, (matrix @ read).reshape(-1))
        for name, shape in link.clips.items():
            low, high = limits(graph, name)
            lower = low - amount if low < 0 else np.full_like(amount, low)
            clips[name] = lower.reshape(shape), (high - amount).reshape(shape)
        for name in link.nodes:
            node = graph.node(name)
            if LIMITS in node.metadata_props and node.op_type == "Min":
                upper = node.inputs[1]
                assert upper is not None
                add(upper.name or "", -amount)
            moved |= {value.name or "" for value in node.outputs}
        moved |= {link.first.node.outputs[0].name or "", link.first.output.name or ""}
    changed = with_constants(graph, constants)
    added = with_additions(changed, Additions(clips)) if clips else changed
    return added, moved | constants.keys()


def _bounded(graph: ModelGraph, link: Link) -> bool:
    """True if something between both layers is not linear."""
    kinds = {graph.node(name).op_type for name in link.nodes}
    return bool(kinds & {"Relu", "Clip", "Max", "Min"})


def _upper(graph: ModelGraph, link: Link) -> list[np.ndarray]:
    found = [np.full(link.channels, limits(graph, name)[1]) for name in link.clips]
    for name in link.nodes:
        node = graph.node(name)
        array = array_of(input_of(node, 1)) if node.op_type == "Min" else None
        if array is not None:
            found.append(array.reshape(-1).astype(np.float64))
    return found


def _usable(model: QuantizedModel) -> tuple[list[Link], dict[str, str]]:
    links, left = find_links(model.graph)
    usable = []
    for link in links:
        reason = _obstacle(model, link)
        if reason:
            left[link.first.name] = reason
        else:
            usable.append(link)
    return usable, left


def _obstacle(model: QuantizedModel, link: Link) -> str:
    """What keeps a number from moving from the first layer to the second; "" if nothing does."""
    for item in (link.first, link.second):
        if not item.bias and item.node.op_type == "MatMul":
            return f"{item.name} has no bias, and cannot get one"
    second = link.second.node
    if second.op_type == "ConvTranspose":
        return f"{second.name} reads positions unequally often"
    if any(ints_attribute(second, "pads") or ()):
        return f"{second.name} pads with zeros"
    for name in link.nodes:
        node = model.graph.node(name)
        mean = node.op_type == "AveragePool"
        if mean and any(ints_attribute(node, "pads") or ()):
            if int_attribute(node, "count_include_pad", 0):
                return f"{name} pads with zeros"
        elif node.op_type == "Clip":
            if limits(model.graph, name)[0] > 0:
                return f"{name} has a lower limit above 0"
        elif not mean and LIMITS not in node.metadata_props and node.op_type not in _KEEPS:
            return f"{node.op_type} {name} does not keep differences"
    names = {link.first.weight, link.second.weight, link.first.bias, link.second.bias, second.name}
    rows = [model.plan.tensors.get(name or "") for name in names]
    if any(row is not None and row.from_file for row in rows):
        return "the model's file fixes its encodings"
    return ""


def _statistics(
    graph: ModelGraph, links: list[Link], samples: Samples, emit: Emit, cancel: CancelToken
) -> dict[str, ChannelStatistics]:
    axes = {link.first.output.name or "": link.first.axis for link in links}
    data = samples.calibration
    feeds = (batch.inputs for batch in data.batches(samples.batch_size or BATCH, cancel=cancel))
    phase = "Measuring channels"
    return channel_statistics(graph, axes, feeds, len(data), phase, emit, cancel)


def _rows(
    before: QuantizedModel,
    after: QuantizedModel,
    links: list[Link],
    amounts: Mapping[str, np.ndarray],
) -> list[Row]:
    names = layer_names(before)

    def span(model: QuantizedModel, tensor: str) -> float | None:
        encoding = model.encodings.get(tensor)
        return None if encoding is None else float((encoding.maximum - encoding.minimum).max())

    return [
        Row(
            names[link.first.name],
            f"{np.count_nonzero(amounts[link.first.name])} of {link.channels} channels",
            span(before, link.second.source),
            span(after, link.second.source),
        )
        for link in links
    ]


def _left(model: QuantizedModel, left: Mapping[str, str]) -> tuple[Row, ...]:
    names = layer_names(model)
    return tuple(Row(names.get(name, name), f"left: {reason}") for name, reason in left.items())
