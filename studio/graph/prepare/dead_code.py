"""What no output depends on is removed."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from studio.graph.model import Change


def remove_dead_code(model: ir.Model) -> list[Change]:
    """Remove operators and constants that no output of the graph depends on."""
    removed: Counter[str] = Counter()
    graph = model.graph
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            removed[node.op_type] += 1
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(name)
    if not removed:
        return []
    what = ", ".join(f"{count} {op}" for op, count in sorted(removed.items()))
    return [Change("dead code", "", f"No output depends on these operators: {what}.")]
