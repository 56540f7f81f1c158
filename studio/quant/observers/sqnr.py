"""SQNR: AIMET's search, in which clipping costs more than rounding; and its older TF-enhanced."""

from __future__ import annotations

import numpy as np

from studio.quant.grid import Grid
from studio.quant.observers.minmax import minmax
from studio.quant.observers.search import Floats, Range, squared_errors
from studio.quant.statistics import TensorStatistics

GAMMA = 3.0
"""What the squared error of a clipped value counts."""

_DELTAS, _SYMMETRIC_DELTAS, _OFFSETS = 17, 101, 21

_TF_BINS = 512
_TF_GROWTH = 1.5


def sqnr(statistics: TensorStatistics, grid: Grid) -> Range:
    """The candidate range with the least squared error over the histogram, the clipped threefold.

    Asymmetric: 17 scales up to 17/16 of the whole range's with 21 zero points each; symmetric: 101
    scales. (AIMET 2, SqnrEncodingAnalyzer: p = 2, gamma = 3.)
    """
    if not statistics.has_spread:
        return minmax(statistics)
    lows, highs = sqnr_candidates(statistics.minimum, statistics.maximum, grid)
    best = int(np.argmin(squared_errors(statistics, lows, highs, grid, GAMMA)))
    return float(lows[best]), float(highs[best])


def tf_enhanced(statistics: TensorStatistics, grid: Grid) -> Range:
    """As `sqnr` on 512 bins that reach 1.5 times the first batch's range beyond it; values farther
    out count at the ends. (AIMET 2, TfEnhancedEncodingAnalyzer.)"""
    if not statistics.has_spread:
        return minmax(statistics)
    return sqnr(_limited(statistics), grid)


def sqnr_candidates(minimum: float, maximum: float, grid: Grid) -> tuple[Floats, Floats]:
    """Ends of the ranges that are tried: (candidates,) each."""
    low, high = min(minimum, 0.0), max(maximum, 0.0)
    steps = grid.steps
    if grid.symmetric:
        factors = np.arange(1, _SYMMETRIC_DELTAS + 1) / (_SYMMETRIC_DELTAS - 1)
        if grid.unsigned_symmetric and low == 0.0:
            return np.zeros(factors.size), high * factors
        deltas = 2 * max(high, -low) / steps * factors
        offset = -steps // 2
        return offset * deltas, (offset + steps) * deltas
    widest = (high - low) / steps
    number = min(steps + 2, _OFFSETS)
    offsets = np.append(np.rint(np.linspace(-steps, 0, number - 1)), np.rint(low / widest))
    deltas = widest * np.arange(1, _DELTAS + 1) / (_DELTAS - 1)
    delta, offset = (array.ravel() for array in np.meshgrid(deltas, offsets, indexing="ij"))
    lows = np.maximum(delta * offset, low)
    highs = np.minimum(delta * offset + steps * delta, high)
    delta = (highs - lows) / steps
    kept = delta > 0
    delta, lows = delta[kept], lows[kept]
    lows = np.rint(lows / delta) * delta
    return lows, lows + steps * delta


def _limited(statistics: TensorStatistics) -> TensorStatistics:
    low, high = statistics.minimum, statistics.maximum
    if len(statistics.batch_ranges):
        first_low, first_high = (float(end) for end in statistics.batch_ranges[0])
        reach = _TF_GROWTH * (first_high - first_low)
        if reach > 0:
            low, high = max(low, first_low - reach), min(high, first_high + reach)
    used = np.flatnonzero(statistics.counts)
    position = (statistics.centres[used] - low) / (high - low) * _TF_BINS
    bins = np.clip(np.floor(position), 0, _TF_BINS - 1).astype(np.intp)
    counts = np.bincount(bins, weights=statistics.counts[used], minlength=_TF_BINS)
    return TensorStatistics(low, high, counts.astype(np.int64), low, high)
