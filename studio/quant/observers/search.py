"""What searches over candidate ranges share: the squared error of each, from a histogram."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studio.quant.encoding import encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.statistics import TensorStatistics

Range = tuple[float, float]
Floats = npt.NDArray[np.float64]

_AT_ONCE = 2**14
"""Numbers a block of candidates takes: more would leave the processor's cache."""


def squared_errors(
    statistics: TensorStatistics,
    lows: Floats,
    highs: Floats,
    grid: Grid | FloatGrid,
    clipped_weight: float = 1.0,
) -> Floats:
    """Squared rounding error of all counted values for each candidate range [low, high].

    lows, highs: (candidates,). Rounds on the very grid that `encoding_from_range` makes of a
    candidate; values lie at the centres of their bins. What saturates counts `clipped_weight`
    times (for integers). Returns (candidates,).
    """
    levels = grid.steps + 1 if isinstance(grid, Grid) else 2**30
    size = min(levels, statistics.counts.size)
    errors = np.empty(len(lows))
    at_once = max(1, _AT_ONCE // size)
    work = _by_level if levels < statistics.counts.size else _by_bin
    for start in range(0, len(lows), at_once):
        part = slice(start, start + at_once)
        errors[part] = work(statistics, lows[part], highs[part], grid, clipped_weight)
    return errors


def _by_bin(
    statistics: TensorStatistics,
    lows: Floats,
    highs: Floats,
    grid: Grid | FloatGrid,
    clipped_weight: float,
) -> Floats:
    """Every bin's centre rounded: for grids finer than the bins, and floats."""
    used = np.flatnonzero(statistics.counts)
    centres, counts = statistics.centres[used], statistics.counts[used].astype(np.float64)
    encoding = encoding_from_range(lows, highs, grid, axis=0)
    if isinstance(grid, FloatGrid):
        values = np.repeat(centres[None].astype(np.float32), len(lows), axis=0)
        rounded = encoding.quantize_dequantize(values).astype(np.float64)
        return np.square(rounded - centres) @ counts
    scale = encoding.scale.astype(np.float64)[:, None]
    low, high = (bound - encoding.zero_point[:, None] for bound in (grid.qmin, grid.qmax))
    exact = np.rint(centres / scale)
    steps = np.clip(exact, low, high)
    squares = np.square(steps * scale - centres)
    if clipped_weight != 1.0:
        squares *= np.where(steps != exact, clipped_weight, 1.0)
    return squares @ counts


def _by_level(
    statistics: TensorStatistics,
    lows: Floats,
    highs: Floats,
    grid: Grid | FloatGrid,
    clipped_weight: float,
) -> Floats:
    """Integers fewer than bins: the bins that round to one integer are summed at once.

    sum h (c - v)**2 = sum h c**2 - 2 v sum h c + v**2 sum h, each sum the difference of two
    cumulated ones.
    """
    assert isinstance(grid, Grid)
    centres, counts = statistics.centres, statistics.counts.astype(np.float64)
    bins_per_unit = counts.size / (statistics.high - statistics.low)
    sums = [np.concatenate([[0.0], np.cumsum(counts * centres**power)]) for power in range(3)]
    encoding = encoding_from_range(lows, highs, grid, axis=0)
    scale = encoding.scale.astype(np.float64)[:, None]
    integers = np.arange(grid.qmin, grid.qmax + 1) - encoding.zero_point[:, None]

    def first_bin_from(value: Floats) -> npt.NDArray[np.intp]:
        # Truncated after adding one: the next bin upwards.
        index = value * bins_per_unit
        index -= centres[0] * bins_per_unit - 1.0
        return np.clip(index, 0.0, float(counts.size), out=index).astype(np.intp)

    cuts = first_bin_from((integers - 0.5) * scale)
    beyond = first_bin_from((integers[:, -1:] + 0.5) * scale)
    below = cuts[:, :1].copy()
    cuts[:, 0] = 0
    values = integers * scale
    held, moment = (_differences(s[cuts], s[-1]) for s in sums[:2])
    held *= values
    moment *= 2.0
    held -= moment
    errors = sums[2][-1] + np.einsum("ij,ij->i", values, held)
    if clipped_weight != 1.0:
        first, last = values[:, :1], values[:, -1:]
        under = [s[below] for s in sums]
        over = [s[-1] - s[beyond] for s in sums]
        clipped = under[2] - 2 * first * under[1] + first**2 * under[0]
        clipped += over[2] - 2 * last * over[1] + last**2 * over[0]
        errors += (clipped_weight - 1) * clipped[:, 0]
    return errors


def _differences(cumulated: Floats, total: float) -> Floats:
    """From each column to the next, and from the last to `total`, in place."""
    cumulated[:, :-1] -= cumulated[:, 1:]
    cumulated[:, -1] -= total
    return np.negative(cumulated, out=cumulated)
