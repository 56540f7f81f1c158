"""Rounding to a grid in torch, before scaling: in place, and fast on a CPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from studio.quant.grid import FloatGrid, Grid

_EXPONENT = 0x7F800000


def round_(steps: Tensor, grid: Grid | FloatGrid) -> Tensor:
    """Finite float32 `steps` rounded half to even to integers or to a format's numbers, in place.

    The numbers of a format are continued beyond its largest.
    """
    if isinstance(grid, Grid):
        return steps.round_()
    numbers = grid.numbers
    # A number's exponent bits alone are the power of two below it, and its spacing a fixed part.
    spacing = steps.view(torch.int32).bitwise_and(_EXPONENT).view(torch.float32)
    spacing.clamp_(min=2.0**numbers.smallest_exponent).mul_(2.0**-numbers.mantissa_bits)
    return steps.div_(spacing).round_().mul_(spacing)


def cast_dtype(grid: Grid | FloatGrid) -> torch.dtype | None:
    """The torch type to which unscaled numbers are cast: float16 or bfloat16."""
    if isinstance(grid, Grid) or grid.scaled:
        return None
    return torch.float16 if grid.format == "float16" else torch.bfloat16


@cache
def bounds(grid: Grid | FloatGrid) -> tuple[float, float]:
    """The lowest and the highest number on the grid."""
    if isinstance(grid, Grid):
        return float(grid.qmin), float(grid.qmax)
    return -grid.numbers.largest, grid.numbers.largest
