"""Entropy: the threshold at which the rounded distribution is closest to the real one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studio.quant.grid import Grid
from studio.quant.observers.minmax import minmax
from studio.quant.observers.search import Floats, Range
from studio.quant.statistics import TensorStatistics

_AT_ONCE = 2**15
"""Levels of all thresholds that are summed at once: more would leave the processor's cache."""


def entropy(statistics: TensorStatistics, grid: Grid) -> Range:
    """Values beyond +-threshold are clipped where the Kullback-Leibler divergence is least.

    Works on the histogram of |x|. P is what lies below the threshold with all that lies above it
    counted in the last bin; Q is the same without, in as many levels as the grid has there (128
    for int8, 256 for uint8 behind a ReLU), spread evenly over the bins that are not empty.
    Thresholds from that number of bins upwards are tried; a grid finer than the bins keeps the
    whole range. (Migacz 2017, "8-bit inference with TensorRT", GTC; the bin at zero counts as much
    as its neighbour, as in NVIDIA's pytorch-quantization.)
    """
    if not statistics.has_spread:
        return minmax(statistics)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    peak = max(high, -low)
    width = (statistics.high - statistics.low) / statistics.counts.size
    levels = _levels(low, high, grid)
    bins = np.floor(np.abs(statistics.centres) / width).astype(np.intp)
    counts = np.bincount(bins, weights=statistics.counts).astype(np.float64)
    counts = counts[: int(np.flatnonzero(counts)[-1]) + 1]
    # The zeros behind a Relu are on every grid; counted, they would outweigh all else.
    counts[0] = counts[min(1, counts.size - 1)]
    if counts.size <= levels:
        return minmax(statistics)
    tried = np.arange(counts.size, levels - 1, -1)
    best = int(tried[np.argmin(divergences(counts, tried, levels))])
    if best == counts.size:
        return minmax(statistics)
    threshold = min((best + 0.5) * width, peak)
    return max(low, -threshold), min(high, threshold)


def _levels(low: float, high: float, grid: Grid) -> int:
    """Integers of the grid between zero and the end of the range that lies farther out."""
    if grid.symmetric and not (grid.unsigned_symmetric and low == 0.0):
        return grid.qmax - grid.middle + 1
    return max(2, round((grid.steps + 1) * max(high, -low) / (high - low)))


def divergences(counts: Floats, tried: npt.NDArray[np.intp], levels: int) -> Floats:
    """KL divergence of P and Q for thresholds at the ends of the first `tried` bins, (tried,).

    counts: (bins,). Level j of i bins covers bins j * i // levels to (j + 1) * i // levels.
    Infinite where Q has nothing in the last bin and P has.
    """
    total = counts.sum()
    cumulated = np.append(0.0, np.cumsum(counts)).astype(np.float32)
    filled = np.append(0.0, np.cumsum(counts > 0)).astype(np.float32)
    kept = np.append(0.0, np.cumsum(counts))[tried]
    beyond, last = total - kept, counts[tried - 1]
    cross = np.empty(len(tried))
    at_once = max(1, _AT_ONCE // levels)
    level = np.arange(levels + 1, dtype=np.int32)
    for start in range(0, len(tried), at_once):
        part = slice(start, start + at_once)
        ends = tried[part, None].astype(np.int32) * level // levels
        held = np.diff(cumulated[ends], axis=1)
        # Logarithm of what Q has in each bin of a level that is not empty.
        share = np.maximum(held, 1.0)
        share /= np.maximum(np.diff(filled[ends], axis=1), 1.0)
        np.log(share, out=share)
        cross[part] = np.einsum("ij,ij->i", held, share) + beyond[part] * share[:, -1]
    before = np.append(0.0, np.cumsum(_x_log_x(counts)))[tried - 1]
    own = before + _x_log_x(last + beyond)
    found = (own - cross) / total - np.log(total) + np.log(np.maximum(kept, 1.0))
    return np.where((last == 0) & (beyond > 0), np.inf, found)


def _x_log_x(x: Floats) -> Floats:
    return x * np.log(np.maximum(x, 1.0))
