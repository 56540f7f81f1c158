"""Operators that change nothing are removed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    array_of,
    bypass,
    can_bypass,
    input_of,
    int_attribute,
    ints_attribute,
    is_op,
)
from studio.graph.model import Change
from studio.graph.prepare.channels import permutation, rank_of
from studio.graph.scopes import title

FAR = 2**31 - 1  # exporters write this, or more, for "to the end"
NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1}


def remove_identities(model: ir.Model) -> list[Change]:
    """Identity, Dropout at inference, and everything else that hands its input on as it is.

    That is: Cast to the same type, Reshape and Expand to the same shape, Slice of everything, Pad
    by nothing, Concat of one, Mul by 1, Add of 0, Transpose to the same order, pooling of single
    elements, Tile by 1, Resize by 1, Clip without bounds.
    """
    changes = []
    for node in list(model.graph):
        check = CHECKS.get(node.op_type)
        if check is None or not is_op(node, node.op_type):
            continue
        source, reason = _neutral(node) if node.op_type in NEUTRAL else (input_of(node, 0), "")
        reason = reason or check(node)
        if source is None or not reason or not can_bypass(node, source):
            continue
        changes.append(
            Change("remove identities", title(node), f"{node.op_type} removed: {reason}.")
        )
        bypass(node, source)
    return changes


def _always(node: ir.Node) -> str:
    return "it hands its input on unchanged"


def _never(node: ir.Node) -> str:
    return ""


def _dropout(node: ir.Node) -> str:
    mode = array_of(input_of(node, 2))
    trains = input_of(node, 2) is not None and (mode is None or bool(mode.any()))
    return "" if trains else "it does nothing at inference"


def _single(node: ir.Node) -> str:
    return "it has a single operand" if len(node.inputs) == 1 else ""


def _split(node: ir.Node) -> str:
    return "it makes a single part" if len(node.outputs) == 1 else ""


def _cast(node: ir.Node) -> str:
    source, like = input_of(node, 0), input_of(node, 1)
    if source is None or source.dtype is None:
        return ""
    if is_op(node, "CastLike"):
        same = like is not None and like.dtype == source.dtype
    else:
        same = source.dtype == int_attribute(node, "to", 0)
    return "the type is the same" if same else ""


def _pad(node: ir.Node) -> str:
    pads = array_of(input_of(node, 1))
    return "it adds nothing" if pads is not None and not pads.any() else ""


def _transpose(node: ir.Node) -> str:
    perm = permutation(node)
    return "the order is the same" if perm is not None and perm == sorted(perm) else ""


def _reshape(node: ir.Node) -> str:
    """A target whose entries are 0 (copy), the size itself, or, once, -1."""
    source, target = input_of(node, 0), array_of(input_of(node, 1))
    if source is None or source.shape is None or target is None or target.size != len(source.shape):
        return ""
    literal_zero = bool(int_attribute(node, "allowzero", 0))
    unsure = [
        int(entry)
        for entry, size in zip(target.ravel(), source.shape, strict=True)
        if entry != size and (entry != 0 or literal_zero)
    ]
    return "the shape is the same" if unsure in ([], [-1]) else ""


def _expand(node: ir.Node) -> str:
    source, target = input_of(node, 0), array_of(input_of(node, 1))
    if source is None or source.shape is None or target is None or target.size > len(source.shape):
        return ""
    sizes = list(source.shape)[len(source.shape) - target.size :]
    same = all(n in (1, size) for n, size in zip(target.tolist(), sizes, strict=True))
    return "the shape is the same" if same else ""


def _flatten(node: ir.Node) -> str:
    source = input_of(node, 0)
    matrix = source is not None and rank_of(source) == 2
    return "the shape is the same" if matrix and int_attribute(node, "axis", 1) == 1 else ""


def _axes_empty(node: ir.Node) -> str:
    axes = array_of(input_of(node, 1))
    return "it names no axis" if axes is not None and axes.size == 0 else ""


def _slice(node: ir.Node) -> str:
    source = input_of(node, 0)
    starts, ends, axes, steps = (array_of(input_of(node, index)) for index in (1, 2, 3, 4))
    if starts is None or ends is None or source is None or starts.any():
        return ""
    if input_of(node, 4) is not None and (steps is None or (steps != 1).any()):
        return ""
    if axes is None and input_of(node, 3) is not None:
        return ""
    numbers = range(ends.size) if axes is None else axes.ravel()
    for axis, end in zip(numbers, ends.ravel(), strict=True):
        size = None if source.shape is None else source.shape[int(axis)]
        if end < FAR and not (isinstance(size, int) and end >= size):
            return ""
    return "it takes everything"


def _tile(node: ir.Node) -> str:
    repeats = array_of(input_of(node, 1))
    return "it repeats once" if repeats is not None and (repeats == 1).all() else ""


def _resize(node: ir.Node) -> str:
    scales, source = array_of(input_of(node, 2)), input_of(node, 0)
    if scales is not None and scales.size and (scales == 1).all():
        mode = node.attributes.get("coordinate_transformation_mode")
        cropped = mode is not None and mode.as_string() == "tf_crop_and_resize"
        return "" if cropped else "the size is the same"
    sizes = array_of(input_of(node, 3))
    if sizes is None or source is None or source.shape is None or "axes" in node.attributes:
        return ""
    mode = node.attributes.get("coordinate_transformation_mode")
    plain = mode is None or mode.as_string() != "tf_crop_and_resize"
    return "the size is the same" if plain and sizes.tolist() == list(source.shape) else ""


def _pool(node: ir.Node) -> str:
    kernel = ints_attribute(node, "kernel_shape") or [2]
    moves = [ints_attribute(node, "strides") or [1], ints_attribute(node, "dilations") or [1]]
    auto = node.attributes.get("auto_pad")
    if any(ints_attribute(node, "pads") or []) or any(
        n != 1 for ns in (kernel, *moves) for n in ns
    ):
        return ""
    plain = auto is None or auto.as_string() in ("", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    return "it pools single elements" if plain else ""


def _clip(node: ir.Node) -> str:
    bounds = [input_of(node, 1), input_of(node, 2)]
    free = not ({"min", "max"} & set(node.attributes)) and bounds == [None, None]
    return "it has no bounds" if free else ""


def _neutral(node: ir.Node) -> tuple[ir.Value | None, str]:
    """The operand that comes out unchanged, if the other is a neutral constant."""
    number = NEUTRAL[node.op_type]
    for index in (0, 1) if node.op_type in ("Add", "Mul") else (0,):
        source, constant = node.inputs[index], array_of(node.inputs[1 - index])
        if source is None or constant is None or constant.size > 2**16:
            continue
        if (np.asarray(constant) == number).all() and _adds_no_size(constant, source):
            verb = {0: "adds 0", 1: "multiplies by 1"}[number] if node.op_type != "Pow" else "is x¹"
            return source, f"it {verb}"
    return None, ""


def _adds_no_size(constant: np.ndarray, source: ir.Value) -> bool:
    rank = rank_of(source)
    if constant.ndim == 0:
        return True
    if rank is None or source.shape is None or constant.ndim > rank:
        return False
    sizes = list(source.shape)[rank - constant.ndim :]
    return all(n in (1, size) for n, size in zip(constant.shape, sizes, strict=True))


CHECKS: dict[str, Callable[[ir.Node], str]] = {
    "Identity": _always,
    "Dropout": _dropout,
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _single),
    "Split": _split,
    "Cast": _cast,
    "CastLike": _cast,
    "Pad": _pad,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Squeeze": _axes_empty,
    "Unsqueeze": _axes_empty,
    "Slice": _slice,
    "Tile": _tile,
    "Resize": _resize,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Clip": _clip,
    **dict.fromkeys(NEUTRAL, _never),
}
