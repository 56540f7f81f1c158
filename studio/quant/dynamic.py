"""Fake-quantization of tensors that are ranged at every inference."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.quant.encoding import encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer, fake_quantize
from studio.quant.grid import FloatGrid, Grid
from studio.quant.layout import Layout
from studio.quant.rounding import bounds


class DynamicFakeQuantizer:
    """Rounds a tensor to the grid that covers its own range; never writes to its argument.

    `axis`, `block_size` and `ndim` as for `FakeQuantizer`. The range has no gradient. Asymmetric
    integers of the whole tensor are those of ONNX DynamicQuantizeLinear, in float32 bit for bit;
    the other grids and granularities follow `encoding_from_range`, which raises ValueError for a
    tensor that is not finite.
    """

    def __init__(
        self,
        grid: Grid | FloatGrid,
        axis: int | None = None,
        block_size: int | None = None,
        ndim: int | None = None,
    ) -> None:
        self.grid = grid
        self._layout = Layout(axis, block_size, ndim)

    def __call__(self, x: Tensor) -> Tensor:
        grid, layout = self.grid, self._layout
        if not x.numel():
            return x.clone()
        low, high = layout.ranges(x.detach().to(torch.float32))
        if layout.axis is None and isinstance(grid, Grid) and not grid.symmetric:
            return _affine(x, low, high, grid)
        encoding = encoding_from_range(
            low.cpu().numpy(), high.cpu().numpy(), grid, layout.axis, layout.block_size
        )
        return FakeQuantizer(encoding, layout.ndim, x.device)(x)


def _affine(x: Tensor, low: Tensor, high: Tensor, grid: Grid) -> Tensor:
    """ONNX DynamicQuantizeLinear-11: scale = (max - min) / steps, 1 if that is zero; zero point =
    round(saturate(qmin - min / scale))."""
    lowest, highest = bounds(grid)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / torch.tensor(float(grid.steps), device=x.device)
    scale = scale.where(high > low, 1.0)
    zero_point = (lowest - low / scale).clamp(lowest, highest).round()
    ends = lowest - zero_point, highest - zero_point
    if x.device.type == "cpu":  # bounds as numbers run faster
        ends = tuple(end.item() for end in ends)  # type: ignore[assignment]
    return fake_quantize(x.to(torch.float32), scale, *ends, grid).to(x.dtype)
