"""Min-max: the whole range, nothing is clipped."""

from __future__ import annotations

from studio.quant.observers.search import Range
from studio.quant.statistics import TensorStatistics


def minmax(statistics: TensorStatistics) -> Range:
    """Lowest and highest value."""
    return statistics.minimum, statistics.maximum
