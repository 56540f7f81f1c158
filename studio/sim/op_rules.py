"""What ONNX says about an op's inputs: which are data, weights, biases; the axis of channels."""

from __future__ import annotations

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
}
"""Inputs that are weights where they are constants: one of Einsum's, input and recurrence weights
of the recurrent operators."""

RECURRENT = frozenset(["LSTM", "GRU", "RNN"])

BIAS_SLOTS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}

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
