"""What batch normalization says about the values that layers give and read.

A layer that a normalization was folded into gives, for each channel, values of mean beta and
standard deviation |gamma|; taken to be normally distributed, what an activation behind it gives has
a mean in closed form (Nagel et al. 2019, arXiv 1906.04721, section 4.2.1 and appendix C). Where
equalization has divided channels since, their moments are divided too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from studio.graph.additions import LIMITS, additions_of
from studio.graph.edit import array_of
from studio.graph.folded_norms import kept_norms, norm_moments
from studio.graph.model import ModelGraph
from studio.graph.open import prepare_again
from studio.ptq.links import Link, find_links
from studio.ptq.weighted import Weighted, weighted_layers


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each channel of a layer's output, (channels,) each."""

    mean: np.ndarray
    deviation: np.ndarray


def clipped_mean(
    mean: np.ndarray, deviation: np.ndarray, low: np.ndarray | float, high: np.ndarray | float
) -> np.ndarray:
    """E[min(max(x, low), high)] of normally distributed x; infinite limits limit nothing.

    Of ReLU (low 0, high infinite): mean Phi(mean / d) + d phi(mean / d).
    """
    from scipy.stats import norm

    spread = np.maximum(deviation, 1e-12)
    a, b = (np.asarray(low) - mean) / spread, (np.asarray(high) - mean) / spread
    inside = mean * (norm.cdf(b) - norm.cdf(a)) + spread * (norm.pdf(a) - norm.pdf(b))
    below = np.where(np.isfinite(low), np.nan_to_num(low, neginf=0.0) * norm.cdf(a), 0.0)
    above = np.where(np.isfinite(high), np.nan_to_num(high, posinf=0.0) * norm.sf(b), 0.0)
    return inside + below + above


def output_moments(graph: ModelGraph) -> dict[str, Moments]:
    """Moments of what layers give before their activation, by their node, as batch normalization
    tells; those only whose weights are as they were prepared, but for the scale of channels."""
    if graph.captured is None:
        return {}
    folded = _folded(graph)
    if not folded:
        return {}
    prepared = prepare_again(graph, graph.source.without)
    links, _ = find_links(graph)
    before = {link.second.name: link for link in links}
    scales: dict[str, np.ndarray] = {}
    found: dict[str, Moments] = {}
    for name, layer in weighted_layers(graph).items():
        if layer.weight not in prepared.initializers:
            continue
        link = before.get(name)
        read = None if link is None else scales.get(link.first.name)
        into = np.ones(layer.inputs) if read is None or link is None else link.spread(read)
        scale = _scale_since(layer, prepared.constant(layer.weight), graph, into)
        if scale is None:
            continue
        scales[name] = scale
        if layer.weight in folded:
            mean, deviation = folded[layer.weight]
            found[name] = Moments(mean / scale, deviation / scale)
    return found


def _folded(graph: ModelGraph) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of what the layer with each weight gives."""
    kept = {item.weight for item in kept_norms(graph)}
    return {weight: item for weight, item in norm_moments(graph).items() if weight in kept}


def _scale_since(
    layer: Weighted, prepared: np.ndarray, graph: ModelGraph, into: np.ndarray
) -> np.ndarray | None:
    """What each output channel was divided by since, where the inputs were multiplied with `into`;
    None if that is not all that happened to the weight."""
    old = layer.matrix(prepared) * layer.of_inputs(into)
    now = layer.matrix(graph.constant(layer.weight))
    norms = [np.sqrt(np.square(m).sum(axis=(2, 3))).reshape(-1) for m in (old, now)]
    dead = norms[1] == 0
    scale = np.where(dead, 1.0, norms[0] / np.where(dead, 1.0, norms[1]))
    largest = max(float(np.abs(old).max()), 1e-30)
    same = np.allclose(now * layer.of_outputs(scale), old, rtol=1e-3, atol=1e-5 * largest)
    return scale if same and (scale > 0).all() else None


def input_means(graph: ModelGraph) -> dict[str, np.ndarray]:
    """E[x] of each input channel of layers, by their node, where batch normalization tells it:
    nothing, a Relu, a Clip or limits lie before them, perhaps pooled by means."""
    moments = output_moments(graph)
    limits = additions_of(graph).clips
    found = {}
    for link in find_links(graph)[0]:
        known = moments.get(link.first.name)
        if known is None:
            continue
        mean = _behind(graph, link, known, limits)
        if mean is not None:
            found[link.second.name] = link.spread(mean)
    return found


def _behind(
    graph: ModelGraph,
    link: Link,
    known: Moments,
    limits: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> np.ndarray | None:
    """The mean behind what lies between both layers; None where that is not known."""
    low: np.ndarray | float = -np.inf
    high: np.ndarray | float = np.inf
    for name in link.nodes:
        node = graph.node(name)
        clip = node.metadata_props.get(LIMITS, "")
        if clip in limits:
            low, high = (array.reshape(-1).astype(np.float64) for array in limits[clip])
        elif node.op_type == "Relu":
            low = 0.0
        elif node.op_type == "Clip":
            bounds = [array_of(value) for value in (*node.inputs[1:3], None, None)[:2]]
            low = -np.inf if bounds[0] is None else float(bounds[0].reshape(()))
            high = np.inf if bounds[1] is None else float(bounds[1].reshape(()))
        elif node.op_type not in ("Identity", "Dropout", "GlobalAveragePool", "Flatten", "Reshape"):
            return None
    return clipped_mean(known.mean, known.deviation, low, high)
