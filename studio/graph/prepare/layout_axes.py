"""Operators that work the same in any order of axes, once their own axes are renumbered.

A tensor v is to be held as v' with v = Transpose(v', perm): axis i of v is axis perm[i] of v'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    input_of,
    int_attribute,
    ints_attribute,
    is_op,
)
from studio.graph.prepare.channels import rank_of

Perm = tuple[int, ...]

ELEMENTWISE = frozenset([
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    "Where", "Xor",
])  # fmt: skip
ONE_OPERAND = frozenset(["Clip", "Cast"])  # the others are numbers, or nothing
AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "Concat": 0, "Split": 0,
        "ArgMax": 0, "ArgMin": 0, "LpNormalization": -1}  # fmt: skip
REDUCTIONS = frozenset([
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
])  # fmt: skip


def data_operands(node: ir.Node) -> list[int]:
    """Positions of the operands that are tensors of the layout in question."""
    if node.op_type in ELEMENTWISE - ONE_OPERAND or is_op(node, "Concat"):
        return [index for index, value in enumerate(node.inputs) if value is not None]
    return [0]


def works_in_any_order(node: ir.Node, rank: int) -> bool:
    """True if `renumber` can move `node`, whose results have `rank` axes."""
    if not node.inputs or any(rank_of(value) != rank for value in node.outputs if value.uses()):
        return False
    if any(value.is_graph_output() and rank_of(value) != rank for value in node.outputs):
        return False
    for index in data_operands(node):
        value = node.inputs[index]
        array = array_of(value)
        if value is None or (array is None and rank_of(value) != rank):
            return False
        if array is not None and (
            array.ndim > rank or (is_op(node, "Concat") and array.ndim != rank)
        ):
            return False
    return _renumbering(node, tuple(range(rank))) is not None


def renumber(node: ir.Node, perm: Perm, names: Names) -> None:
    """Let `node` work on tensors in the new order; its constant operands are moved along."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    apply = _renumbering(node, perm)
    assert apply is not None
    for index in data_operands(node):
        value = node.inputs[index]
        array = array_of(value)
        if value is None or array is None or array.size == 1:
            continue
        wide = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
        moved = np.ascontiguousarray(wide.transpose(np.argsort(perm)))
        name = names.fresh(f"{value.name}_moved")
        node.replace_input_with(index, add_constant(graph, name, moved))
    apply(names)


Apply = Callable[[Names], None]


def _renumbering(node: ir.Node, perm: Perm) -> Apply | None:
    """What changes the axes `node` names; None if it cannot be moved."""
    rank = len(perm)
    if is_op(node, *ELEMENTWISE):
        return lambda names: None
    if is_op(node, *AXIS):
        kept = int_attribute(node, "keepdims", 1)
        axis = int_attribute(node, "axis", AXIS[node.op_type])
        if not kept or not -rank <= axis < rank:
            return None
        return lambda names: _set_int(node, "axis", perm[axis % rank])
    if is_op(node, *REDUCTIONS):
        return _reduction(node, perm) if int_attribute(node, "keepdims", 1) else None
    if is_op(node, "Pad"):
        return _pad(node, perm)
    if is_op(node, "Slice"):
        return _slice(node, perm)
    if is_op(node, "Resize"):
        return _resize(node, perm)
    if is_op(node, "Tile"):
        return _by_axis(node, 1, perm)
    if is_op(node, "Gather"):
        index = input_of(node, 1)
        if index is None or rank_of(index) != 1:
            return None
        axis = int_attribute(node, "axis", 0) % rank
        return lambda names: _set_int(node, "axis", perm[axis])
    return None


