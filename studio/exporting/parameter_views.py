"""Tensors that hold the numbers of one parameter of the source in another shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.graph.edit import array_of, ints_attribute, is_op
from studio.graph.model import ModelGraph

SAME_ELEMENTS = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that give the elements of a constant another shape, in the same order."""

Inverse = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class View:
    """A tensor of the captured graph that has the numbers of `parameter`, and the way back."""

    parameter: str
    back: Inverse


def parameter_views(captured: ModelGraph) -> dict[str, View]:
    """Every tensor of `captured` that is a floating-point parameter in another shape."""
    found: dict[str, View] = {}
    for name, value in captured.initializers.items():
        known = value.dtype is not None and value.dtype.is_floating_point()
        if known and value.const_value is not None:
            found[name] = View(name, lambda array: array)
    for node in captured.nodes():
        source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
        if source not in found or not node.outputs[0].name:
            continue
        view = found[source]
        if node.op_type in SAME_ELEMENTS:
            found[node.outputs[0].name] = View(view.parameter, _reshaped(captured, view))
        elif is_op(node, "Transpose"):
            found[node.outputs[0].name] = View(view.parameter, _transposed(node, view.back))
    return found


def _reshaped(captured: ModelGraph, view: View) -> Inverse:
    shape = captured.constant(view.parameter).shape

    def back(array: np.ndarray) -> np.ndarray:
        return array.reshape(shape)

    return back


def _transposed(node: ir.Node, back: Inverse) -> Inverse:
    permutation = ints_attribute(node, "perm")

    def inverse(array: np.ndarray) -> np.ndarray:
        order = permutation or list(reversed(range(array.ndim)))
        return back(np.transpose(array, np.argsort(order)))

    return inverse


def captured_numbers(
    captured: ModelGraph, name: str, views: Mapping[str, View]
) -> np.ndarray | None:
    """Numbers (float64) of the captured tensor `name`, a parameter or its transpose; else None."""
    own = captured.constant(views[name].parameter).astype(np.float64)
    producer = captured.value(name).producer()
    if producer is None:
        return own
    source = producer.inputs[0]
    if not is_op(producer, "Transpose") or source is None:
        return None
    if source.name != views[name].parameter:
        return None
    return np.transpose(own, ints_attribute(producer, "perm") or None)


def fill_of(value: ir.Value) -> float | None:
    """The one number that `value` is filled with, as torch's exporter computes what a module does
    not have (a bias, the weight of plain normalization); None if it is something else."""
    producer = value.producer()
    while producer is not None and producer.inputs:
        if not is_op(producer, "Expand", "CastLike", "Cast", "Identity"):
            return None
        first = producer.inputs[0]
        if first is None:
            return None
        array = array_of(first)
        if array is not None:
            return _single(array)
        producer = first.producer()
    if producer is None or not is_op(producer, "Constant"):
        return None
    (constant,) = producer.attributes.values()
    given = constant.value
    return _single(given.numpy() if constant.name == "value" else np.asarray(given))


def _single(array: np.ndarray) -> float | None:
    flat = array.reshape(-1)
    same = flat.size > 0 and array.dtype.kind in "fiu" and bool((flat == flat[0]).all())
    return float(flat[0]) if same else None
