"""The arithmetic of sizes: what open dimensions leave in a graph."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.model import Change, is_constant, is_float
from studio.graph.patterns import marks
from studio.graph.scopes import title
from studio.graph.subgraphs import reads

SIZE_SLOTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Inputs that say how large something is, where to cut it, or how often to do it."""

REASON = "computes a size, which has to be exact"


def shape_arithmetic(graph: ir.Graph) -> frozenset[ir.Node]:
    """Nodes whose results follow from the sizes of tensors alone and are read as sizes only: the
    Shape, Gather, Mul and Concat before a Reshape, say."""
    nodes = list(graph)
    derived: set[ir.Node] = set()
    for node in nodes:
        if node.op_type in ("Shape", "Size"):
            derived.add(node)
            continue
        read = [value for value in reads(node) if value is not None and not is_constant(value)]
        if read and all(value.producer() in derived for value in read):
            derived.add(node)
    if not derived:
        return frozenset()
    found: set[ir.Node] = set()
    for node in reversed(nodes):
        if node in derived and all(_is_size(value, found) for value in node.outputs):
            found.add(node)
    return frozenset(found)


def _is_size(value: ir.Value, found: set[ir.Node]) -> bool:
    """True if every reader takes `value` for a size, or is among those `found` to compute one."""
    if value.is_graph_output():
        return False
    return all(
        use.node in found or use.idx in SIZE_SLOTS.get(use.node.op_type, ()) for use in value.uses()
    )


class SizesRule:
    """Floating-point numbers that a size is computed from, as before a Resize, are not quantized: a
    size of 8 bits is a wrong size."""

    name = "recognise sizes"
    description = "Keep numbers that sizes are computed from exact."

    def run(self, model: ir.Model) -> list[Change]:
        """Mark anew; says which operators were not marked so before."""
        before = marks.clear_floats(model.graph, self.name)
        changes: list[Change] = []
        found = shape_arithmetic(model.graph)
        for node in model.graph if found else ():
            values = [value for value in node.outputs if value.dtype and is_float(value)]
            if node not in found or not values:
                continue
            for value in values:
                marks.leave_float(value, REASON, self.name)
            if not before.issuperset(values):
                changes.append(Change(self.name, title(node), f"{node.op_type} {REASON}."))
        return changes


SIZES = SizesRule()
