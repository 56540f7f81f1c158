"""One number for each channel of a tensor, followed through operators that only regroup numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from studio.graph.edit import array_of, input_of, ints_attribute, is_op, only_consumer

REGROUPING = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift for each channel, float64 [channels], along `axis` of the tensor.

    `axis` None: one scale and shift [1] for the whole tensor.
    """

    scale: np.ndarray
    shift: np.ndarray
    axis: int | None

    def spread(self, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and shift [channels]; None if there are other channels."""
        if self.scale.size not in (1, channels):
            return None
        shape = (channels,)
        return np.broadcast_to(self.scale, shape), np.broadcast_to(self.shift, shape)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())


def along_one_axis(constant: np.ndarray, rank: int | None) -> tuple[np.ndarray, int | None] | None:
    """`constant` as (float64 [channels], axis) if, broadcast to `rank`, it varies along one axis.

    A single number has the axis None. None if it varies along several, or adds axes.
    """
    if rank is None or constant.ndim > rank:
        return None
    values = constant.astype(np.float64).reshape(-1)
    if constant.size == 1:
        return values, None
    long = [axis for axis, size in enumerate(constant.shape) if size != 1]
    if len(long) != 1:
        return None
    return values, long[0] + rank - constant.ndim


def backward(value: ir.Value, affine: Affine) -> Iterator[tuple[ir.Value, Affine]]:
    """`value`, then what it was before each regrouping, as far as its channels can be followed.

    Goes on only through tensors that nobody else reads.
    """
    while True:
        yield value, affine
        node = value.producer()
        if node is None or not is_op(node, *REGROUPING) or only_consumer(value) is None:
            return
        source = input_of(node, 0)
        moved = None if source is None else _across(node, value, source, affine, to_input=True)
        if source is None or moved is None:
            return
        value, affine = source, moved


def forward(value: ir.Value, affine: Affine) -> Iterator[tuple[ir.Value, Affine]]:
    """`value`, then what becomes of it in each regrouping, as far as its channels are followed."""
    while True:
        yield value, affine
        node = only_consumer(value)
        if node is None or not is_op(node, *REGROUPING) or node.inputs[0] is not value:
            return
        result = node.outputs[0]
        moved = _across(node, value, result, affine, to_input=False)
        if moved is None:
            return
        value, affine = result, moved


def rank_of(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def permutation(node: ir.Node) -> list[int] | None:
    """`perm` of a Transpose, written out; None if the rank is unknown."""
    perm = ints_attribute(node, "perm")
    source = input_of(node, 0)
    if perm is not None:
        return perm
    rank = None if source is None else rank_of(source)
    return None if rank is None else list(reversed(range(rank)))


def _across(
    node: ir.Node, origin: ir.Value, target: ir.Value, affine: Affine, *, to_input: bool
) -> Affine | None:
    """`affine` of `origin` as one of `target`, the tensor on the other side of `node`."""
    axis = affine.axis
    if axis is None or is_op(node, "Identity"):
        return affine
    if is_op(node, "Transpose"):
        perm = permutation(node)
        if perm is None:
            return None
        return replace(affine, axis=perm[axis] if to_input else perm.index(axis))
    if origin.shape is None or target.shape is None:
        return None
    if _same_up_to(node, origin.shape, target.shape, axis):
        return affine
    return _regrouped(affine, axis, list(origin.shape), list(target.shape))


def _same_up_to(node: ir.Node, origin: ir.Shape, target: ir.Shape, axis: int) -> bool:
    """True if `node`, a Reshape, certainly leaves all axes up to `axis` as they are."""
    numbers = array_of(input_of(node, 1)) if is_op(node, "Reshape") else None
    if numbers is None or len(origin) <= axis or len(target) <= axis or len(numbers) <= axis:
        return False
    copied = [int(n) == 0 for n in numbers]
    return all(
        copied[i] or (isinstance(origin[i], int) and origin[i] == target[i])
        for i in range(axis + 1)
    )


def _regrouped(
    affine: Affine, axis: int, origin: list[int | ir.SymbolicDim], target: list
) -> Affine | None:
    """The same numbers counted in another shape: what follows the channel must be known."""
    after = origin[axis + 1 :]
    if not all(isinstance(size, int) for size in after):
        return None
    trailing = math.prod(size for size in after if isinstance(size, int))
    block, behind = affine.scale.size * trailing, 1
    for index in reversed(range(len(target))):
        size = target[index]
        if not isinstance(size, int):
            return None
        if size * behind == block and trailing % behind == 0:
            times = trailing // behind
            return Affine(np.repeat(affine.scale, times), np.repeat(affine.shift, times), index)
        behind *= size
        if behind > block:
            return None
    return None
