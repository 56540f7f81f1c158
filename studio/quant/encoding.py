"""Scale and zero point of one tensor: what every exporter and simulator consumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.quant.grid import Grid

SMALLEST_SCALE = 2.0**-23
"""Scales below this would make the integers of ordinary values overflow (AIMET uses the same)."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """`real = (integer - zero_point) * scale`, integers saturated to the grid.

    scale: float32, shape () per tensor or (channels,) along `axis`; always positive and finite.
    zero_point: int64, same shape as scale, within the grid.
    """

    grid: Grid
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None

    def __post_init__(self) -> None:
        assert self.scale.shape == self.zero_point.shape
        assert (self.scale.ndim == 0) == (self.axis is None)
        assert np.isfinite(self.scale).all() and (self.scale > 0).all()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Encoding)
            and self.grid == other.grid
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def minimum(self) -> npt.NDArray[np.float64]:
        """Lowest real number on the grid, shape of `scale`."""
        return (self.grid.qmin - self.zero_point).astype(np.float64) * self.scale

    @property
    def maximum(self) -> npt.NDArray[np.float64]:
        """Highest real number on the grid, shape of `scale`."""
        return (self.grid.qmax - self.zero_point).astype(np.float64) * self.scale

    @property
    def channels(self) -> int:
        """Number of scales."""
        return int(self.scale.size)

    def _along_axis(self, values: npt.NDArray, ndim: int) -> npt.NDArray:
        if self.axis is None:
            return values
        shape = [1] * ndim
        shape[self.axis] = -1
        return values.reshape(shape)

    def quantize(self, array: npt.NDArray) -> npt.NDArray[np.int64]:
        """Integers of `array`: divide by the scale in float32, round half to even, saturate."""
        scale = self._along_axis(self.scale, array.ndim)
        zero_point = self._along_axis(self.zero_point, array.ndim)
        rounded = np.rint(np.divide(array, scale, dtype=np.float32)).astype(np.float64)
        clipped = np.clip(rounded + zero_point, self.grid.qmin, self.grid.qmax)
        return clipped.astype(np.int64)

    def dequantize(self, integers: npt.NDArray) -> npt.NDArray[np.float32]:
        """Real numbers of `integers`, in float32 as the runtime computes them."""
        scale = self._along_axis(self.scale, integers.ndim)
        zero_point = self._along_axis(self.zero_point, integers.ndim)
        return (integers - zero_point).astype(np.float32) * scale

    def quantize_dequantize(self, array: npt.NDArray) -> npt.NDArray[np.float32]:
        """`array` rounded to the grid, float32, same shape."""
        return self.dequantize(self.quantize(array))


def encoding_from_range(
    minimum: npt.ArrayLike, maximum: npt.ArrayLike, grid: Grid, axis: int | None = None
) -> Encoding:
    """The encoding whose grid covers [minimum, maximum] and contains zero exactly.

    Shapes: () or (channels,), finite. Asymmetric: scale = (max - min) / steps and
    zero_point = qmin - round(min / scale) after widening the range to include zero. Symmetric:
    the smallest scale that reaches both ends, scale = max(max / (qmax - z), -min / (z - qmin)).
    A degenerate range (all zero) gets the smallest scale.
    (Jacob et al. 2018, arXiv 1712.05877, section 3; Nagel et al. 2021, arXiv 2106.08295, sec. 2.)
    """
    low = np.minimum(np.asarray(minimum, dtype=np.float64), 0.0)
    high = np.maximum(np.asarray(maximum, dtype=np.float64), 0.0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("the range is not finite")
    if grid.symmetric:
        middle = grid.middle
        scale = np.maximum(high / (grid.qmax - middle), -low / (middle - grid.qmin))
        scale32 = np.maximum(scale, SMALLEST_SCALE).astype(np.float32)
        zero_point = np.full(scale32.shape, middle, dtype=np.int64)
    else:
        scale32 = np.maximum((high - low) / grid.steps, SMALLEST_SCALE).astype(np.float32)
        exact = grid.qmin - np.rint(low / scale32.astype(np.float64))
        zero_point = np.clip(exact, grid.qmin, grid.qmax).astype(np.int64)
    return Encoding(grid, scale32, zero_point, axis)
