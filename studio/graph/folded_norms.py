"""Batch normalization that preparation has folded into layers, as it was before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studio.graph.edit import array_of, float_attribute
from studio.graph.model import ModelGraph
from studio.graph.open import prepare_again
from studio.graph.prepare.batch_norm import FOLD, SPLIT

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class KeptNorm:
    """A layer that BatchNormalization was folded into: names of its weight, bias and output, the
    axis of the weight along which its output channels lie."""

    weight: str
    bias: str
    output: str
    axis: int


def norm_moments(graph: ModelGraph) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation that each normalization right behind a layer gives its channels,
    beta and |gamma| sqrt(var / (var + epsilon)), float64 (channels,), by the layer's weight."""
    if graph.captured is None:
        return {}
    plain = prepare_again(graph, [*graph.source.without, FOLD, SPLIT])
    found = {}
    for node in plain.nodes():
        source = node.inputs[0] if node.op_type == "BatchNormalization" else None
        layer = source.producer() if source is not None and len(source.uses()) == 1 else None
        if layer is None or layer.op_type not in (*_LAYERS, "MatMul"):
            continue
        weight = layer.inputs[1] if len(layer.inputs) > 1 else None
        arrays = [array_of(value) for value in node.inputs[1:5]]
        if weight is None or not weight.name or any(array is None for array in arrays):
            continue
        gamma, beta, _, var = (np.asarray(array, np.float64) for array in arrays)
        whole = np.maximum(var + float_attribute(node, "epsilon", 1e-5), 1e-30)
        found[weight.name] = beta, np.abs(gamma) * np.sqrt(np.maximum(var, 0) / whole)
    return found


def kept_norms(graph: ModelGraph) -> list[KeptNorm]:
    """Layers of `graph` that preparation has folded a BatchNormalization behind them into."""
    folded = norm_moments(graph)
    found = []
    for node in graph.nodes():
        names = [value.name or "" if value is not None else "" for value in node.inputs]
        if node.op_type not in _LAYERS or len(names) < 3 or names[1] not in folded:
            continue
        weight, bias, output = names[1], names[2], node.outputs[0].name
        constants = graph.initializers
        alone = all(
            name in constants and len(list(constants[name].uses())) == 1 for name in (weight, bias)
        )
        axis = _output_axis(node.op_type, node.attributes)
        if alone and axis is not None and weight and bias and output:
            found.append(KeptNorm(weight, bias, output, axis))
    return found


def _output_axis(op_type: str, attributes: object) -> int | None:
    """None for grouped transposed convolutions, whose output channels lie along two axes."""

    def number(name: str, default: int) -> int:
        attribute = attributes.get(name)  # type: ignore[attr-defined]
        return default if attribute is None else attribute.as_int()

    if op_type == "ConvTranspose":
        return 1 if number("group", 1) == 1 else None
    if op_type == "Gemm":
        return 0 if number("transB", 0) else 1
    return 0
