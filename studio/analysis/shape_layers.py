"""Layers that are no part of the network's computing: they only work out sizes."""

from __future__ import annotations

from studio.graph.model import ModelGraph
from studio.graph.patterns import shape_arithmetic
from studio.sim.plan import Plan


def shape_layers(graph: ModelGraph, plan: Plan) -> frozenset[str]:
    """Names of the layers of `plan` that consist of shape arithmetic alone and are not quantized.

    They cost next to nothing: lists of layers and counts leave them out.
    """
    nodes = {node.name for node in shape_arithmetic(graph.ir.graph)}
    if not nodes:
        return frozenset()
    return frozenset(
        layer.name
        for layer in plan.layers
        if layer.nodes
        and nodes.issuperset(layer.nodes)
        and all(plan.tensors[name].spec is None for name in layer.outputs)
    )
