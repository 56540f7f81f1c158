"""What no output depends on is removed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    input_of,
    int_attribute,
    is_op,
)
from studio.graph.model import Change
from studio.graph.scopes import title
from studio.graph.subgraphs import clear_subgraphs

# From which of their results on an operator may leave them out.
OPTIONAL_RESULTS = {"LSTM": 0, "GRU": 0, "RNN": 0} | dict.fromkeys(
    ("MaxPool", "Dropout", "LayerNormalization"), 1
)


def remove_dead_code(model: ir.Model) -> list[Change]:
    """Remove operators and constants that no output of the graph depends on."""
    removed: Counter[str] = Counter()
    graph = model.graph
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            removed[node.op_type] += 1
            clear_subgraphs(node)
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(name)
    if not removed:
        return []
    what = ", ".join(f"{count} {op}" for op, count in sorted(removed.items()))
    return [Change("dead code", "", f"No output depends on these operators: {what}.")]


def remove_dead_results(model: ir.Model) -> list[Change]:
    """Results that nobody reads are not asked for; a Split with one reader becomes a Slice."""
    changes: list[Change] = []
    names: Names | None = None
    for node in list(model.graph):
        if len(node.outputs) < 2:
            continue
        wanted = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        if is_op(node, *OPTIONAL_RESULTS):
            optional = node.outputs[OPTIONAL_RESULTS[node.op_type] :]
            unread = [value for value in optional if value.name and value not in wanted]
            shown = ", ".join(str(value.name) for value in unread)
            for value in unread:
                value.name = ""
            if unread:
                detail = f"No longer asked for {shown}, which nobody reads."
                changes.append(Change("dead results", title(node), detail))
        elif is_op(node, "Split") and len(wanted) == 1:
            names = names or Names(model.graph)
            if _slice(node, wanted[0], names):
                detail = "Only one part of the Split is read: it is a Slice."
                changes.append(Change("dead results", title(node), detail))
    return changes


def _slice(split: ir.Node, wanted: ir.Value, names: Names) -> bool:
    """Put a Slice in the place of `split`; False if the sizes of its parts are not known."""
    graph, source, axis = split.graph, split.inputs[0], int_attribute(split, "axis", 0)
    assert isinstance(graph, ir.Graph)
    given, sizes = array_of(input_of(split, 1)), []
    for index, value in enumerate(split.outputs):
        size = None if value.shape is None else value.shape[axis]
        size = int(given[index]) if given is not None else size
        if not isinstance(size, int):
            return False
        sizes.append(size)
    position = list(split.outputs).index(wanted)
    start = sum(sizes[:position])
    operands = [
        add_constant(graph, names.fresh(f"{split.name}.{what}"), np.array([number], np.int64))
        for what, number in (("start", start), ("end", start + sizes[position]), ("axis", axis))
    ]
    new = ir.Node(
        "",
        "Slice",
        [source, *operands],
        num_outputs=1,
        name=split.name,
        metadata_props=dict(split.metadata_props),
    )
    result, name = new.outputs[0], wanted.name
    result.type, result.shape = wanted.type, wanted.shape
    wanted.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.insert_before(split, new)
    graph.remove(split, safe=True)
    result.name = name
    return True
