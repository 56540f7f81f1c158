"""Fake-quantization in torch: what the simulator and training run.

Equal to ONNX QuantizeLinear + DequantizeLinear bit for bit (-0 and 0 alike): divide by the scale
(multiplying by its reciprocal differs at ties), round half to even, saturate, multiply.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.quant.layout import Layout
from studio.quant.rounding import bounds, cast_dtype, round_

Bound = float | Tensor


def fake_quantize(
    x: Tensor, scale: Tensor, low: Bound, high: Bound, grid: Grid | FloatGrid
) -> Tensor:
    """float32 `x` rounded to multiples of `scale` from `low` to `high` (less the zero point).

    `scale` and tensor bounds broadcast to `x`. A new tensor; the gradient is 1 where the rounded
    value lies on the grid and 0 where it saturates. (Bengio et al. 2013, arXiv 1308.3432; clipped
    form of Jacob et al. 2018, arXiv 1712.05877.)
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _StraightThrough.apply(x, scale, low, high, grid)
    return _fake_quantize(x, scale, low, high, grid)


def _fake_quantize(
    x: Tensor,
    scale: Tensor,
    low: Bound,
    high: Bound,
    grid: Grid | FloatGrid,
    out: Tensor | None = None,
) -> Tensor:
    dtype = cast_dtype(grid)
    if dtype is not None:
        return x.to(dtype).to(torch.float32)
    steps = torch.div(x, scale, out=out)
    return round_(clamp(steps, low, high, out=steps), grid).mul_(scale)


def clamp(x: Tensor, low: Bound, high: Bound, out: Tensor | None = None) -> Tensor:
    """`x` limited to [low, high], numbers and tensors alike; a new tensor or `out`."""
    if isinstance(low, Tensor) and isinstance(high, Tensor):
        # Faster than clamp with tensors on a CPU.
        out = torch.maximum(x, low, out=out)
        return torch.minimum(out, high, out=out)
    assert not isinstance(low, Tensor) and not isinstance(high, Tensor)
    return torch.clamp(x, low, high, out=out)


def round_steps(steps: Tensor, grid: Grid | FloatGrid) -> Tensor:
    """`steps` rounded to the grid without its bounds, in place."""
    if isinstance(grid, FloatGrid):
        # Infinity has no spacing; twice the largest number is as far outside.
        largest = 2 * grid.numbers.largest
        steps.clamp_(-largest, largest)
    return round_(steps, grid)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, scale: Tensor, low: Bound, high: Bound, grid: Grid | FloatGrid
    ) -> Tensor:
        if cast_dtype(grid) is not None:
            result = _fake_quantize(x, scale, low, high, grid)
            ctx.save_for_backward(result.isfinite())
            return result
        steps = round_steps(x.div(scale), grid)
        result = clamp(steps, low, high)
        # In floats: on a CPU comparisons that give booleans are several times slower.
        ctx.save_for_backward(steps.eq_(result).to(torch.bool))
        return result.mul_(scale)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        (inside,) = ctx.saved_tensors
        return inside.view(torch.uint8).to(torch.float32).mul_(grad), None, None, None, None


class FakeQuantizer:
    """Rounds tensors to the grid of an encoding; a call never writes to its argument.

    `ndim` is the rank of the tensors it is given (needed per channel and per block). Computes in
    float32 and returns the type it is given. NaN stays NaN.
    """

    def __init__(
        self, encoding: Encoding, ndim: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.grid = encoding.grid
        layout = Layout(encoding.axis, encoding.block_size, ndim)
        self._blocks = layout if encoding.block_size is not None else None

        def tensor(values: npt.NDArray) -> Tensor:
            made = torch.tensor(values, dtype=torch.float32, device=device)
            return made if self._blocks else layout.along_axis(made)

        self._scale = tensor(encoding.scale)
        # Bounds as numbers run faster than as tensors; only zero points that differ need tensors.
        first = float(encoding.zero_point.flat[0])
        lowest, highest = bounds(encoding.grid)
        self._bounds: tuple[Any, Any] = (lowest - first, highest - first)
        if (encoding.zero_point != first).any():
            assert isinstance(encoding.grid, Grid)
            qmin, qmax = encoding.grid.qmin, encoding.grid.qmax
            self._bounds = (
                tensor(qmin - encoding.zero_point),
                tensor(qmax - encoding.zero_point),
            )

    def __call__(self, x: Tensor) -> Tensor:
        values = x if x.dtype is torch.float32 else x.to(torch.float32)
        low, high = self._bounds
        if self._blocks is None:
            result = fake_quantize(values, self._scale, low, high, self.grid)
        else:
            blocks = self._blocks
            scale, low, high = (
                blocks.spread(value, x) if isinstance(value, Tensor) else value
                for value in (self._scale, low, high)
            )
            result = fake_quantize(blocks.split(values), scale, low, high, self.grid)
            result = blocks.join(result, x)
        return result if x.dtype is torch.float32 else result.to(x.dtype)

    def write_over(self, x: Tensor) -> Tensor:
        """The same without a gradient; the result may take the memory of `x`."""
        if self._blocks is not None or x.dtype is not torch.float32:
            return self(x)
        return _fake_quantize(x, self._scale, *self._bounds, self.grid, out=x)
