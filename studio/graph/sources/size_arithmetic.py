"""Finds computations on sizes that keep preparation from merging what depends on them."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.model import is_constant

WHOLE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def size_arithmetic(model: ir.Model) -> str:
    """What the graph would compute from an open size of its input in a way that hurts; else empty.

    The padding of a convolution (it could not become the convolution's own), or numbers
    with a fraction (they would count as activations, and be quantized). Reshapes, slices,
    resizes to computed sizes and other padding do no harm.
    """
    derived: set[int] = set()  # ids of values that depend on sizes and constants alone
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in ("Shape", "Size"):
            if not is_constant(inputs[0]) and _open(node, inputs[0]):
                derived.update(id(value) for value in node.outputs)
            continue
        own = [value for value in inputs if id(value) in derived]
        if node.op_type == "Pad" and len(node.inputs) > 1 and id(node.inputs[1]) in derived:
            if all(user.op_type == "Conv" for user in node.outputs[0].consumers()):
                return "compute the padding of its convolutions"
            continue
        if not own or not all(id(value) in derived or _fixed(value) for value in inputs):
            continue
        if node.op_type == "Cast" and not _whole(node):
            return "compute fractions from its size"
        if node.op_type not in ("Expand", "ConstantOfShape", "Range"):
            derived.update(id(value) for value in node.outputs)
    return ""


def _open(node: ir.Node, value: ir.Value) -> bool:
    """True if the sizes that a Shape reads, other than the batch, are not all known."""
    if value.shape is None:
        return True
    start = node.attributes.get("start")
    end = node.attributes.get("end")
    sizes = list(value.shape)[
        0 if start is None else start.as_int() : None if end is None else end.as_int()
    ]
    return not all(isinstance(size, int) for size in sizes)


def _fixed(value: ir.Value) -> bool:
    producer = value.producer()
    return is_constant(value) or (producer is not None and producer.op_type == "Constant")


def _whole(node: ir.Node) -> bool:
    to = node.attributes.get("to")
    return to is None or ir.DataType(to.as_int()) in WHOLE
