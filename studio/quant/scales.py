"""The rules by which a range becomes a scale, and what a range must fulfil."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studio.quant.grid import FloatGrid, Grid

Range = npt.NDArray[np.float64]
"""Ends of ranges or scales: one per tensor, channel or block."""


def smallest_scale(grid: Grid | FloatGrid) -> float:
    """The scale of a degenerate range.

    Below it the integers of ordinary values would overflow (AIMET uses the same for integers). A
    power-of-two float format goes down to the lowest normal float32, one above e8m0's lowest.
    """
    if isinstance(grid, FloatGrid):
        return 2.0**-126 if grid.power_of_two else 2.0**-23
    return min(2.0**-23, 0.01 / grid.steps)


def next_power_of_two(values: Range) -> Range:
    """The smallest 2**k that is not below each of the positive `values`."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(1.0, exponent - (mantissa == 0.5))


def low_power_scale(
    scale: npt.NDArray[np.float32], bits: int, axis: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The scales of low-power blocks nearest to `scale`, and their integers (LPBQ).

    scale: per block along `axis`; the channels are the other axis of a matrix (see
    `Encoding.channel_axis`). integers = round(scale / channel scale), from 1 to 2**bits.
    (AIMET's GroupedBlockQuantizeDequantize, decompressed to 2 * bits.)
    """
    channel_axis = 0 if axis else 1
    others = tuple(i for i in range(scale.ndim) if i != channel_axis)
    channel_scale = scale.max(axis=others, keepdims=True) / np.float32(2**bits)
    integers = np.clip(np.rint(scale / channel_scale), 1, 2**bits).astype(np.int64)
    return integers.astype(np.float32) * channel_scale, integers


def integer_scale(low: Range, high: Range, grid: Grid) -> tuple[Range, Range | None]:
    """Scale that covers the range, and the zero point where it does not depend on the scale.

    low, high: of any one shape, low <= 0 <= high.
    """
    smallest = smallest_scale(grid)
    if not grid.symmetric:
        return np.maximum((high - low) / grid.steps, smallest), None
    middle = np.full(low.shape, float(grid.middle))
    scale = np.maximum(high / (grid.qmax - grid.middle), -low / (grid.middle - grid.qmin))
    if grid.unsigned_symmetric:
        positive = low == 0.0
        scale = np.where(positive, high / grid.steps, scale)
        middle = np.where(positive, float(grid.qmin), middle)
    return np.maximum(scale, smallest), middle


def float_scale(low: Range, high: Range, grid: FloatGrid) -> Range:
    """Scale that covers the range by the rule of `grid` (see `encoding_from_range`)."""
    peak = np.maximum(high, -low)
    if not grid.power_of_two:
        return np.maximum(peak / grid.numbers.largest, smallest_scale(grid))
    exponent = np.frexp(peak)[1] - 1 - grid.numbers.largest_exponent
    scale = np.where(peak > 0, np.ldexp(1.0, exponent), 0.0)
    return np.maximum(scale, smallest_scale(grid))


def to_float32(
    scale: Range, low: Range, high: Range, axis: int | None, block_size: int | None
) -> npt.NDArray[np.float32]:
    """`scale` in float32. Raises ValueError naming the range whose scale is beyond that."""
    wide = scale > np.finfo(np.float32).max
    if wide.any():
        raise ValueError(_message(wide, low, high, axis, block_size, "is too wide for float32"))
    return np.asarray(scale, dtype=np.float32)


def check_shapes(low: Range, high: Range, axis: int | None, block_size: int | None) -> None:
    """Raises ValueError if the ranges' shapes fit neither each other nor the granularity."""
    if low.shape != high.shape:
        raise ValueError(f"minimum and maximum differ in shape: {low.shape} and {high.shape}")
    if axis is None:
        fits = low.ndim == 0 and block_size is None
    elif block_size is None:
        fits = low.ndim == 1
    else:
        fits = 0 <= axis < low.ndim and block_size > 0
    if not fits:
        raise ValueError(
            f"ranges of shape {low.shape} do not fit axis {axis} and block size {block_size}"
        )


def check_range(low: Range, high: Range, axis: int | None, block_size: int | None) -> None:
    """Raises ValueError naming a range that is not finite or has its ends reversed."""
    for wrong, problem in (
        (~(np.isfinite(low) & np.isfinite(high)), "is not finite"),
        (low > high, "has its ends reversed"),
    ):
        if wrong.any():
            raise ValueError(_message(wrong, low, high, axis, block_size, problem))


def _message(
    wrong: npt.NDArray[np.bool_],
    low: Range,
    high: Range,
    axis: int | None,
    block_size: int | None,
    problem: str,
) -> str:
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    which = ""
    if block_size is not None:
        which = f" of block {first}"
    elif axis is not None:
        which = f" of channel {first[0]}"
    return f"the range{which} {problem}: {low[first]:g} to {high[first]:g}"
