"""An entry of a file made the encoding of a tensor, also where the file leaves things open."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from studio.exporting.encodings.stored import StoredEncoding, channel_axis
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.sim import op_rules
from studio.sim.plan import TensorPlan


class MisfitError(Exception):
    """Why an entry cannot be the encoding of a tensor, for people."""


def fitted(entry: StoredEncoding, graph: ModelGraph, row: TensorPlan) -> Encoding:
    """The encoding of the tensor of `row`; MisfitError if the entry has another number of scales.

    Where the file does not say how scales lie, the row's spec and the operator that reads the
    tensor do. The row's grid is taken where it holds the same numbers as the file's.
    """
    value = graph.value(row.name)
    if value.dtype is not None and not value.dtype.is_floating_point():
        raise MisfitError(f"the tensor holds {value.dtype.name.lower()}, not floating point")
    shape = _shape(value)
    axis, size = _place(entry, value, shape, row)
    scale, zero_point, integers = entry.scale, entry.zero_point, entry.integer_scale
    if size is not None:
        assert axis is not None
        assert shape is not None
        full = tuple(math.ceil(n / size) if i == axis else n for i, n in enumerate(shape))
        scale = _blocks(entry.scale, full, axis)
        zero_point = _blocks(entry.zero_point, full, axis)
        if integers is not None:
            integers = _blocks(integers, full, axis)
    elif axis is None:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    else:
        scale, zero_point = scale.reshape(-1), zero_point.reshape(-1)
    grid, zero_point = _grid(entry, zero_point, row)
    return Encoding(grid, scale.astype(np.float32), zero_point, axis, size, integers)


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    """Sizes of `value`, 0 where one is open."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else 0 for size in value.shape)


def _place(
    entry: StoredEncoding, value: ir.Value, shape: tuple[int, ...] | None, row: TensorPlan
) -> tuple[int | None, int | None]:
    """(axis, block size) of the entry's scales on the tensor."""
    count, planned = entry.scale.size, row.spec.axis if row.spec is not None else None
    if count == 1 and entry.block_size is None and shape is not None:
        axis = entry.axis if entry.axis is not None else planned
        single = axis is not None and -len(shape) <= axis < len(shape) and shape[axis] == 1
        per_channel = single and planned is not None
        return (axis % len(shape) if per_channel and axis is not None else None), None
    if count == 1 and entry.block_size is None:
        return None, None
    if shape is None:
        raise MisfitError(f"has {count} scales, and the shape of the tensor is not known")
    if entry.axis is not None:
        axis = entry.axis
        if not -len(shape) <= axis < len(shape):
            raise MisfitError(f"is along axis {axis} of a tensor of shape {list(shape)}")
        axis %= len(shape)
        if entry.block_size is None and shape[axis] != count:
            raise MisfitError(_count(count, f"{shape[axis]} channels on axis {axis}", shape))
        return axis, entry.block_size
    if entry.block_size is None and (found := _channels(count, value, shape, planned)) is not None:
        return found, None
    size = entry.block_size
    for axis in _block_axes(value, shape, row):
        for candidate in [size] if size is not None else _sizes(count, shape, axis, row):
            full = [math.ceil(n / candidate) if i == axis else n for i, n in enumerate(shape)]
            if count in (math.prod(full), full[axis] * shape[channel_axis(axis, len(shape))]):
                return axis, candidate
    what = f"blocks of {size}" if size is not None else "channels or blocks"
    raise MisfitError(_count(count, what, shape))


def _count(count: int, what: str, shape: tuple[int, ...]) -> str:
    return f"has {count} scales for {what}; the tensor has the shape {list(shape)}"


def _channels(
    count: int, value: ir.Value, shape: tuple[int, ...], planned: int | None
) -> int | None:
    """The axis that `count` scales lie along."""
    own = [op_rules.channel_axis(use.node) for use in value.uses() if use.idx == 1]
    candidates = [planned, *own, 0, *range(len(shape))]
    return next(
        (
            axis
            for axis in candidates
            if axis is not None and axis < len(shape) and shape[axis] == count
        ),
        None,
    )


def _block_axes(value: ir.Value, shape: tuple[int, ...], row: TensorPlan) -> list[int]:
    """Axes that blocks may lie along, the likeliest first: that of the input channels."""
    if len(shape) < 2:
        return []
    axes = [row.spec.axis] if row.spec is not None and row.spec.block_size else []
    own = [op_rules.channel_axis(use.node) for use in value.uses() if use.idx == 1]
    axes += [channel_axis(axis, len(shape)) for axis in own if axis is not None]
    return list(dict.fromkeys(axis for axis in [*axes, 1, 0] if axis is not None))


def _sizes(count: int, shape: tuple[int, ...], axis: int, row: TensorPlan) -> list[int]:
    """Block sizes that give `count` blocks, where a file does not say the size (0.6.1)."""
    if row.spec is not None and row.spec.block_size:
        return [row.spec.block_size]
    found = []
    for others in (shape[channel_axis(axis, len(shape))], math.prod(shape) // max(shape[axis], 1)):
        blocks, rest = divmod(count, others) if others else (0, 1)
        if not rest and blocks > 1 and shape[axis] % blocks == 0:
            found.append(shape[axis] // blocks)
    return found


def _blocks(array: np.ndarray, full: tuple[int, ...], axis: int) -> np.ndarray:
    """`array` as blocks of the shape `full`: flat, or with size 1 where nothing changes."""
    rank = len(full)
    narrow = tuple(n if i in (axis, channel_axis(axis, rank)) else 1 for i, n in enumerate(full))
    for shape in (full, narrow):
        if array.size == math.prod(shape) and (array.ndim == 1 or array.shape == shape):
            return np.broadcast_to(array.reshape(shape), full).copy()
    if array.ndim == 2 and array.size == math.prod(narrow):
        return np.broadcast_to(array.reshape(narrow), full).copy()
    raise MisfitError(
        f"has blocks of the shape {list(array.shape)}; the tensor has {list(full)} of them"
    )


def _grid(
    entry: StoredEncoding, zero_point: np.ndarray, row: TensorPlan
) -> tuple[Grid | FloatGrid, np.ndarray]:
    """The entry's grid and zero points, or the planned ones where they hold the same numbers."""
    grid, planned = entry.grid, row.spec.grid if row.spec is not None else None
    if isinstance(grid, FloatGrid):
        same = isinstance(planned, FloatGrid) and planned.format == grid.format
        return (planned if same and planned is not None else grid), zero_point
    if not isinstance(planned, Grid) or planned.bits != grid.bits:
        return grid, zero_point
    states_symmetry = entry.parameter is not None
    if states_symmetry and grid.symmetric != planned.symmetric:
        return grid, zero_point
    if states_symmetry and grid.strict != planned.strict:
        return grid, zero_point
    shift = planned.middle - grid.middle
    moved = zero_point + shift
    middle, lowest = (
        (moved == planned.middle).all(),
        (moved == planned.middle - 2 ** (planned.bits - 1)).all(),
    )
    if planned.symmetric and not (middle or (planned.unsigned_symmetric and lowest)):
        return grid, zero_point
    if planned.strict and not middle:
        return grid, zero_point
    return planned, moved
