"""Softmax over the last axis is one operator, also when it comes from an old opset."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import (
    absorb,
    input_of,
    int_attribute,
    is_op,
    only_consumer,
    replace_node,
)
from studio.graph.model import Change
from studio.graph.scopes import title


def restore_softmax(model: ir.Model) -> list[Change]:
    """Reshape(Softmax(Flatten(x)), shape of x) becomes Softmax(x) over the last axis.

    Before opset 13 Softmax worked on matrices; conversion spells that out. The two are the same if
    the Flatten keeps exactly the last axis.
    """
    changes = []
    for softmax in list(model.graph):
        if not is_op(softmax, "Softmax", "LogSoftmax") or softmax.inputs[0] is None:
            continue
        flatten = softmax.inputs[0].producer()
        reshape = only_consumer(softmax.outputs[0])
        if flatten is None or reshape is None or not is_op(flatten, "Flatten"):
            continue
        source = input_of(flatten, 0)
        if source is None or source.shape is None or not _undoes(reshape, flatten, source):
            continue
        rank = len(source.shape)
        last_only = int_attribute(flatten, "axis", 1) in (rank - 1, -1)
        if not last_only or int_attribute(softmax, "axis", -1) not in (1, -1):
            continue
        detail = "Flatten, Softmax and Reshape became one Softmax over the last axis."
        changes.append(Change("restore softmax", title(softmax), detail))
        absorb(reshape, softmax.outputs[0])
        replace_node(softmax, softmax.op_type, [source], axis=-1)
    return changes


def _undoes(reshape: ir.Node, flatten: ir.Node, source: ir.Value) -> bool:
    """True if `reshape` gives its input the shape of `source`, what was there before `flatten`."""
    if not is_op(reshape, "Reshape") or only_consumer(flatten.outputs[0]) is None:
        return False
    target = input_of(reshape, 1)
    shape = target.producer() if target is not None else None
    if shape is None or not is_op(shape, "Shape") or shape.inputs[0] is not source:
        return False
    return not int_attribute(shape, "start", 0) and "end" not in shape.attributes
