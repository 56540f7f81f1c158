"""Moving-average min-max: one odd batch does not set the range."""

from __future__ import annotations

import numpy as np

from studio.quant.observers.minmax import minmax
from studio.quant.observers.search import Range
from studio.quant.statistics import TensorStatistics

AVERAGING_CONSTANT = 0.01
"""Weight of a new batch: the default of torch.ao's MovingAverageMinMaxObserver."""


def moving_average(statistics: TensorStatistics) -> Range:
    """The exponential moving average of the batches' minima and maxima, in order.

    Starts at the first batch's range; each later batch moves both ends by `AVERAGING_CONSTANT` of
    the way to its own. (torch.ao.quantization.MovingAverageMinMaxObserver; Jacob et al. 2018,
    arXiv 1712.05877, section 3.1.) The whole range where the batches were not kept apart.
    """
    ranges = statistics.batch_ranges.astype(np.float64)
    if not len(ranges):
        return minmax(statistics)
    # What is left of batch k after the last one: weights of a closed form instead of a loop.
    weights = AVERAGING_CONSTANT * (1 - AVERAGING_CONSTANT) ** np.arange(len(ranges))[::-1]
    weights[0] = (1 - AVERAGING_CONSTANT) ** (len(ranges) - 1)
    low, high = weights @ ranges
    return float(low), float(high)
