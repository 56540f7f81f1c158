"""MSE: the range with the least mean squared error, rounding and clipping together."""

from __future__ import annotations

import numpy as np

from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers.minmax import minmax
from studio.quant.observers.search import Floats, Range, squared_errors
from studio.quant.statistics import TensorStatistics


def mse(statistics: TensorStatistics, grid: Grid) -> Range:
    """The clipping range with the least squared error over the histogram, on the real grid.

    Both ends are shrunk to 19 candidates each (together where the grid is symmetric), then searched
    finer around the best. (Nagel et al. 2021, arXiv 2106.08295, eq. 8.)
    """
    if not statistics.has_spread:
        return minmax(statistics)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    lows, highs = candidates(low, high, grid, np.linspace(0.1, 1.0, 19))
    best = int(np.argmin(squared_errors(statistics, lows, highs, grid)))
    step_low, step_high = -low * 0.05, high * 0.05
    fine = np.linspace(-1.0, 1.0, 9)
    finer_lows, finer_highs = lows[best] - step_low * fine, highs[best] + step_high * fine
    if grid.symmetric:
        lows, highs = finer_lows, finer_highs
    else:
        lows, highs = _all_pairs(
            finer_lows if low < 0 else np.zeros(1), finer_highs if high > 0 else np.zeros(1)
        )
    lows, highs = np.clip(lows, low, 0.0), np.clip(highs, 0.0, high)
    best = int(np.argmin(squared_errors(statistics, lows, highs, grid)))
    return float(lows[best]), float(highs[best])


def float_mse(statistics: TensorStatistics, grid: FloatGrid) -> Range:
    """As `mse`, of a floating-point format: 64 scales down to an eighth of the greatest magnitude.

    A scaled float format loses little at the low end, so that the optimum is flat.
    """
    if not statistics.has_spread:
        return minmax(statistics)
    peak = max(-statistics.minimum, statistics.maximum)
    # Upwards too: a power-of-two scale saturates the highest values unless the range is wider.
    highs = peak * np.geomspace(0.125, 2.0, 65)[::-1]
    best = int(np.argmin(squared_errors(statistics, -highs, highs, grid)))
    return float(-highs[best]), float(highs[best])


def candidates(low: float, high: float, grid: Grid, factors: Floats) -> tuple[Floats, Floats]:
    """[low, high] shrunk by `factors`: both ends alike on a symmetric grid, else all pairs."""
    if grid.symmetric:
        return low * factors, high * factors
    return _all_pairs(
        low * factors if low < 0 else np.zeros(1), high * factors if high > 0 else np.zeros(1)
    )


def _all_pairs(lows: Floats, highs: Floats) -> tuple[Floats, Floats]:
    first, second = np.meshgrid(lows, highs)
    return first.ravel(), second.ravel()
