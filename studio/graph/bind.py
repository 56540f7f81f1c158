"""Inputs with one fixed value become constants: a sampling rate, an attention mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from studio.errors import ModelError
from studio.graph.model import Change

RULE = "fixed inputs"


def bind_inputs(model: ir.Model, fixed: Mapping[str, object]) -> list[Change]:
    """Turn each input of `model` that `fixed` names into a constant of its value, in place.

    Values are numbers, or nested lists or arrays of them, converted to the input's type where that
    loses nothing; a single number serves shapes [] and [1]. Raises ModelError, before anything is
    changed, for a name that is no input, a value of another type or shape, or if no input is left.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    for name in fixed:
        if name not in inputs:
            known = ", ".join(repr(other) for other in inputs)
            raise ModelError(
                f"The model has no input {name!r} to fix.", f"Its inputs are: {known}."
            )
    if fixed and len(fixed) == len(inputs):
        raise ModelError(
            "All inputs of the model are fixed: nothing is left to feed.",
            "Leave the input with the data free.",
        )
    arrays = {name: _converted(inputs[name], given) for name, given in fixed.items()}
    changes = []
    for name, array in arrays.items():
        value = inputs[name]
        model.graph.inputs.remove(value)
        dtype = value.dtype or ir.DataType.from_numpy(array.dtype)
        value.const_value = ir.Tensor(array, dtype=dtype, name=name)
        value.shape = ir.Shape(array.shape)
        model.graph.register_initializer(value)
        shown = str(array.tolist()) if array.size <= 8 else f"a tensor of shape {array.shape}"
        changes.append(Change(RULE, name, f"This input always has the value {shown}."))
    return changes


def _converted(value: ir.Value, given: object) -> np.ndarray:
    name, dtype = value.name, value.dtype
    if dtype is None or dtype == ir.DataType.STRING or isinstance(value.type, ir.SequenceType):
        raise ModelError(
            f"The input {name!r} cannot be fixed: it does not hold numbers of a known type.",
            "Feed it with the data.",
        )
    try:
        array = np.asarray(given)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise ModelError(
            f"The value for the input {name!r} is not made of numbers.",
            "Give a number, or nested lists of numbers of equal length.",
        )
    with np.errstate(all="ignore"):
        converted = array.astype(dtype.numpy())
        kept = np.array_equal(converted.astype(np.float64), array.astype(np.float64))
    whole = array.dtype.kind != "f" and not (dtype.is_floating_point())
    exact = np.array_equal(converted.astype(object), array.astype(object)) if whole else kept
    if not exact and not (dtype.is_floating_point() and np.isfinite(converted).all()):
        raise ModelError(
            f"The value for the input {name!r} cannot be stored as {dtype.name.lower()}.",
            "Give a value of the input's type.",
        )
    return _shaped(value, converted)


def _shaped(value: ir.Value, array: np.ndarray) -> np.ndarray:
    if value.shape is None:
        return array
    sizes = list(value.shape)
    if array.ndim == 0 and len(sizes) == 1 and (not isinstance(sizes[0], int) or sizes[0] == 1):
        return array.reshape(1)
    fits = array.ndim == len(sizes) and all(
        not isinstance(size, int) or size == actual
        for size, actual in zip(sizes, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in sizes)
        raise ModelError(
            f"The value for the input {value.name!r} has shape {list(array.shape)}, "
            f"the model takes [{wanted}].",
            "Give a value of the input's shape.",
        )
    return array
