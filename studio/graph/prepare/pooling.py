"""A mean over all spatial axes is global average pooling."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import array_of, input_of, int_attribute, ints_attribute, is_op, replace_node
from studio.graph.model import Change
from studio.graph.scopes import title


def recognise_pooling(model: ir.Model) -> list[Change]:
    """ReduceMean over every axis but batch and channel, sizes kept, becomes GlobalAveragePool.

    The two compute the same; runtimes have integer kernels for the latter.
    """
    changes = []
    for node in list(model.graph):
        source = input_of(node, 0)
        if not is_op(node, "ReduceMean") or source is None or source.shape is None:
            continue
        rank, axes = len(source.shape), _axes(node)
        if rank < 3 or axes is None or not int_attribute(node, "keepdims", 1):
            continue
        if sorted(axis % rank for axis in axes) != list(range(2, rank)):
            continue
        if _is_part_of_norm(node, source):
            continue
        detail = "ReduceMean over all spatial axes became GlobalAveragePool, which is the same."
        changes.append(Change("recognise pooling", title(node), detail))
        replace_node(node, "GlobalAveragePool", [source])
    return changes


def _is_part_of_norm(node: ir.Node, source: ir.Value) -> bool:
    """True for the mean or the variance of a normalisation: runtimes look for ReduceMean there."""
    readers = [use.node for use in node.outputs[0].uses()]
    return is_op(source.producer(), "Pow") or any(is_op(reader, "Sub") for reader in readers)


def _axes(node: ir.Node) -> list[int] | None:
    if input_of(node, 1) is None:
        return ints_attribute(node, "axes")
    array = array_of(input_of(node, 1))
    return None if array is None else [int(axis) for axis in array.ravel()]
