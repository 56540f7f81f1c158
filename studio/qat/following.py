"""Weight quantizers whose range follows the weights while they are trained."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.quant.dynamic import DynamicFakeQuantizer
from studio.quant.encoding import Encoding
from studio.quant.fake_quantize import fake_quantize
from studio.quant.grid import Grid
from studio.quant.layout import Layout
from studio.quant.rounding import bounds
from studio.quant.scales import smallest_scale

Quantizer = torch.nn.Module | DynamicFakeQuantizer


def following(encoding: Encoding, ndim: int, weight: Tensor) -> Quantizer:
    """A quantizer on the grid of `encoding` that ranges the weight anew at every step.

    A symmetric one keeps the share of the range that `encoding` covers of `weight`: what an
    observer clipped stays clipped.
    """
    grid = encoding.grid
    plain = isinstance(grid, Grid) and grid.symmetric and not grid.unsigned_symmetric
    if plain and not grid.power_of_two and encoding.integer_scale is None:
        return FollowingScale(encoding, ndim, weight)
    return DynamicFakeQuantizer(grid, encoding.axis, encoding.block_size, ndim)


class FollowingScale(torch.nn.Module):
    """Symmetric: scale = share * max(max / (qmax - z), -min / (z - qmin)), without a gradient."""

    share: Tensor

    def __init__(self, encoding: Encoding, ndim: int, weight: Tensor) -> None:
        super().__init__()
        assert isinstance(encoding.grid, Grid)
        self.grid = encoding.grid
        self.layout = Layout(encoding.axis, encoding.block_size, ndim)
        scale = torch.tensor(encoding.scale, device=weight.device)
        self.register_buffer("share", (scale / self._covering(weight)).clamp(max=1.0))

    def _covering(self, weight: Tensor) -> Tensor:
        low, high = self.layout.ranges(weight.detach())
        middle = self.grid.middle
        up, down = high / (self.grid.qmax - middle), low / (self.grid.qmin - middle)
        return torch.maximum(up, down).clamp(min=smallest_scale(self.grid))

    def scale(self, weight: Tensor) -> Tensor:
        """float32, of the encoding's shape."""
        return (self.share * self._covering(weight)).clamp(min=smallest_scale(self.grid))

    def forward(self, weight: Tensor) -> Tensor:
        low, high = (end - self.grid.middle for end in bounds(self.grid))
        scale = self.layout.spread(self.scale(weight), weight)
        result = fake_quantize(self.layout.split(weight), scale, low, high, self.grid)
        return self.layout.join(result, weight)
