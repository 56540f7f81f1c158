"""What ONNX says about an op's inputs: which are data, weights, biases; the axis of channels."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.model import is_constant

WEIGHT_SLOTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "Gather": 0}
"""Input that is a weight where it is a constant."""

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
    if op in ("Conv", "ConvTranspose", "Gemm"):
        return (0, 1)
    if op in ("ScatterND", "ScatterElements"):
        return (0, 2)
    return (0,) if node.inputs else ()


def weight(node: ir.Node) -> ir.Value | None:
    """The constant weight of a weighted op, else None."""
    slot = WEIGHT_SLOTS.get(node.op_type)
    if slot is None or slot >= len(node.inputs):
        return None
    value = node.inputs[slot]
    return value if is_constant(value) else None


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
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1 if _int(node, "group", 1) == 1 else None
        case "Gemm":
            return 0 if _int(node, "transB", 0) else 1
        case "MatMul":
            return 1 if rank == 2 else None
    return None


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()
