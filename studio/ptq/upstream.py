"""Constants by which the channels of a tensor can be scaled where the tensor is made.

Channels lie along the last axis, as a linear layer reads them. Scaled are the weight and bias of a
normalisation, a constant that is multiplied or added, or the outputs of another linear layer; what
lies between keeps proportions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from studio.graph.edit import (
    array_of,
    input_of,
    int_attribute,
    ints_attribute,
    is_op,
    only_consumer,
)

_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_PROPORTIONAL = ("Dropout", "Identity", "LeakyRelu", "Relu")
_HEADS_APART = [0, 2, 1, 3]


@dataclass(frozen=True)
class Constant:
    """One that is multiplied with the numbers of the channels along `axis` (with `divided`, divided
    by them)."""

    name: str
    axis: int
    divided: bool = False


@dataclass
class Upstream:
    """constants: to scale. tensors: whose values are others then, besides the one scaled. made_by:
    the node that holds the first constant."""

    constants: list[Constant] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    made_by: str = ""


def upstream_of(value: ir.Value, channels: int) -> Upstream | str:
    """Where the last axis of `value`, of `channels`, can be scaled; or what prevents that. That
    all who read `value` want it scaled is for the caller to see to."""
    found = Upstream()
    reason = _follow(value, channels, found)
    return reason or found


def _follow(value: ir.Value, channels: int, found: Upstream) -> str:
    node = value.producer()
    if node is None:
        return f"{value.name} is an input of the model"
    used = [output for output in node.outputs if output.uses() or output.is_graph_output()]
    if used != [node.outputs[0]] or node.outputs[0] is not value:
        return f"{node.name} has several results"
    found.made_by = node.name or ""
    if node.op_type in _NORMALIZATIONS:
        return _normalization(node, value, channels, found)
    if is_op(node, "Mul", "Add", "Div"):
        return _elementwise(node, channels, found)
    if is_op(node, "MatMul", "Gemm") and array_of(node.inputs[1]) is not None:
        return _linear(node, channels, found)
    if is_op(node, *_PROPORTIONAL):
        return _through(node.inputs[0], channels, found)
    if is_op(node, "Reshape"):
        return _attention(node, channels, found)
    return f"{node.op_type} {node.name} does not keep proportions"


def _through(value: ir.Value | None, channels: int, found: Upstream) -> str:
    if value is None or value.is_graph_output() or only_consumer(value) is None:
        return f"{value.name if value else 'a tensor'} is read by others too"
    found.tensors.append(value.name or "")
    return _follow(value, channels, found)


def _normalization(node: ir.Node, value: ir.Value, channels: int, found: Upstream) -> str:
    rank = None if value.shape is None else len(value.shape)
    axis = int_attribute(node, "axis", -1)
    if axis != -1 and (rank is None or axis != rank - 1):
        return f"{node.name} normalises over several axes"
    weights = [input_of(node, 1), input_of(node, 2)]
    return _all_scaled(node, [item for item in weights if item is not None], channels, found)


def _elementwise(node: ir.Node, channels: int, found: Upstream) -> str:
    """A constant for each channel is scaled, for Add with the other operand; of a product of two
    tensors one is."""
    constants = [item for item in node.inputs if array_of(item) is not None]
    others = [item for item in node.inputs if array_of(item) is None]
    if is_op(node, "Div"):
        divisor = node.inputs[1]
        if constants != [divisor] or divisor is None:
            return f"{node.name} divides by what is no constant"
        return _all_scaled(node, [divisor], channels, found, divided=True)
    if is_op(node, "Mul") and len(others) == 2 and others[0] is not others[1]:
        return _factor(node, others, channels, found)
    if len(constants) != 1 or len(others) != 1:
        return f"{node.op_type} {node.name} joins tensors"
    constant = constants[0]
    assert constant is not None
    reason = _all_scaled(node, [constant], channels, found)
    if reason or is_op(node, "Mul"):
        return reason
    return _through(others[0], channels, found)


def _factor(node: ir.Node, operands: list[ir.Value | None], channels: int, found: Upstream) -> str:
    """One of two factors: of a gated layer the one that is not the gate."""
    sizes = {None if item is None or not item.shape else item.shape[-1] for item in operands}
    if sizes != {channels}:
        return f"{node.name} spreads an operand over the channels"
    for operand in operands:
        attempt = Upstream()
        if not _through(operand, channels, attempt):
            found.constants += attempt.constants
            found.tensors += attempt.tensors
            found.made_by = attempt.made_by
            return ""
    return f"no factor of {node.name} can be scaled"


def _linear(node: ir.Node, channels: int, found: Upstream) -> str:
    weight, bias = node.inputs[1], input_of(node, 2)
    assert weight is not None
    by_output = is_op(node, "Gemm") and bool(int_attribute(node, "transB", 0))
    array = array_of(weight)
    assert array is not None
    axis = 0 if by_output else array.ndim - 1
    if array.ndim != 2 or array.shape[axis] != channels or len(weight.uses()) != 1:
        return f"the weight of {node.name} is no matrix of its own"
    reason = "" if bias is None else _all_scaled(node, [bias], channels, found)
    found.constants.append(Constant(weight.name or "", axis))
    return reason


def _attention(node: ir.Node, channels: int, found: Upstream) -> str:
    """The linear layer that makes the values of an attention, whose heads `node` puts together."""
    reason = f"Reshape {node.name} does not put the heads of an attention together"
    joined = node.inputs[0]
    transpose = None if joined is None else joined.producer()
    if not is_op(transpose, "Transpose") or transpose is None:
        return reason
    product = None if transpose.inputs[0] is None else transpose.inputs[0].producer()
    if product is None or not is_op(product, "MatMul"):
        return reason
    apart = None if product.inputs[1] is None else product.inputs[1].producer()
    if apart is None or not is_op(apart, "Transpose"):
        return reason
    split = None if apart.inputs[0] is None else apart.inputs[0].producer()
    if split is None or not is_op(split, "Reshape"):
        return reason
    orders = [ints_attribute(item, "perm") for item in (transpose, apart)]
    shape, result = split.outputs[0].shape, node.outputs[0].shape
    heads = [] if shape is None else list(shape)[2:]
    if orders != [_HEADS_APART] * 2 or len(heads) != 2 or result is None or len(result) != 3:
        return reason
    if not all(isinstance(size, int) for size in heads) or heads[0] * heads[1] != channels:
        return reason
    steps = [joined, transpose.inputs[0], product.inputs[1], apart.inputs[0]]
    for value in steps:
        if value is None or only_consumer(value) is None:
            return f"{value.name if value else 'a tensor'} is read by others too"
        found.tensors.append(value.name or "")
    return _through(split.inputs[0], channels, found)


def _all_scaled(
    node: ir.Node, values: list[ir.Value], channels: int, found: Upstream, divided: bool = False
) -> str:
    """Take in constants that have a number for each channel."""
    for value in values:
        array = array_of(value)
        if array is None or not array.ndim or array.shape[-1] != channels:
            return f"{node.op_type} {node.name} has no constant for each channel"
        if len(value.uses()) != 1:
            return f"{value.name} is read by others too"
        found.constants.append(Constant(value.name or "", array.ndim - 1, divided))
    return ""
