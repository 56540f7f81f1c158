"""Two operators in a row that regroup or convert: one does the work of both."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    bypass,
    can_bypass,
    input_of,
    int_attribute,
    is_op,
)
from studio.graph.model import Change
from studio.graph.prepare.channels import permutation
from studio.graph.scopes import title

RULE = "merge pairs"
# Types whose numbers the other types hold exactly.
EXACT = {
    ir.DataType.FLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.BFLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.FLOAT: {ir.DataType.DOUBLE},
    ir.DataType.INT32: {ir.DataType.INT64, ir.DataType.DOUBLE},
    ir.DataType.UINT8: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT},
    ir.DataType.INT8: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT},
    ir.DataType.BOOL: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT},
}


def merge_pairs(model: ir.Model) -> list[Change]:
    """Transpose, Reshape or Cast behind another of its kind; Squeeze of what Unsqueeze just added.

    The first stays where somebody else reads its result.
    """
    changes: list[Change] = []
    names: Names | None = None
    for node in list(model.graph):
        if not is_op(node, "Transpose", "Reshape", "Cast", "Squeeze"):
            continue
        middle = input_of(node, 0)
        first = middle.producer() if middle is not None else None
        source = input_of(first, 0) if first is not None else None
        if middle is None or first is None or source is None or first.graph is not node.graph:
            continue
        if names is None:
            names = Names(model.graph)
        name = title(node)
        detail = _merge(node, first, middle, source, names)
        if detail:
            changes.append(Change(RULE, name, detail))
    return changes


def _merge(node: ir.Node, first: ir.Node, middle: ir.Value, source: ir.Value, names: Names) -> str:
    """What was done; empty if nothing."""
    if is_op(node, "Transpose") and is_op(first, "Transpose"):
        inner, outer = permutation(first), permutation(node)
        if inner is None or outer is None:
            return ""
        perm = [inner[axis] for axis in outer]
        if perm == sorted(perm) and can_bypass(node, source):
            bypass(node, source)
            return f"Undoes {title(first)}; neither is needed here."
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
        node.replace_input_with(0, source)
        return f"Does the work of {title(first)} as well: the order is {perm}."
    if is_op(node, "Reshape") and is_op(first, "Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return _merge_reshape(node, first, middle, source, names)
    if is_op(node, "Cast") and is_op(first, "Cast"):
        if source.dtype is None or middle.dtype not in EXACT.get(source.dtype, ()):
            return ""
        node.replace_input_with(0, source)
        return f"Converts straight from {source.dtype.name}, without {title(first)}."
    if is_op(node, "Squeeze") and is_op(first, "Unsqueeze"):
        added, taken = array_of(input_of(first, 1)), array_of(input_of(node, 1))
        same = added is not None and taken is not None and added.tolist() == taken.tolist()
        if same and can_bypass(node, source):
            bypass(node, source)
            return f"Takes away what {title(first)} added; neither is needed here."
    return ""


def _merge_reshape(
    node: ir.Node, first: ir.Node, middle: ir.Value, source: ir.Value, names: Names
) -> str:
    target = array_of(input_of(node, 1))
    if target is None or int_attribute(node, "allowzero", 0) or middle.shape is None:
        return ""
    entries = [int(n) for n in target.ravel()]
    for axis, entry in enumerate(entries):
        if entry != 0:
            continue
        size = middle.shape[axis] if axis < len(middle.shape) else None
        if isinstance(size, int):
            entries[axis] = size
        elif not _copies(first, axis):
            return ""
    assert isinstance(node.graph, ir.Graph)
    if entries != target.tolist():
        name = names.fresh(f"{node.name}.shape")
        constant = add_constant(node.graph, name, np.array(entries, np.int64))
        node.replace_input_with(1, constant)
    node.replace_input_with(0, source)
    return f"Does the work of {title(first)} as well."


def _copies(first: ir.Node, axis: int) -> bool:
    """True if `first` leaves the axes up to `axis` as they are."""
    if is_op(first, "Flatten"):
        return axis == 0 and int_attribute(first, "axis", 1) == 1
    target = array_of(input_of(first, 1))
    if target is None:
        return False
    if is_op(first, "Reshape"):
        plain = not int_attribute(first, "allowzero", 0)
        return plain and target.size > axis and target.ravel()[axis] == 0
    return bool((target > axis).all())  # Squeeze, Unsqueeze of later axes
