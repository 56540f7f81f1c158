"""Fake-quantization whose range is learned together with the weights.

The rounding is that of `fake_quantize`. Gradients: straight-through for the values, and for scale
and zero point those of a quantizer whose rounding offsets are constants. (Esser et al. 2020, LSQ,
arXiv 1902.08153, eq. 3; Bhalgat et al. 2020, LSQ+, arXiv 2004.09576, eq. 5 - 8.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from studio.quant.encoding import Encoding
from studio.quant.fake_quantize import Bound, clamp, round_steps
from studio.quant.grid import FloatGrid, Grid
from studio.quant.layout import Layout
from studio.quant.rounding import bounds, cast_dtype
from studio.quant.scales import smallest_scale


def learned_fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    grid: Grid | FloatGrid,
    *,
    gradient_scale: float = 1.0,
    rounding_term: bool = True,
) -> Tensor:
    """float32 `x` rounded to the grid, with gradients for all three tensors.

    scale, zero_point: float32, broadcast to `x`; zero_point holds integers (see `straight_through`;
    None: zero). With r = round(x / scale) and g the incoming gradient, for values whose r lies on
    the grid dx = g, dscale = g * (r - x / scale), dzero_point = 0; for those that saturate at an
    end e (less the zero point) dx = 0, dscale = g * e, dzero_point = -g * scale; the last two
    summed over the values that share them and multiplied by `gradient_scale` (LSQ:
    `lsq_gradient_scale`). Without `rounding_term` only values that saturate move the scale (PACT,
    Choi et al. 2018, arXiv 1805.06085).

    Keeps `x` for the backward pass and computes the rest anew.
    """
    return _Learned.apply(x, scale, zero_point, grid, gradient_scale, rounding_term)


def lsq_gradient_scale(values: int, grid: Grid | FloatGrid) -> float:
    """LSQ's 1 / sqrt(values * highest number): `values` share one scale (a weight's elements, an
    activation's features). (Esser et al. 2020, section 2.2.)"""
    return 1.0 / math.sqrt(max(values, 1) * bounds(grid)[1])


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """`value` exactly, with the gradient of `x`."""
    return _Replace.apply(x, value)


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return value.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        return grad, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        grid: Grid | FloatGrid,
        gradient_scale: float,
        rounding_term: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.options = grid, gradient_scale, rounding_term
        steps = round_steps(x.div(scale), grid)
        return clamp(steps, *_ends(grid, zero_point), out=steps).mul_(scale)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        x, scale, zero_point = ctx.saved_tensors
        grid, gradient_scale, rounding_term = ctx.options
        for_x, for_scale, for_zero_point = ctx.needs_input_grad[:3]
        steps = x.div(scale)
        rounded = round_steps(steps.clone(), grid)
        numbers = clamp(rounded, *_ends(grid, zero_point))
        inside = rounded.eq_(numbers)  # 1 or 0
        dx = grad * inside
        dscale = dzero_point = None
        if for_scale and rounding_term and scale.numel() == 1:
            # sum(grad * numbers) - sum(grad * inside * steps): no tensor in between is written.
            total = _product(grad, numbers) - _product(dx, steps)
            dscale = total.mul(gradient_scale).view_as(scale)
        elif for_scale:
            numbers.sub_(inside.mul_(steps if rounding_term else numbers))
            dscale = numbers.mul_(grad).sum_to_size(scale.shape).mul(gradient_scale)
        if for_zero_point:
            saturated = (grad - dx).sum_to_size(zero_point.shape)
            dzero_point = saturated.mul_(scale).mul_(-gradient_scale)
        return dx if for_x else None, dscale, dzero_point, None, None, None


def _product(a: Tensor, b: Tensor) -> Tensor:
    """sum(a * b), () float32."""
    if a.stride() != b.stride():
        b = torch.empty_like(a).copy_(b)
    if a.numel() and _dense(a):
        flat = (a.numel(),), (1,)
        return torch.dot(a.as_strided(*flat), b.as_strided(*flat))
    return (a * b).sum()


