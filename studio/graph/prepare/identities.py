"""Operators that change nothing are removed."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import array_of, bypass, can_bypass, input_of, int_attribute, is_op
from studio.graph.model import Change
from studio.graph.scopes import title


def remove_identities(model: ir.Model) -> list[Change]:
    """Identity, Dropout (at inference), Cast to the same type, Pad by nothing, Concat of one."""
    changes = []
    for node in list(model.graph):
        source = input_of(node, 0)
        reason = _reason(node)
        if source is None or not reason or not can_bypass(node, source):
            continue
        changes.append(
            Change("remove identities", title(node), f"{node.op_type} removed: {reason}.")
        )
        bypass(node, source)
    return changes


def _reason(node: ir.Node) -> str:
    """Why `node` changes nothing; empty if it does something."""
    if is_op(node, "Identity"):
        return "it hands its input on unchanged"
    if is_op(node, "Dropout") and not _trains(node):
        return "it does nothing at inference"
    if is_op(node, "Concat", "Sum", "Max", "Min", "Mean") and len(node.inputs) == 1:
        return "it has a single operand"
    source = input_of(node, 0)
    if is_op(node, "Cast") and source is not None and source.dtype is not None:
        return "the type is the same" if source.dtype == int_attribute(node, "to", 0) else ""
    if is_op(node, "CastLike") and source is not None and source.dtype is not None:
        like = input_of(node, 1)
        return "the type is the same" if like is not None and like.dtype == source.dtype else ""
    if is_op(node, "Pad"):
        pads = array_of(input_of(node, 1))
        return "it adds nothing" if pads is not None and not pads.any() else ""
    return ""


def _trains(node: ir.Node) -> bool:
    mode = input_of(node, 2)
    if mode is None:
        return False
    array = array_of(mode)
    return array is None or bool(array.any())
