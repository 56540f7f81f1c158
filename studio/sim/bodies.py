"""The tensors of subgraphs: nothing inside an If, a Loop or a Scan is quantized."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.subgraphs import subgraphs
from studio.sim import op_rules
from studio.sim.plan import Role


def tensors_within(node: ir.Node) -> dict[str, Role]:
    """Every tensor that the subgraphs of `node` hold themselves, nested ones too, in order."""
    found: dict[str, Role] = {}
    for graph in subgraphs(node):
        for part in (graph, *graph.subgraphs()):
            found.update((value.name or "", Role.ACTIVATION) for value in part.inputs)
            found.update((name, Role.CONSTANT) for name in part.initializers)
            found.update(
                (value.name, Role.ACTIVATION)
                for inner in part
                for value in inner.outputs
                if value.name
            )
    return found


def reason_within(node: ir.Node) -> str:
    """Why a tensor inside `node` stays as it is."""
    return f"inside the {node.op_type} {node.name!r}, where nothing is quantized"


def role_of_constant(value: ir.Value) -> Role:
    """What a constant is for its readers, which may be in any graph."""
    nodes = [use.node for use in value.uses()]
    if any(value in op_rules.weights(node) for node in nodes):
        return Role.WEIGHT
    if any(value is op_rules.bias(node) for node in nodes):
        return Role.BIAS
    return Role.CONSTANT
