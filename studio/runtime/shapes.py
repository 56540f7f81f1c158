"""The sizes tensors really have: measured by running one sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from studio.graph.model import ModelGraph
from studio.runtime.executor import Executor, Quantizer

Shape = tuple[int, ...]


def measured_shapes(
    graph: ModelGraph, inputs: Mapping[str, np.ndarray], names: Iterable[str]
) -> dict[str, Shape]:
    """Shapes of the values `names` when the model runs on `inputs` (one sample, by input name).

    Sizes that only data decide are found too, which no inference of shapes can do. Nothing is kept
    but the shapes. Raises ModelError where the model fails on the sample.
    """
    shapes: dict[str, Shape] = {}

    def recorder(name: str) -> Quantizer:
        def record(tensor: Tensor) -> Tensor:
            shapes[name] = tuple(tensor.shape)
            return tensor

        return record

    wanted = set(names)
    for name in wanted & set(graph.initializers):
        constant = graph.value(name).shape
        assert constant is not None
        shapes[name] = tuple(int(size) for size in constant.numpy())
    recorders = {name: recorder(name) for name in wanted - shapes.keys()}
    with torch.inference_mode():
        Executor(graph, quantize=recorders).run(inputs)
    return shapes