def _dense(x: Tensor) -> bool:
    """True if the values lie one after the other in memory, in whatever order of the axes."""
    last = x.is_contiguous(memory_format=torch.channels_last) if x.ndim == 4 else False
    return x.is_contiguous() or last


def _ends(grid: Grid | FloatGrid, zero_point: Tensor | None) -> tuple[Bound, Bound]:
    """Lowest and highest number on the grid, less the zero point."""
    low, high = bounds(grid)
    if zero_point is None:
        return low, high
    if zero_point.device.type == "cpu" and zero_point.numel() == 1:
        middle = float(zero_point)
        return low - middle, high - middle
    return low - zero_point, high - zero_point


class LearnedQuantizer(torch.nn.Module, ABC):
    """Rounds tensors to the grid of an encoding whose range is trained.

    Starts from `encoding` and keeps its grid and granularity; `ndim` is the rank of the tensors
    (needed per channel and per block). Subclasses hold the parameters and give the scale and the
    zero point that they stand for; all here is float32. `gradient_scale` and `rounding_term` as in
    `learned_fake_quantize`.

    Raises ValueError for float16 and bfloat16, which have no range to learn.
    """

    def __init__(
        self,
        encoding: Encoding,
        ndim: int | None = None,
        *,
        gradient_scale: float = 1.0,
        rounding_term: bool = True,
    ) -> None:
        super().__init__()
        if cast_dtype(encoding.grid) is not None:
            raise ValueError(f"{encoding.grid} has no range to learn")
        self.grid = encoding.grid
        self.layout = Layout(encoding.axis, encoding.block_size, ndim)
        self.low_power = encoding.integer_scale is not None
        self.gradient_scale = gradient_scale
        self.rounding_term = rounding_term

    @abstractmethod
    def raw_scale(self) -> Tensor:
        """The scale before it is made one that the grid allows, of the encoding's shape."""

    @abstractmethod
    def raw_zero_point(self, scale: Tensor) -> Tensor | None:
        """The zero point before rounding, of the encoding's shape; None if it always is zero."""

    def units(self) -> list[tuple[torch.nn.Parameter, float]]:
        """What is trained, and the size to measure a step of it by: ranges differ by orders of
        magnitude from tensor to tensor, so must their steps."""
        return [
            (item, unit) for item, unit in self._sized() if isinstance(item, torch.nn.Parameter)
        ]

    @abstractmethod
    def _sized(self) -> list[tuple[Tensor | None, float]]:
        """Tensors that may be parameters, with the unit of each."""

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor | None]:
        """What `forward` rounds with; gradients reach the parameters straight through."""
        raw = self.raw_scale()
        scale = straight_through(raw, self._allowed(raw.detach())[0])
        middle = self.raw_zero_point(scale)
        if middle is None:
            return scale, None
        return scale, straight_through(middle, middle.detach().round().clamp(*bounds(self.grid)))

    def forward(self, x: Tensor) -> Tensor:
        layout = self.layout
        scale, zero_point = self.scale_and_zero_point()
        result = learned_fake_quantize(
            layout.split(x.to(torch.float32)),
            layout.spread(scale, x),
            None if zero_point is None else layout.spread(zero_point, x),
            self.grid,
            gradient_scale=self.gradient_scale,
            rounding_term=self.rounding_term,
        )
        return layout.join(result, x).to(x.dtype)

    @torch.no_grad()
    def encoding(self) -> Encoding:
        """The encoding that `forward` rounds to now."""
        scale, zero_point = self.scale_and_zero_point()
        integers = self._allowed(self.raw_scale())[1]
        array = scale.cpu().numpy().astype(np.float32)
        return Encoding(
            self.grid,
            array,
            np.zeros(array.shape, np.int64)
            if zero_point is None
            else zero_point.cpu().numpy().astype(np.int64),
            self.layout.axis,
            self.layout.block_size,
            None if integers is None else integers.cpu().numpy().astype(np.int64),
        )

    def _allowed(self, scale: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scale the grid allows nearest to `scale`, and the integers of low-power blocks."""
        scale = scale.clamp(min=smallest_scale(self.grid))
        if self.grid.power_of_two:
            scale = _power_of_two(scale, self.grid)
        if not self.low_power:
            return scale, None
        axis = self.layout.axis
        assert axis is not None
        channels = 0 if axis else 1
        others = [i for i in range(scale.ndim) if i != channels]
        most = 2.0**self.grid.bits
        channel_scale = scale.amax(others, keepdim=True) / most
        integers = (scale / channel_scale).round().clamp(1.0, most)
        return integers * channel_scale, integers


def _power_of_two(scale: Tensor, grid: Grid | FloatGrid) -> Tensor:
    """The power of two that `encoding_from_range` gives the range of `scale`."""
    if isinstance(grid, FloatGrid):
        _, exponent = torch.frexp(scale * grid.numbers.largest)
        exponent = exponent - 1 - grid.numbers.largest_exponent
    else:
        mantissa, exponent = torch.frexp(scale)
        exponent = exponent - (mantissa == 0.5).to(exponent.dtype)
    return torch.ldexp(torch.ones_like(scale), exponent)


class LearnedScale(LearnedQuantizer):
    """The scale is the parameter (LSQ), and with `learn_zero_point` the zero point too (LSQ+).

    Parameters `scale` and, where the zero point is not always zero, `zero_point` (a buffer unless
    it is learned), float32 of the encoding's shape.
    """

    scale: Tensor
    zero_point: Tensor | None

    def __init__(
        self,
        encoding: Encoding,
        ndim: int | None = None,
        *,
        learn_zero_point: bool = False,
        gradient_scale: float = 1.0,
        rounding_term: bool = True,
    ) -> None:
        super().__init__(encoding, ndim, gradient_scale=gradient_scale, rounding_term=rounding_term)
        self.scale = torch.nn.Parameter(torch.tensor(encoding.scale))
        zero_point = torch.tensor(encoding.zero_point, dtype=torch.float32)
        if learn_zero_point:
            self.zero_point = torch.nn.Parameter(zero_point)
        else:
            self.register_buffer("zero_point", zero_point if encoding.zero_point.any() else None)

    def _sized(self) -> list[tuple[Tensor | None, float]]:
        # A zero point moves by whole numbers: one of them, not the range, is the size of its step.
        return [(self.scale, float(self.scale.detach().mean())), (self.zero_point, 1.0)]

    def raw_scale(self) -> Tensor:
        return self.scale

    def raw_zero_point(self, scale: Tensor) -> Tensor | None:
        return self.zero_point


class LearnedRange(LearnedQuantizer):
    """The ends of the range are the parameters (AIMET's range learning; PACT).

    Parameters `minimum` and `maximum`, float32 of the encoding's shape; scale = (maximum - minimum)
    / steps. An asymmetric grid's zero point is qmin - round(minimum / scale), a symmetric one's
    stays. For PACT switch `minimum`'s gradient and the `rounding_term` off.
    """

    def __init__(
        self,
        encoding: Encoding,
        ndim: int | None = None,
        *,
        gradient_scale: float = 1.0,
        rounding_term: bool = True,
    ) -> None:
        super().__init__(encoding, ndim, gradient_scale=gradient_scale, rounding_term=rounding_term)
        self.minimum = torch.nn.Parameter(torch.tensor(encoding.minimum, dtype=torch.float32))
        self.maximum = torch.nn.Parameter(torch.tensor(encoding.maximum, dtype=torch.float32))
        middle = torch.tensor(encoding.zero_point, dtype=torch.float32)
        fixed = self.grid.symmetric and bool(encoding.zero_point.any())
        self.register_buffer("_middle", middle if fixed else None)

    def _sized(self) -> list[tuple[Tensor | None, float]]:
        width = float((self.maximum - self.minimum).detach().mean())
        return [(end, width) for end in (self.minimum, self.maximum) if end.requires_grad]

    def raw_scale(self) -> Tensor:
        low, high = bounds(self.grid)
        return (self.maximum - self.minimum) / (high - low)

    def raw_zero_point(self, scale: Tensor) -> Tensor | None:
        if self.grid.symmetric:
            return self._middle
        ratio = self.minimum / scale
        return bounds(self.grid)[0] - straight_through(ratio, ratio.detach().round())

    _middle: Tensor | None
