"""Percentile: the range that holds a share of the values."""

from __future__ import annotations

import numpy as np

from studio.quant.observers.minmax import minmax
from studio.quant.observers.search import Range
from studio.quant.statistics import TensorStatistics


def percentile(statistics: TensorStatistics, percent: float) -> Range:
    """The range from the (100 - percent)th to the `percent`th percentile, 50 to 100.

    Ends are the left edges of the histogram's bins in which the cumulated counts reach the share;
    at 100 they are the exact ends. (As AIMET's PercentileEncodingAnalyzer.)
    """
    if percent >= 100 or not statistics.has_spread:
        return minmax(statistics)
    cumulated = np.cumsum(statistics.counts)
    share, last = percent / 100, statistics.counts.size - 1
    upper = int(np.searchsorted(cumulated, cumulated[-1] * share))
    lower = int(np.searchsorted(cumulated, cumulated[-1] * (1 - share)))
    edges = statistics.edges
    low, high = edges[min(lower, last)], edges[min(upper, last)]
    # The outermost bins reach beyond the values.
    return max(float(low), statistics.minimum), min(float(high), statistics.maximum)
