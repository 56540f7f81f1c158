"""Scale and zero point of one tensor: what every exporter and simulator consumes."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from studio.quant.grid import FloatGrid, Grid
from studio.quant.scales import (
    check_range,
    check_shapes,
    float_scale,
    integer_scale,
    low_power_scale,
    next_power_of_two,
    to_float32,
)


@dataclass(frozen=True, eq=False)
class Encoding:
    """`real = (integer - zero_point) * scale`, integers saturated to the grid; or `real = number *
    scale` for the numbers of a `FloatGrid`.

    scale: float32, always positive and finite; shape () per tensor, (channels,) along `axis`, or
    per block of `block_size` values along `axis` the rank of the tensor, with ceil(size /
    block_size) at `axis` and the tensor's sizes elsewhere (ONNX QuantizeLinear-21's blocked form).
    zero_point: int64, same shape as scale, within the grid; zeros for a `FloatGrid`.
    integer_scale: low-power blocks (LPBQ): int64 of `scale`'s shape, which is these times a scale
    for each channel (`axis` is the blocked axis, channels are the other one); else None.
    """

    grid: Grid | FloatGrid
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None
    block_size: int | None = None
    integer_scale: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        assert self.scale.shape == self.zero_point.shape
        if self.block_size is None:
            assert self.scale.ndim == (0 if self.axis is None else 1)
            assert self.integer_scale is None
        else:
            assert self.block_size > 0
            assert self.axis is not None and 0 <= self.axis < self.scale.ndim
            assert self.integer_scale is None or self.integer_scale.shape == self.scale.shape
        assert np.isfinite(self.scale).all() and (self.scale > 0).all()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Encoding)
            and self.grid == other.grid
            and self.axis == other.axis
            and self.block_size == other.block_size
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (self.integer_scale is None) == (other.integer_scale is None)
            and (
                self.integer_scale is None
                or np.array_equal(self.integer_scale, other.integer_scale)  # type: ignore[arg-type]
            )
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def minimum(self) -> npt.NDArray[np.float64]:
        """Lowest real number on the grid, shape of `scale`."""
        return self._lowest * self.scale

    @property
    def maximum(self) -> npt.NDArray[np.float64]:
        """Highest real number on the grid, shape of `scale`."""
        return self._highest * self.scale

    @property
    def channels(self) -> int:
        """Number of scales."""
        return int(self.scale.size)

    @property
    def channel_axis(self) -> int:
        """Low-power blocks: the axis of the channels, 0, or 1 where 0 is the blocked one."""
        return 0 if self.axis else 1

    @property
    def channel_scale(self) -> npt.NDArray[np.float32]:
        """Low-power blocks: scale / integer_scale, float32, (1, ..., channels, ..., 1).

        The channel's scale times the integers is `scale` bit for bit, where any float32 is so.
        """
        assert self.integer_scale is not None
        others = tuple(i for i in range(self.scale.ndim) if i != self.channel_axis)
        # The largest integer loses the fewest digits.
        largest = self.integer_scale.max(axis=others, keepdims=True)
        quotient = self.scale.max(axis=others, keepdims=True) / largest.astype(np.float32)
        factors = self.integer_scale.astype(np.float32)
        for nearby in (np.nextafter(quotient, np.float32(0)), np.nextafter(quotient, np.inf)):
            near = nearby.astype(np.float32)
            exact = (quotient * factors == self.scale).all(axis=others, keepdims=True)
            better = (near * factors == self.scale).all(axis=others, keepdims=True)
            quotient = np.where(~exact & better, near, quotient)
        return quotient

    @property
    def _lowest(self) -> npt.NDArray[np.float64]:
        """Lowest number on the grid less the zero point, shape of `scale`."""
        if isinstance(self.grid, FloatGrid):
            return np.full(self.scale.shape, -self.grid.numbers.largest)
        return (self.grid.qmin - self.zero_point).astype(np.float64)

    @property
    def _highest(self) -> npt.NDArray[np.float64]:
        if isinstance(self.grid, FloatGrid):
            return np.full(self.scale.shape, self.grid.numbers.largest)
        return (self.grid.qmax - self.zero_point).astype(np.float64)

    def spread(self, values: npt.NDArray, shape: tuple[int, ...]) -> npt.NDArray:
        """`values` of the shape of `scale`, such that they broadcast to a tensor of `shape`.

        Raises ValueError if the encoding does not fit `shape`.
        """
        if self.axis is None:
            return values
        if self.block_size is None:
            if shape[self.axis] != values.size:
                raise ValueError(f"{values.size} scales on axis {self.axis} do not fit {shape}")
            return values.reshape(
                [-1 if i == self.axis % len(shape) else 1 for i in range(len(shape))]
            )
        sizes = list(shape)
        sizes[self.axis] = -(-shape[self.axis] // self.block_size)
        if tuple(sizes) != values.shape:
            raise ValueError(
                f"scales of shape {values.shape} in blocks of {self.block_size} on axis "
                f"{self.axis} do not fit {shape}"
            )
        repeated = np.repeat(values, self.block_size, self.axis)
        return repeated[(slice(None),) * self.axis + (slice(shape[self.axis]),)]

    def quantize(self, array: npt.NDArray) -> npt.NDArray:
        """Numbers on the grid: int64, or for a `FloatGrid` in its ml_dtypes type (np.float16).

        Divides by the scale in float32, rounds half to even, saturates (float16 and bfloat16
        overflow to infinity instead). Raises ValueError for NaN where the grid has none: integers
        and float4e2m1.
        """
        steps = self._steps(array)
        if not self._has_nan and np.isnan(steps).any():
            raise ValueError(f"{self.grid} has no NaN")
        if isinstance(self.grid, FloatGrid):
            return self._cast(steps)
        np.rint(steps, out=steps)
        integers = steps.astype(np.int64)
        integers += self.spread(self.zero_point, array.shape)
        # float32 may have rounded the bounds of a grid of more than 24 bits.
        return np.clip(integers, self.grid.qmin, self.grid.qmax, out=integers)

    def dequantize(self, numbers: npt.NDArray) -> npt.NDArray[np.float32]:
        """Real numbers of `numbers` on the grid, in float32 as the runtime computes them."""
        if isinstance(self.grid, Grid):
            numbers = numbers - self.spread(self.zero_point, numbers.shape)
        return numbers.astype(np.float32) * self.spread(self.scale, numbers.shape)

    def quantize_dequantize(self, array: npt.NDArray) -> npt.NDArray[np.float32]:
        """`array` rounded to the grid, float32, same shape; NaN stays NaN."""
        steps = self._steps(array)
        if isinstance(self.grid, Grid):
            np.rint(steps, out=steps)
        elif self._has_nan:
            steps = self._cast(steps).astype(np.float32)
        else:
            steps = np.where(np.isnan(steps), steps, self._cast(steps).astype(np.float32))
        steps *= self.spread(self.scale, array.shape)
        return steps

    @property
    def _has_nan(self) -> bool:
        return isinstance(self.grid, FloatGrid) and self.grid.bits > 4

    def _cast(self, steps: npt.NDArray[np.float32]) -> npt.NDArray:
        """`steps` in the type of the `FloatGrid`."""
        assert isinstance(self.grid, FloatGrid)
        dtype = np.dtype(getattr(ml_dtypes, self.grid.numbers.dtype, np.float16))
        with np.errstate(over="ignore", invalid="ignore"):
            return steps.astype(dtype)

    def _steps(self, array: npt.NDArray) -> npt.NDArray[np.float32]:
        """`array` / scale, saturated, float32, an array of its own."""
        scale = self.spread(self.scale, array.shape)
        with np.errstate(over="ignore"):
            steps = np.asarray(np.divide(array, scale, dtype=np.float32))
        if isinstance(self.grid, FloatGrid) and not self.grid.scaled:
            return steps
        low, high = (
            self.spread(bound.astype(np.float32), array.shape)
            for bound in (self._lowest, self._highest)
        )
        return np.clip(steps, low, high, out=steps)


def encoding_from_range(
    minimum: npt.ArrayLike,
    maximum: npt.ArrayLike,
    grid: Grid | FloatGrid,
    axis: int | None = None,
    block_size: int | None = None,
    lpbq: bool = False,
) -> Encoding:
    """The encoding whose grid covers [minimum, maximum] and contains zero exactly.

    minimum, maximum: finite, of the encoding's scale's shape: (), (channels,) along `axis`, or one
    range per block of `block_size` values along `axis` (the tensor's rank, see `Encoding`).

    Integers, asymmetric: scale = (max - min) / steps and zero_point = qmin - round(min / scale)
    after widening the range to include zero. Symmetric: the smallest scale that reaches both ends,
    scale = max(max / (qmax - z), -min / (z - qmin)). (Jacob et al. 2018, arXiv 1712.05877, section
    3; Nagel et al. 2021, arXiv 2106.08295, sec. 2.) A power-of-two scale is the next one upwards.

    Floats: scale = max(|min|, |max|) / largest number; 1 for float16 and bfloat16, which have one
    encoding for the tensor at any granularity. Powers of two follow the OCP MX specification (v1.0,
    section 6.3; Rouhani et al. 2023, arXiv 2310.10537, algorithm 1): 2**(floor(log2(max(|min|,
    |max|))) - emax), emax the exponent of the format's largest number, so that the highest values
    of a block may saturate.

    `lpbq` (per block, symmetric integers of b bits): the scales of a channel become integers of 1
    to 2**b times one scale, that of its largest block / 2**b, rounded to the nearest.

    A degenerate range (all zero, or too narrow for its scale to be above the smallest) gets the
    smallest scale; a constant is a range from zero to it.

    Raises ValueError naming the channel or block whose range is not finite, has its ends reversed
    or is too wide for float32, and for shapes or an `lpbq` that do not fit.
    """
    low, high = np.asarray(minimum, dtype=np.float64), np.asarray(maximum, dtype=np.float64)
    check_shapes(low, high, axis, block_size)
    check_range(low, high, axis, block_size)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if isinstance(grid, FloatGrid):
        if lpbq:
            raise ValueError(f"low-power blocks need integers, not {grid.format}")
        if not grid.scaled:
            return Encoding(grid, np.ones((), np.float32), np.zeros((), np.int64))
        scale32 = to_float32(float_scale(low, high, grid), low, high, axis, block_size)
        return Encoding(grid, scale32, np.zeros(scale32.shape, np.int64), axis, block_size)
    scale, middle = integer_scale(low, high, grid)
    if grid.power_of_two:
        scale = next_power_of_two(scale)
    scale32 = to_float32(scale, low, high, axis, block_size)
    if middle is None:
        exact = grid.qmin - np.rint(low / scale32.astype(np.float64))
        middle = np.clip(exact, grid.qmin, grid.qmax)
    zero_point = np.asarray(middle, dtype=np.int64)
    integers = None
    if lpbq:
        if not grid.symmetric or block_size is None or low.ndim < 2:
            raise ValueError("low-power blocks need a symmetric grid and blocks of a matrix")
        assert axis is not None
        scale32, integers = low_power_scale(scale32, grid.bits, axis)
    return Encoding(grid, scale32, zero_point, axis, block_size, integers)
