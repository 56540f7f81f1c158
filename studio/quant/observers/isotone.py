"""Isotone: the winner of a classifier stays the winner."""

from __future__ import annotations

import numpy as np

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import Grid
from studio.quant.observers.minmax import minmax
from studio.quant.observers.mse import candidates
from studio.quant.observers.search import Range, squared_errors
from studio.quant.statistics import TensorStatistics


def isotone(statistics: TensorStatistics, grid: Grid) -> Range:
    """The range under which the two highest scores of the most samples stay apart, once rounded.

    A wide range rounds close scores together, a narrow one clips them together. Among equals, the
    candidate with the least squared error wins. Other tensors than the scores of a classifier
    have the whole range. (After the isotone calibration of OpenPPL's PPQ, which asks the same of
    the scale in closed form.)
    """
    if not statistics.has_spread or not len(statistics.top_two):
        return minmax(statistics)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    lows, highs = candidates(low, high, grid, np.append(0.0, np.geomspace(0.01, 1.0, 32)))
    apart = np.array(
        [
            _apart(statistics, encoding_from_range(*ends, grid))
            for ends in zip(lows, highs, strict=True)
        ]
    )
    equals = np.flatnonzero(apart == apart.max())
    best = equals[np.argmin(squared_errors(statistics, lows[equals], highs[equals], grid))]
    return float(lows[best]), float(highs[best])


def _apart(statistics: TensorStatistics, encoding: Encoding) -> int:
    """Samples whose two highest scores differ once rounded."""
    first, second = encoding.quantize(statistics.top_two).T
    return int(np.count_nonzero(first > second))
