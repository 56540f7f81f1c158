"""What ONNX says about an op's inputs: which are data, weights, biases; the axis of channels."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from studio.graph.model import is_constant

WEIGHT_SLOTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (1,),
    "Gather": (0,),
    "Einsum": (1, 0),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "FusedConv": (1,),
    "FusedGemm": (1,),
    "FusedMatMul": (1,),
    "BatchNormalization": (1,),
    "GroupNormalization": (1,),
    "InstanceNormalization": (1,),
    "LayerNormalization": (1,),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
}
"""Inputs that are weights where they are constants and the target says so: one of Einsum's, input
and recurrence weights of the recurrent operators."""

RECURRENT = frozenset(["LSTM", "GRU", "RNN"])

NORMALIZATIONS = frozenset(["GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"])
"""Kinds of recognised layers whose weight is a constant that one of their operators takes."""

NORMALIZATION_OPS = frozenset(
    [
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    ]
)

BIAS_SLOTS = {
    "Conv": 2,
    "ConvTranspose": 2,
    "Gemm": 2,
    "BatchNormalization": 2,
    "GroupNormalization": 2,
    "InstanceNormalization": 2,
    "LayerNormalization": 2,
}

_ALL_INPUTS_ARE_DATA = frozenset(
    ["Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Concat", "PRelu", "MatMul", "Einsum"]
)


def data_slots(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs that carry data (activations or constants used like them)."""
    op = node.op_type
    if op in _ALL_INPUTS_ARE_DATA:
        return tuple(range(len(node.inputs)))
    if op == "Where":
        return (1, 2)
    if op == "Attention" and node.domain in ("", "ai.onnx"):
        return (0, 1, 2)
    if op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        return (0, 1)
    if op in ("Conv", "ConvTranspose", "Gemm"):
        return (0, 1)
    if op in ("ScatterND", "ScatterElements"):
        return (0, 2)
    return (0,) if node.inputs else ()


def weights(node: ir.Node) -> tuple[ir.Value, ...]:
    """The constant weights of a weighted op."""
    slots = WEIGHT_SLOTS.get(node.op_type, ())
    values = [node.inputs[slot] for slot in slots if slot < len(node.inputs)]
    found = tuple(value for value in values if value is not None and is_constant(value))
    return found if node.op_type in RECURRENT else found[:1]


def spelled_out_weights(nodes: Sequence[ir.Node]) -> tuple[ir.Value, ...]:
    """What a normalisation made of several operators multiplies by: a constant of many values."""
    return _many(nodes, "Mul")[:1]


def spelled_out_bias(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """What such a normalisation adds."""
    return list(_many(nodes[-1:], "Add")[:1])


def _many(nodes: Sequence[ir.Node], op: str) -> tuple[ir.Value, ...]:
    return tuple(
        value
        for node in nodes
        if node.op_type == op
        for value in node.inputs
        if value is not None and is_constant(value) and value.const_value is not None
        if value.const_value.size > 1
    )


def weight(node: ir.Node) -> ir.Value | None:
    """The constant weight of a weighted op, the first if there are several, else None."""
    return next(iter(weights(node)), None)


def bias(node: ir.Node) -> ir.Value | None:
    """The constant bias of a weighted op, else None."""
    slot = BIAS_SLOTS.get(node.op_type)
    if slot is None or slot >= len(node.inputs):
        return None
    value = node.inputs[slot]
    return value if is_constant(value) else None


def channel_axis(node: ir.Node) -> int | None:
    """Axis of the weight that belongs to the output channels; None if no single axis does."""
    value = weight(node)
    assert value is not None and value.shape is not None
    rank = len(value.shape)
    match node.op_type:
        case "Conv" | "FusedConv":
            return 0
        case "ConvTranspose":
            return 1 if _int(node, "group", 1) == 1 else None
        case "Gemm" | "FusedGemm":
            return 0 if _int(node, "transB", 0) else 1
        case "MatMul":
            return 1 if rank == 2 else None
        case "Einsum":
            return _einsum_axis(node, value)
        case "LSTM" | "GRU" | "RNN":
            return 1  # (directions, gates x hidden, ...)
        case "PRelu":
            wide = [axis for axis, size in enumerate(value.shape) if size != 1]
            return wide[0] if len(wide) == 1 else None
    return None


def input_axis(node: ir.Node) -> int | None:
    """Axis of the weight that is summed over, where a block of it means one number for each output
    channel: matrices, and convolutions with a kernel of 1 x 1; else None."""
    value = weight(node)
    assert value is not None and value.shape is not None
    match node.op_type:
        case "Gemm" | "FusedGemm":
            return 1 if _int(node, "transB", 0) else 0
        case "MatMul" | "FusedMatMul":
            return 0 if len(value.shape) == 2 else None
        case "Conv" | "FusedConv":
            return 1 if all(size == 1 for size in list(value.shape)[2:]) else None
    return None


def _einsum_axis(node: ir.Node, weight: ir.Value) -> int | None:
    """The axis of `weight` whose letter reaches the result and is in no other operand."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    own = terms[[value is weight for value in node.inputs].index(True)]
    others = "".join(terms).replace(own, "", 1)
    if not arrow or "." in own:
        return None
    axes = [axis for axis, letter in enumerate(own) if letter in result and letter not in others]
    return axes[0] if len(axes) == 1 else None


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()
