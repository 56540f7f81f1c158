"""What rounding does to a weight, and which layer a node belongs to: for the rows of techniques."""

from __future__ import annotations

import math

import numpy as np

from studio.sim.quantized_model import QuantizedModel


def weight_sqnr(model: QuantizedModel, name: str) -> float | None:
    """Signal to noise of the rounded weight in dB; None if it stays float."""
    encoding = model.encodings.get(name)
    if encoding is None:
        return None
    weight = model.graph.constant(name).astype(np.float64)
    noise = np.square(encoding.quantize_dequantize(model.graph.constant(name)) - weight).sum()
    return 10 * math.log10(max(float(np.square(weight).sum()), 1e-30) / max(float(noise), 1e-30))


def layer_names(model: QuantizedModel) -> dict[str, str]:
    """The layer of every node, by its name."""
    return {node: layer.name for layer in model.plan.layers for node in layer.nodes}
