"""What each layer costs: multiply-accumulates, bit-operations, bytes of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from studio.graph.macs import MAC_OPS, node_macs
from studio.graph.model import ModelGraph, is_constant
from studio.graph.subgraphs import nodes_within, reads
from studio.sim.plan import Layer, Plan

FLOAT_BITS = 32

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer for one sample.

    macs: multiply-accumulates; None where a shape is unknown or they are in a branch or loop.
    bit_operations: MACs times the bits of both operands (32 for a float one), the usual proxy of
    energy and of area. float_bytes, quantized_bytes: its constants as float32 and at their planned
    bits, without scales.
    """

    layer: str
    macs: int | None
    bit_operations: int | None
    float_bytes: int
    quantized_bytes: int


def tensors_to_measure(graph: ModelGraph) -> set[str]:
    """Names of the values whose shapes `layer_costs` reads."""
    names: set[str] = set()
    for node in graph.nodes():
        if node.op_type in MAC_OPS:
            values = (*node.inputs, *node.outputs[:1])
            names |= {value.name for value in values if value is not None and value.name}
    return names


def layer_costs(graph: ModelGraph, plan: Plan, shapes: Shapes) -> tuple[LayerCost, ...]:
    """One cost a layer that has nodes, in the plan's order; a shared constant counts once."""
    counted: set[str] = set()
    return tuple(_cost(graph, plan, layer, shapes, counted) for layer in plan.layers if layer.nodes)


def _cost(
    graph: ModelGraph, plan: Plan, layer: Layer, shapes: Shapes, counted: set[str]
) -> LayerCost:
    macs: int | None = 0
    operations: int | None = 0
    exact = small = 0
    for node in map(graph.node, layer.nodes):
        if node.op_type in MAC_OPS:
            found = node_macs(node, lambda value: shapes.get(value.name or ""))
            macs = None if macs is None or found is None else macs + found
            if operations is not None:
                bits = _operand_bits(plan, node)
                operations = None if found is None else operations + found * bits
        elif any(inner.op_type in MAC_OPS for inner in nodes_within(node)):
            macs = operations = None  # how often a body runs, or which, only the data tell
        for value in reads(node):
            if value is None or not is_constant(value) or value.name in counted:
                continue
            counted.add(value.name or "")
            as_float, as_planned = _bytes(plan, value)
            exact += as_float
            small += as_planned
    return LayerCost(layer.name, macs, operations, exact, small)


def _operand_bits(plan: Plan, node: ir.Node) -> int:
    """Bits of the first operand times bits of the second."""
    product = 1
    for value in node.inputs[:2]:
        row = plan.tensors.get(value.name or "") if value is not None else None
        product *= FLOAT_BITS if row is None or row.spec is None else row.spec.grid.bits
    return product


def _bytes(plan: Plan, value: ir.Value) -> tuple[int, int]:
    """Bytes of a constant as it is, and at its planned bits."""
    tensor = value.const_value
    assert tensor is not None
    row = plan.tensors.get(value.name or "")
    if row is None or row.spec is None:
        return tensor.nbytes, tensor.nbytes
    return tensor.nbytes, (tensor.size * row.spec.grid.bits + 7) // 8