def reduced_axes(node: ir.Node, rank: int) -> list[int] | None:
    """The axes a reduction or Squeeze names, all of them if none; None if unknown."""
    axes = ints_attribute(node, "axes")
    if input_of(node, 1) is not None:
        array = array_of(input_of(node, 1))
        if array is None:
            return None
        axes = [int(axis) for axis in array.ravel()]
    if not axes:
        empty = axes == [] and int_attribute(node, "noop_with_empty_axes", 0)
        return None if empty or is_op(node, "Squeeze") else list(range(rank))
    return [axis % rank for axis in axes]


def set_axes(node: ir.Node, axes: Sequence[int], names: Names) -> None:
    """Write `axes` where `node` has them: as an attribute or as operand 1."""
    if "axes" in node.attributes:
        node.attributes["axes"] = ir.AttrInt64s("axes", list(axes))
    else:
        _set_operand(node, 1, np.array(axes, np.int64), names)


def _reduction(node: ir.Node, perm: Perm) -> Apply | None:
    axes = reduced_axes(node, len(perm))
    if axes is None:
        return None
    if len(axes) == len(perm):
        return lambda names: None
    return lambda names: set_axes(node, sorted(perm[axis] for axis in axes), names)


def _pad(node: ir.Node, perm: Perm) -> Apply | None:
    rank, pads = len(perm), array_of(input_of(node, 1))
    if pads is None:
        return None
    axes = list(range(rank))
    if input_of(node, 3) is not None:
        array = array_of(input_of(node, 3))
        if array is None:
            return None
        axes = [int(axis) % rank for axis in array.ravel()]
    if pads.size != 2 * len(axes):
        return None

    def apply(names: Names) -> None:
        full = np.zeros(2 * rank, np.int64)
        for index, axis in enumerate(axes):
            full[perm[axis]] = pads[index]
            full[rank + perm[axis]] = pads[len(axes) + index]
        _set_operand(node, 1, full, names)
        if input_of(node, 3) is not None:
            node.replace_input_with(3, None)

    return apply


def _slice(node: ir.Node, perm: Perm) -> Apply | None:
    rank, starts = len(perm), array_of(input_of(node, 1))
    if input_of(node, 3) is None:
        if starts is None:
            return None
        axes = list(range(starts.size))
    else:
        array = array_of(input_of(node, 3))
        if array is None:
            return None
        axes = [int(axis) % rank for axis in array.ravel()]

    def apply(names: Names) -> None:
        if len(node.inputs) < 4:
            node.resize_inputs(4)
        _set_operand(node, 3, np.array([perm[axis] for axis in axes], np.int64), names)

    return apply


def _resize(node: ir.Node, perm: Perm) -> Apply | None:
    if "axes" in node.attributes:
        axes = [axis % len(perm) for axis in ints_attribute(node, "axes") or []]
        if input_of(node, 1) is not None and array_of(input_of(node, 1)) is None:
            return None
        numbers = ir.AttrInt64s("axes", [perm[axis] for axis in axes])
        return lambda names: node.attributes.update({"axes": numbers})
    roi = array_of(input_of(node, 1))
    if input_of(node, 1) is not None and (roi is None or roi.size):
        return None
    slot = 2 if input_of(node, 2) is not None and input_of(node, 3) is None else 3
    scales = array_of(input_of(node, 2))
    if slot == 3 and input_of(node, 2) is not None and (scales is None or scales.size):
        return None
    return _by_axis(node, slot, perm)


def _by_axis(node: ir.Node, slot: int, perm: Perm) -> Apply | None:
    """Operand `slot` has one number for each axis."""
    array = array_of(input_of(node, slot))
    if array is None or array.size != len(perm):
        return None
    moved = array.ravel()[np.argsort(perm)]
    return lambda names: _set_operand(node, slot, moved, names)


def _set_int(node: ir.Node, name: str, number: int) -> None:
    node.attributes[name] = ir.AttrInt64(name, number)


def _set_operand(node: ir.Node, index: int, array: np.ndarray, names: Names) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name = names.fresh(f"{node.name}.operand{index}")
    node.replace_input_with(index, add_constant(graph, name, array))
