"""The simulation in torch: the float graph with fake-quantization at every quantized tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from studio.graph.model import ModelGraph
from studio.quant.dynamic import DynamicFakeQuantizer
from studio.quant.encoding import Encoding
from studio.quant.fake_quantize import FakeQuantizer
from studio.runtime.executor import Executor, Quantizer
from studio.sim.plan import Plan


def simulating_executor(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    device: torch.device | str = "cpu",
) -> Executor:
    """An executor of `graph` that rounds every tensor `plan` quantizes to its encoding's grid, or
    to that of its own range where the plan says so; for the nodes that read it rounded alone."""
    quantize = quantizers(graph, plan, encodings, device)
    some = {
        name: row.read_by
        for name, row in plan.tensors.items()
        if row.read_by is not None and name in quantize
    }
    return Executor(graph, device=device, quantize=quantize, quantize_for=some)


def quantizers(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    device: torch.device | str = "cpu",
) -> dict[str, Quantizer]:
    """What rounds each tensor that `plan` quantizes, by its encoding or, where the plan says so, by
    its own range."""
    quantize: dict[str, Quantizer] = {}
    for name in plan.quantized:
        encoding = encodings[name]
        rank = None if encoding.axis is None else _rank(graph, name)
        quantize[name] = FakeQuantizer(encoding, rank, device)
    for name, row in plan.tensors.items():
        if row.dynamic:
            assert row.spec is not None
            axis = row.spec.axis
            rank = None if axis is None else _rank(graph, name)
            quantize[name] = DynamicFakeQuantizer(row.spec.grid, axis, row.spec.block_size, rank)
    return quantize


def _rank(graph: ModelGraph, name: str) -> int:
    shape = graph.value(name).shape
    assert shape is not None
    return len(shape)
