"""What encodings files hold, in one form for all versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid

UNSCALED = ("float16", "bfloat16")
"""Formats without a scale: the tensor is only converted."""


@dataclass(frozen=True, eq=False)
class StoredEncoding:
    """One tensor's encoding as a file states it: `real = (integer - zero_point) * scale`.

    grid: versions 0.6.1 and 1.0.0 do not say how integers are stored: symmetric ones are taken as
    signed, others as unsigned; 2.x does not say what is symmetric: signed integers with zero points
    0 are. scale: float64 as in the file, shape () per tensor, (channels,) per channel, the blocks'
    shape per block, or (n,) where the file lists n blocks without saying how they lie (`axis` is
    None then). zero_point: int64, same shape. axis: None where the file does not say.
    integer_scale: low-power blocks (LPBQ): int64 of scale's shape; `channel_scale` (channels,) is
    what they multiply, `decompressed_bits` the bits that the products with it fit into.
    parameter: True for weights, None where the file does not say.
    """

    name: str
    grid: Grid | FloatGrid
    scale: npt.NDArray[np.float64]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None
    block_size: int | None = None
    integer_scale: npt.NDArray[np.int64] | None = None
    channel_scale: npt.NDArray[np.float64] | None = None
    decompressed_bits: int | None = None
    parameter: bool | None = None

    @property
    def scaled(self) -> bool:
        """False for float16 and bfloat16, which have no scale."""
        return isinstance(self.grid, Grid) or self.grid.scaled

    @property
    def offset(self) -> npt.NDArray[np.int64]:
        """Versions 0.6.1 and 1.0.0: `real = (q + offset) * scale` with unsigned q."""
        assert isinstance(self.grid, Grid)
        return self.grid.qmin - self.zero_point


@dataclass(frozen=True, eq=False)
class EncodingsFile:
    """A whole file. `encodings` are in its order. `biases`: whether int32 biases are listed;
    versions before 2.0.0 leave them out, for their scale is input scale times weight scale."""

    version: str
    encodings: Mapping[str, StoredEncoding]
    producer: Mapping[str, Any] = field(default_factory=dict)
    excluded_layers: tuple[str, ...] = ()
    quantizer_args: Mapping[str, Any] | None = None
    name: str = ""

    @property
    def biases(self) -> bool:
        return self.version.startswith("2.")


def channel_axis(axis: int, rank: int) -> int:
    """The axis of the channels of a tensor with blocks along `axis`: the other one."""
    if rank < 2:
        return 0
    return 0 if axis else 1


def stored(name: str, encoding: Encoding, parameter: bool | None) -> StoredEncoding:
    """`encoding` of the tensor `name` in the form of files."""
    scale, zero_point = encoding.scale.astype(np.float64), encoding.zero_point
    if encoding.block_size is None:
        return StoredEncoding(
            name, encoding.grid, scale, zero_point, encoding.axis, parameter=parameter
        )
    assert encoding.axis is not None
    keep = (encoding.axis, channel_axis(encoding.axis, scale.ndim))
    integers = None if encoding.integer_scale is None else _folded(encoding.integer_scale, keep)
    scale, zero_point = _folded(scale, keep), _folded(zero_point, keep)
    shape = np.broadcast_shapes(
        scale.shape, zero_point.shape, () if integers is None else integers.shape
    )
    scale, zero_point = np.broadcast_to(scale, shape), np.broadcast_to(zero_point, shape)
    of_channel = bits = None
    if integers is not None:
        integers = np.broadcast_to(integers, shape)
        of_channel = encoding.channel_scale.reshape(-1).astype(np.float64)
        bits = max(8, encoding.grid.bits + int(np.ceil(np.log2(max(int(integers.max()), 1)))))
    return StoredEncoding(
        name,
        encoding.grid,
        scale,
        zero_point,
        encoding.axis,
        encoding.block_size,
        integers,
        of_channel,
        bits,
        parameter,
    )


def _folded(array: np.ndarray, keep: tuple[int, ...]) -> np.ndarray:
    """`array` with size 1 along the axes other than `keep` on which nothing changes: blocks of a
    convolution that span its kernel."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if axis not in keep and (array == first).all():
            array = first
    return array
