"""The simulation in torch: the float graph with fake-quantization at every quantized tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from studio.graph.model import ModelGraph
from studio.quant.affine import FakeQuantizer
from studio.quant.encoding import Encoding
from studio.runtime.executor import Executor
from studio.sim.plan import Plan


def simulating_executor(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    device: torch.device | str = "cpu",
) -> Executor:
    """An executor of `graph` that rounds every tensor `plan` quantizes to its encoding's grid."""
    quantize = {}
    for name in plan.quantized:
        encoding = encodings[name]
        rank = None
        if encoding.axis is not None:
            shape = graph.value(name).shape
            assert shape is not None
            rank = len(shape)
        quantize[name] = FakeQuantizer(encoding, rank, device)
    return Executor(graph, device=device, quantize=quantize)
