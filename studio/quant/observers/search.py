"""What searches over candidate ranges share: the squared error of each, from a histogram."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.statistics import TensorStatistics

Range = tuple[float, float]
Floats = npt.NDArray[np.float64]

_LEVELS_AT_ONCE, _BINS_AT_ONCE = 2**13, 2**16
"""Numbers a block of candidates takes: fresh memory for more of them costs more than the sums."""


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
    encoding = encoding_from_range(lows, highs, grid, axis=0)
    counts = statistics.counts.astype(np.float64)
    if isinstance(grid, Grid) and grid.steps < counts.size:
        work: _ByLevel | _ByBin = _ByLevel(statistics, counts, grid, clipped_weight)
        at_once = _LEVELS_AT_ONCE // (grid.steps + 1)
    else:
        work = _ByBin(statistics, counts, grid, clipped_weight)
        at_once = _BINS_AT_ONCE // counts.size
    errors = np.empty(len(lows))
    at_once = max(1, at_once)
    for start in range(0, len(lows), at_once):
        part = slice(start, start + at_once)
        errors[part] = work(encoding.scale[part], encoding.zero_point[part])
    return errors


class _ByBin:
    """Every bin's centre rounded: for grids finer than the bins, and floats."""

    def __init__(
        self,
        statistics: TensorStatistics,
        counts: Floats,
        grid: Grid | FloatGrid,
        clipped_weight: float,
    ) -> None:
        used = np.flatnonzero(counts)
        self.centres, self.counts = statistics.centres[used], counts[used]
        self.grid = grid
        self.clipped_weight = clipped_weight

    def __call__(
        self, scales: npt.NDArray[np.float32], zero_points: npt.NDArray[np.int64]
    ) -> Floats:
        if isinstance(self.grid, FloatGrid):
            values = np.repeat(self.centres[None].astype(np.float32), len(scales), axis=0)
            rounded = Encoding(self.grid, scales, zero_points, 0).quantize_dequantize(values)
            return np.square(rounded.astype(np.float64) - self.centres) @ self.counts
        scale, zero_point = scales.astype(np.float64)[:, None], zero_points[:, None]
        exact = np.rint(self.centres / scale)
        steps = np.clip(exact, self.grid.qmin - zero_point, self.grid.qmax - zero_point)
        clipped = steps != exact if self.clipped_weight != 1.0 else None
        steps *= scale
        steps -= self.centres
        np.square(steps, out=steps)
        if clipped is not None:
            np.multiply(steps, self.clipped_weight, out=steps, where=clipped)
        return steps @ self.counts


class _ByLevel:
    """Integers fewer than bins: the bins that round to one integer are summed at once.

    sum h (c - v)**2 = sum h c**2 - 2 v sum h c + v**2 sum h, each sum the difference of two
    cumulated ones.
    """

    def __init__(
        self, statistics: TensorStatistics, counts: Floats, grid: Grid, clipped_weight: float
    ) -> None:
        centres = statistics.centres
        moments = (counts, counts * centres, counts * np.square(centres))
        self.sums = [np.append(0.0, np.cumsum(moment)) for moment in moments]
        self.bins = counts.size
        self.bins_per_unit = counts.size / (statistics.high - statistics.low)
        self.first = centres[0] * self.bins_per_unit
        self.integers = np.arange(grid.qmin, grid.qmax + 1, dtype=np.float64)
        self.clipped_weight = clipped_weight

    def __call__(
        self, scales: npt.NDArray[np.float32], zero_points: npt.NDArray[np.int64]
    ) -> Floats:
        scale = scales.astype(np.float64)[:, None]
        steps = self.integers - zero_points[:, None]
        values = steps * scale
        cuts = self._first_bin_from(values - 0.5 * scale)
        below = cuts[:, 0].copy()
        cuts[:, 0] = 0
        held, moment = (_differences(s.take(cuts), s[-1]) for s in self.sums[:2])
        held *= values
        moment *= 2.0
        held -= moment
        errors = self.sums[2][-1] + np.einsum("ij,ij->i", values, held)
        if self.clipped_weight != 1.0:
            first, last = values[:, 0], values[:, -1]
            beyond = self._first_bin_from(last + 0.5 * scale[:, 0])
            under = [s[below] for s in self.sums]
            over = [s[-1] - s[beyond] for s in self.sums]
            clipped = under[2] - 2 * first * under[1] + first**2 * under[0]
            clipped += over[2] - 2 * last * over[1] + last**2 * over[0]
            errors += (self.clipped_weight - 1) * clipped
        return errors

    def _first_bin_from(self, value: Floats) -> npt.NDArray[np.intp]:
        """Index of the first bin whose centre is not below `value`."""
        # Truncated after adding one: the next bin upwards.
        index = value * self.bins_per_unit
        index -= self.first - 1.0
        return np.clip(index, 0.0, float(self.bins), out=index).astype(np.intp)


def _differences(cumulated: Floats, total: float) -> Floats:
    """From each column to the next, and from the last to `total`, in place."""
    cumulated[:, :-1] -= cumulated[:, 1:]
    cumulated[:, -1] -= total
    return np.negative(cumulated, out=cumulated)
