"""Quantization from the formulas, in float64, one number at a time or all at once."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.float_formats import FORMATS
from studio.quant.grid import FloatGrid, Grid

Array = npt.NDArray[np.float64]

BITS = (*range(2, 17), 32)
KINDS: dict[str, dict[str, bool]] = {
    "asymmetric": {"symmetric": False},
    "symmetric": {"symmetric": True},
    "strict": {"symmetric": True, "strict": True},
    "unsigned-symmetric": {"symmetric": True, "unsigned_symmetric": True},
    "power-of-two": {"symmetric": True, "power_of_two": True},
    "power-of-two-asymmetric": {"symmetric": False, "power_of_two": True},
}
FLOATS = [
    FloatGrid(name, power_of_two)
    for name in FORMATS
    for power_of_two in ((False, True) if FORMATS[name].bits < 16 else (False,))
]
SHAPE = (6, 10, 4)
GRANULARITIES: dict[str, tuple[int | None, int | None]] = {
    "tensor": (None, None),
    "channel 0": (0, None),
    "channel 1": (1, None),
    "channel 2": (2, None),
    "block 0": (0, 3),
    "block 1": (1, 5),
    "block 1, last short": (1, 4),
    "block 2, wider than the axis": (2, 32),
}


def grids(kind: str) -> list[Grid]:
    return [Grid(bits, signed, **KINDS[kind]) for bits in BITS for signed in (False, True)]


def scale_shape(shape: tuple[int, ...], axis: int | None, block: int | None) -> tuple[int, ...]:
    if axis is None:
        return ()
    if block is None:
        return (shape[axis],)
    return tuple(-(-n // block) if i == axis else n for i, n in enumerate(shape))


def spread(values: npt.NDArray, encoding: Encoding, shape: tuple[int, ...]) -> npt.NDArray:
    """`values` of the scale's shape at every element of a tensor of `shape`, by indexing."""
    index = np.indices(shape)
    if encoding.axis is None:
        return np.broadcast_to(values, shape)
    if encoding.block_size is None:
        return values[index[encoding.axis]]
    places = [n // encoding.block_size if i == encoding.axis else n for i, n in enumerate(index)]
    return values[tuple(places)]


def gather(values: Array, encoding: Encoding) -> Array:
    """Sums of `values` over the elements that share a scale: the transpose of `spread`."""
    sums = np.zeros(encoding.scale.size)
    places = np.arange(encoding.scale.size).reshape(encoding.scale.shape)
    np.add.at(sums, spread(places, encoding, values.shape).ravel(), values.ravel())
    return sums.reshape(encoding.scale.shape)


def random_encoding(grid: Grid | FloatGrid, granularity: str, rng: np.random.Generator) -> Encoding:
    """An encoding for tensors of `SHAPE` with a range of its own for each scale; under the
    unsigned-symmetric rule some ranges have no negative value."""
    axis, block = GRANULARITIES[granularity]
    shape = scale_shape(SHAPE, axis, block)
    low, high = -rng.uniform(0.5, 2, shape), rng.uniform(0.5, 3, shape)
    if isinstance(grid, Grid) and grid.unsigned_symmetric:
        low = np.where(rng.random(shape) < 0.5, 0.0, low)
    return encoding_from_range(low, high, grid, axis, block)


def random_values(encoding: Encoding, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """float32 values of `SHAPE`: inside the range, around its ends and far outside, ties."""
    scale = spread(encoding.scale, encoding, SHAPE).astype(np.float64)
    low = spread(encoding.minimum, encoding, SHAPE)
    high = spread(encoding.maximum, encoding, SHAPE)
    if isinstance(encoding.grid, FloatGrid) and not encoding.grid.scaled:
        low, high = np.full(SHAPE, -3e5), np.full(SHAPE, 3e5)
    width = high - low
    values = low - 0.2 * width + 1.4 * width * rng.random(SHAPE)
    ties = (np.rint(values / scale) + 0.5) * scale
    values = np.where(rng.random(SHAPE) < 0.25, ties, values)
    small = rng.standard_normal(SHAPE) * scale * 3
    values = np.where(rng.random(SHAPE) < 0.25, small, values)
    values[0, 0, :2] = 0.0, -0.0
    return values.astype(np.float32)


def format_numbers(name: str) -> Array:
    """Every finite number of the format from the lowest to the highest, even ones at even places
    of the half line above zero."""
    dtype = np.dtype(getattr(ml_dtypes, FORMATS[name].dtype, np.float16))
    width = np.uint16 if dtype.itemsize == 2 else np.uint8
    count = 2 ** (FORMATS[name].bits - 1)
    with np.errstate(invalid="ignore"):  # NaN
        positive = np.arange(count).astype(width).view(dtype).astype(np.float64)
    positive = positive[np.isfinite(positive)]
    assert (np.diff(positive) > 0).all()
    return positive


def round_to_format(values: Array, name: str) -> Array:
    """The nearest number of the format, the one whose pattern is even at ties; saturated."""
    positive = format_numbers(name)
    size = np.abs(values)
    above = np.clip(np.searchsorted(positive, size), 1, len(positive) - 1)
    down, up = size - positive[above - 1], positive[above] - size
    take_up = (up < down) | ((up == down) & (above % 2 == 0))
    nearest = np.where(take_up, positive[above], positive[above - 1])
    return np.sign(values) * nearest


def quotient(x: npt.NDArray[np.float32], encoding: Encoding) -> Array:
    """x / scale as runtimes compute it: correctly rounded to float32."""
    scale = spread(encoding.scale, encoding, x.shape)
    return (x.astype(np.float64) / scale).astype(np.float32).astype(np.float64)


def numbers(x: npt.NDArray[np.float32], encoding: Encoding) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Numbers on the grid less the zero point, and where the rounded value lies on the grid."""
    steps = quotient(x, encoding)
    if isinstance(encoding.grid, FloatGrid):
        largest = format_numbers(encoding.grid.format)[-1]
        rounded = round_to_format(steps, encoding.grid.format)
        spacing = largest - format_numbers(encoding.grid.format)[-2]
        # A tie beyond the largest number goes away from it if the number is odd.
        odd = len(format_numbers(encoding.grid.format)) % 2 == 0
        excess = np.abs(steps) - largest
        inside = excess < spacing / 2 if odd else excess <= spacing / 2
        if not encoding.grid.scaled:
            rounded = np.where(inside, rounded, np.copysign(np.inf, steps))
        return rounded, inside
    zero_point = spread(encoding.zero_point, encoding, x.shape)
    rounded = np.rint(steps) + zero_point
    inside = (rounded >= encoding.grid.qmin) & (rounded <= encoding.grid.qmax)
    return np.clip(rounded, encoding.grid.qmin, encoding.grid.qmax) - zero_point, inside


def dequantized(steps: Array, encoding: Encoding) -> npt.NDArray[np.float32]:
    scale = spread(encoding.scale, encoding, steps.shape).astype(np.float64)
    return (steps.astype(np.float32).astype(np.float64) * scale).astype(np.float32)
