"""From statistics to an encoding: the calibration methods.

Every method works on collected statistics alone, so changing the method or the bitwidth never needs
the data again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import Grid
from studio.quant.statistics import TensorStatistics

Observer = Callable[[TensorStatistics, Grid], Encoding]


def minmax(statistics: TensorStatistics, grid: Grid) -> Encoding:
    """The whole range: nothing is clipped."""
    return encoding_from_range(statistics.minimum, statistics.maximum, grid)


def mse(statistics: TensorStatistics, grid: Grid) -> Encoding:
    """The clipping range with the least mean squared error over the histogram.

    Candidates shrink the low and the high end of the range; the error of each is computed on the
    real grid (rounding and clipping together). (Nagel et al. 2021, arXiv 2106.08295, eq. 8.)
    """
    if not statistics.has_histogram or statistics.minimum == statistics.maximum:
        return minmax(statistics, grid)
    used = np.flatnonzero(statistics.counts)
    centres = statistics.centres[used]
    weights = statistics.counts[used].astype(np.float64)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    lows, highs = _candidates(low, high, grid, np.linspace(0.1, 1.0, 19))
    best = _least_error(lows, highs, centres, weights, grid)
    step_low, step_high = -low * 0.05, high * 0.05
    fine = np.linspace(-1.0, 1.0, 9)
    if grid.symmetric:
        lows, highs = lows[best] - step_low * fine, highs[best] + step_high * fine
    else:
        grid_low, grid_high = np.meshgrid(
            lows[best] - step_low * fine, highs[best] + step_high * fine
        )
        lows, highs = grid_low.ravel(), grid_high.ravel()
    lows, highs = np.clip(lows, low, 0.0), np.clip(highs, 0.0, high)
    best = _least_error(lows, highs, centres, weights, grid)
    return encoding_from_range(lows[best], highs[best], grid)


def _candidates(
    low: float, high: float, grid: Grid, factors: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if grid.symmetric:
        return low * factors, high * factors
    lows, highs = np.meshgrid(
        low * factors if low < 0 else [0.0], high * factors if high > 0 else [0.0]
    )
    return lows.ravel(), highs.ravel()


def _least_error(
    lows: npt.NDArray[np.float64],
    highs: npt.NDArray[np.float64],
    centres: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    grid: Grid,
) -> int:
    """Index of the candidate range with the least weighted squared error."""
    encoding = encoding_from_range(lows, highs, grid, axis=0)
    scale = encoding.scale.astype(np.float64)[:, None]
    zero_point = encoding.zero_point[:, None]
    steps = np.rint(centres / scale)
    np.clip(steps, grid.qmin - zero_point, grid.qmax - zero_point, out=steps)
    steps *= scale
    steps -= centres
    np.square(steps, out=steps)
    return int(np.argmin(steps @ weights))


OBSERVERS: dict[str, Observer] = {"minmax": minmax, "mse": mse}
"""Calibration methods by name."""


def weight_encoding(
    weight: npt.NDArray[np.float32], grid: Grid, axis: int | None, observer: str
) -> Encoding:
    """Encoding of a constant: exact ranges per tensor or per channel along `axis`.

    `mse` tries 48 shrunken ranges per channel on the weights themselves.
    """
    rows = (
        weight.reshape(1, -1)
        if axis is None
        else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    )
    low = np.minimum(rows.min(axis=1, initial=0.0), 0.0).astype(np.float64)
    high = np.maximum(rows.max(axis=1, initial=0.0), 0.0).astype(np.float64)
    if observer == "mse":
        low, high = _least_error_per_row(rows, low, high, grid)
    if axis is None:
        return encoding_from_range(low[0], high[0], grid)
    return encoding_from_range(low, high, grid, axis)


def _least_error_per_row(
    rows: npt.NDArray[np.float32],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    grid: Grid,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    best_error = np.full(len(rows), np.inf)
    best = np.ones(len(rows))
    buffer = np.empty_like(rows)
    for factor in np.linspace(1.0, 0.3, 48):
        encoding = encoding_from_range(low * factor, high * factor, grid, axis=0)
        scale = encoding.scale[:, None]
        np.divide(rows, scale, out=buffer)
        np.rint(buffer, out=buffer)
        zero_point = encoding.zero_point[:, None]
        np.clip(buffer, grid.qmin - zero_point, grid.qmax - zero_point, out=buffer)
        buffer *= scale
        buffer -= rows
        error = np.einsum("ij,ij->i", buffer, buffer)
        better = error < best_error
        best_error[better] = error[better]
        best[better] = factor
    return low * best, high * best
