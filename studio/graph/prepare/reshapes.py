"""Shapes computed at run time from a tensor's own shape become constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, input_of, int_attribute, is_op
from studio.graph.model import Change
from studio.graph.prepare.shape_values import ShapeValues
from studio.graph.scopes import title


def simplify_reshapes(model: ir.Model) -> list[Change]:
    """Reshape(x, [size of x's axis 0, -1]) becomes Reshape(x, [0, -1]).

    Frees the graph of the Shape, Gather and Concat nodes that exporters put there for a dynamic
    batch. In a Reshape without `allowzero`, 0 copies the size of that axis of x.
    """
    changes, shapes, names = [], ShapeValues(model.graph), Names(model.graph)
    for node in model.graph:
        if not is_op(node, "Reshape"):
            continue
        data, target = node.inputs[0], input_of(node, 1)
        if data is None or target is None or target.const_value is not None:
            continue
        entries = shapes.entries(target)
        numbers = _own_shape(data, entries)
        if numbers is None or entries is None:
            continue
        if int_attribute(node, "allowzero", 0):
            if 0 in entries:  # a size of zero, literally
                continue
            node.attributes.pop("allowzero")
        constant = add_constant(model.graph, names.fresh(f"{node.name}.shape"), np.array(numbers))
        node.replace_input_with(1, constant)
        detail = f"Its target shape, computed from the input's shape, is the constant {numbers}."
        changes.append(Change("constant shapes", title(node), detail))
    return changes


def _own_shape(data: ir.Value, entries: tuple[object, ...] | None) -> list[int] | None:
    if entries is None or data.shape is None:
        return None
    numbers: list[int] = []
    for axis, entry in enumerate(entries):
        if isinstance(entry, int):
            numbers.append(entry)
        elif entry is not None and _same_size(data, axis, entry):
            numbers.append(0)
        else:
            numbers.append(-1)
    return numbers if numbers.count(-1) <= 1 else None


def _same_size(data: ir.Value, axis: int, entry: object) -> bool:
    """True if axis `axis` of `data` certainly has the size of the (tensor, axis) `entry`."""
    if entry == (data.name, axis):
        return True
    return axis == 0 and isinstance(entry, tuple) and entry[1] == 0 and _batch_flows(data, entry[0])


# These hand axis 0 of their first operand on as it is.
BATCH_OPS = {
    "Conv", "ConvTranspose", "BatchNormalization", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh",
    "HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Softplus", "Gelu", "Mish", "Swish",
    "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "Identity",
    "Dropout", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "DepthToSpace", "SpaceToDepth", "Cast", "Softmax", "LogSoftmax", "PRelu",
}  # fmt: skip


def _batch_flows(value: ir.Value, origin: str) -> bool:
    """True if axis 0 of `value` is axis 0 of the tensor `origin`, seen along first operands.

    Relies on the two symbolic sizes being named alike besides: a batch that one operator of
    the way broadcasts would have another name.
    """
    name = value.shape[0] if value.shape else None
    while value.name != origin:
        producer = value.producer()
        if producer is None or not producer.inputs or producer.inputs[0] is None:
            return False
        source = producer.inputs[0]
        if not _keeps_batch(producer) and not (
            source.shape and value.shape and _named(name) and source.shape[0] == name
        ):
            return False
        value = source
    return True


def _keeps_batch(node: ir.Node) -> bool:
    return is_op(node, *BATCH_OPS) or (
        is_op(node, "Flatten") and int_attribute(node, "axis", 1) == 1
    )


def _named(size: object) -> bool:
    return isinstance(size, ir.SymbolicDim) and (size.value or "").isidentifier()
