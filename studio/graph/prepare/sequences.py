"""Parts of a tensor taken from a sequence become a Split: sequences cannot be quantized."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    input_of,
    insert_before,
    int_attribute,
    is_op,
)
from studio.graph.model import Change
from studio.graph.scopes import title

RULE = "split sequences"


def split_sequences(model: ir.Model) -> list[Change]:
    """SplitToSequence whose parts are all taken by constant positions, as one Split.

    So torch.export writes `split` and `chunk` of a tensor with an open size.
    """
    changes: list[Change] = []
    names: Names | None = None
    for node in list(model.graph):
        if not is_op(node, "SplitToSequence"):
            continue
        sizes, takers = _sizes(node), _takers(node)
        if not sizes or not takers:
            continue
        names = names or Names(model.graph)
        layer = title(node)
        _split(node, sizes, takers, names)
        detail = f"Parts of {', '.join(map(str, sizes))} are made by one Split, not as a sequence."
        changes.append(Change(RULE, layer, detail))
    return changes


def _sizes(node: ir.Node) -> list[int]:
    """Sizes of the parts; empty if they are not known."""
    source, given = node.inputs[0], input_of(node, 1)
    axis = int_attribute(node, "axis", 0)
    size = None if source is None or source.shape is None else source.shape[axis]
    if given is None:
        return [1] * size if isinstance(size, int) else []
    parts = array_of(given)
    if parts is None:
        return []
    if parts.ndim:
        return [int(part) for part in parts]
    if not isinstance(size, int) or parts < 1:
        return []
    step = int(parts)
    return [min(step, size - start) for start in range(0, size, step)]


def _takers(node: ir.Node) -> list[tuple[ir.Node, int]]:
    """The SequenceAt operators that read the parts, and which; empty if anything else reads."""
    takers: list[tuple[ir.Node, int]] = []
    sequence = node.outputs[0]
    if sequence.is_graph_output():
        return []
    for use in sequence.uses():
        position = array_of(input_of(use.node, 1)) if is_op(use.node, "SequenceAt") else None
        if position is None or use.node.graph is not node.graph:
            return []
        takers.append((use.node, int(position)))
    leaving = [place for taker, place in takers if taker.outputs[0].is_graph_output()]
    # One part under two names cannot leave the graph.
    return takers if len(set(leaving)) == len(leaving) else []


def _split(
    node: ir.Node, sizes: list[int], takers: list[tuple[ir.Node, int]], names: Names
) -> None:
    """Put a Split in the place of `node`; each taker's name stays on what it took."""
    graph, source = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph)
    assert source is not None
    axis = int_attribute(node, "axis", 0)
    squeezed = len(node.inputs) < 2 and not int_attribute(node, "keepdims", 1)
    split = add_constant(graph, names.fresh(f"{node.name}.split"), np.array(sizes, np.int64))
    new = ir.Node(
        "",
        "Split",
        [source, split],
        ir.convenience.convert_attributes({"axis": axis}),
        num_outputs=len(sizes),
        name=names.fresh(f"{title(node)}.Split"),
        metadata_props=dict(node.metadata_props),
    )
    for part, size in zip(new.outputs, sizes, strict=True):
        part.name, part.type = names.fresh(f"{new.name}_output"), source.type
        if source.shape is not None:
            shape = list(source.shape)
            shape[axis] = size
            part.shape = ir.Shape(shape)
    graph.insert_before(node, new)
    for taker, position in takers:
        part, taken = new.outputs[position], taker.outputs[0]
        if squeezed:
            axes = add_constant(graph, names.fresh(f"{taker.name}.axes"), np.array([axis]))
            part = insert_before(taker, "Squeeze", [part, axes], names)
            part.shape = taken.shape
        name = taken.name
        taken.replace_all_uses_with(part, replace_graph_outputs=True)
        graph.remove(taker, safe=True)
        if part.is_graph_output():
            part.name = name
    graph.remove(node, safe=True)
