"""Every calibration method beside each other, on the same values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers.observed import observed_encoding
from studio.quant.observers.weights import weight_encoding
from studio.quant.statistics import TensorStatistics

METHODS = (
    "minmax", "moving_average", "percentile", "mse", "sqnr", "tf_enhanced", "entropy", "isotone",
)  # fmt: skip


@dataclass(frozen=True)
class ObserverResult:
    """What a method makes of a tensor.

    minimum, maximum: ends of the grid (over all channels). clipped: share of the values
    outside by more than rounding (half a step; floats: at all).
    mse: mean squared error of rounding and clipping. sqnr_db: power of the values to that, in dB.
    """

    observer: str
    minimum: float
    maximum: float
    clipped: float
    mse: float
    sqnr_db: float


def compare_activation_observers(
    statistics: TensorStatistics,
    grid: Grid | FloatGrid,
    percent: float,
) -> tuple[ObserverResult, ...]:
    """All methods on collected `statistics`, in the order of `METHODS`.

    Errors are those of the histogram, whose values lie at the centres of its bins (the zeros behind
    a ReLU: at zero). Empty without a histogram. `percent` belongs to `percentile`.
    """
    if not statistics.has_spread:
        return ()
    used = np.flatnonzero(statistics.counts)
    centres = np.clip(statistics.centres[used], statistics.minimum, statistics.maximum)
    if statistics.minimum >= 0.0:  # a bin that starts at zero is that of the zeros
        centres = np.where(statistics.edges[used] == 0.0, 0.0, centres)
    counts = statistics.counts[used].astype(np.float64)
    results = []
    for name in METHODS:
        encoding = observed_encoding(statistics, grid, name, percent)
        results.append(_result(name, encoding, centres.astype(np.float32), counts))
    return tuple(results)


def compare_weight_observers(
    weight: npt.NDArray[np.float32],
    grid: Grid | FloatGrid,
    axis: int | None,
    *,
    percent: float,
    block_size: int | None = None,
    lpbq: bool = False,
) -> tuple[ObserverResult, ...]:
    """All methods on a constant, each channel or block by itself; errors are exact."""
    results = []
    for name in METHODS:
        encoding = weight_encoding(
            weight, grid, axis, name, percent=percent, block_size=block_size, lpbq=lpbq
        )
        results.append(_result(name, encoding, weight, None))
    return tuple(results)


def _result(
    name: str,
    encoding: Encoding,
    values: npt.NDArray[np.float32],
    counts: npt.NDArray[np.float64] | None,
) -> ObserverResult:
    rounded = encoding.quantize_dequantize(values).astype(np.float64)
    exact = values.astype(np.float64)
    low, high = (encoding.spread(end, values.shape) for end in (encoding.minimum, encoding.maximum))
    # What lies within half a step of an end is rounded, not clipped.
    half = encoding.spread(encoding.scale, values.shape) / 2
    if isinstance(encoding.grid, FloatGrid):
        half = np.zeros_like(half)
    outside = (exact < low - half) | (exact > high + half)
    weights = np.ones(values.shape) if counts is None else counts
    total = float(weights.sum()) or 1.0
    noise = float((np.square(rounded - exact) * weights).sum()) / total
    power = float((np.square(exact) * weights).sum()) / total
    return ObserverResult(
        name,
        float(encoding.minimum.min()),
        float(encoding.maximum.max()),
        float((outside * weights).sum()) / total,
        noise,
        _decibels(power, noise),
    )


def _decibels(power: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0 else -math.inf
