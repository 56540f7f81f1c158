"""Which nodes run as one kernel on a target."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant


def fused_groups(
    graph: ModelGraph, fusions: tuple[tuple[str, ...], ...]
) -> list[tuple[ir.Node, ...]]:
    """Every node of `graph` exactly once, in groups that match the longest fusion, ordered by head.

    A follower joins when it is the only reader of a result that is no graph output and all its
    other data operands are constants (so Conv + Add joins a bias, never a residual).
    """
    ordered = sorted(fusions, key=len, reverse=True)
    taken: set[ir.Node] = set()
    groups = []
    for node in graph.nodes():
        if node in taken:
            continue
        group = next(filter(None, (_match(node, ops, taken) for ops in ordered)), (node,))
        taken.update(group)
        groups.append(group)
    return groups


def _match(head: ir.Node, ops: tuple[str, ...], taken: set[ir.Node]) -> tuple[ir.Node, ...] | None:
    if head.op_type != ops[0] or head.domain not in ("", "ai.onnx"):
        return None
    group = [head]
    for op in ops[1:]:
        value = group[-1].outputs[0]
        uses = tuple(value.uses())
        if value.is_graph_output() or len(uses) != 1:
            return None
        follower = uses[0].node
        others = [
            operand for operand in follower.inputs if operand is not None and operand is not value
        ]
        if follower.op_type != op or follower in taken or not all(map(is_constant, others)):
            return None
        group.append(follower)
    return tuple(group)
