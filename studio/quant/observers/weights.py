"""Encodings of constants: per tensor, per channel, per block, from the values themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers.entropy import entropy
from studio.quant.observers.search import Floats
from studio.quant.observers.sqnr import GAMMA
from studio.quant.statistics import Histogram, TensorStatistics

_SEARCHED = {"mse": 1.0, "sqnr": GAMMA, "tf_enhanced": GAMMA, "entropy": 1.0}
"""Methods that search the least squared error, and what a clipped value counts."""

_AT_ONCE = 2**16
"""Weights rounded at once: what stays in the processor's cache."""

_LOWEST, _COARSE, _FINE = 0.3, 10, 6


@dataclass(frozen=True)
class _Rows:
    """A constant as a matrix: one row for each scale. `shape` is that of the encoding's scale."""

    values: npt.NDArray[np.float32]
    shape: tuple[int, ...]


def weight_encoding(
    weight: npt.NDArray[np.float32],
    grid: Grid | FloatGrid,
    axis: int | None,
    observer: str,
    *,
    percent: float = 100.0,
    block_size: int | None = None,
    lpbq: bool = False,
) -> Encoding:
    """Encoding of a constant by the method named `observer`, each channel or block by itself.

    `minmax`, `moving_average` and `isotone` take the exact range; `percentile` the values between
    the (100 - percent)th and the `percent`th of each row; `mse`, `sqnr` and `tf_enhanced` the one
    of 16 shrunken ranges with the least squared error (the latter two with the clipped values
    threefold); `entropy` TensorRT's threshold per tensor, and as `mse` for channels and blocks,
    whose few values make no histogram. A row of zeros gets the smallest scale.
    """
    rows = _rows(weight, axis, block_size)
    low = rows.values.min(axis=1, initial=0.0).astype(np.float64)
    high = rows.values.max(axis=1, initial=0.0).astype(np.float64)
    unscaled = isinstance(grid, FloatGrid) and not grid.scaled
    if rows.values.size and not unscaled:
        if observer == "percentile" and percent < 100:
            low, high = _percentiles(rows.values, percent)
        elif observer == "entropy" and axis is None and isinstance(grid, Grid):
            low, high = _entropy(rows.values, grid)
        elif observer in _SEARCHED:
            low, high = _least_error(rows.values, low, high, grid, _SEARCHED[observer])
    return encoding_from_range(
        low.reshape(rows.shape), high.reshape(rows.shape), grid, axis, block_size, lpbq
    )


def _rows(weight: npt.NDArray[np.float32], axis: int | None, block_size: int | None) -> _Rows:
    if axis is None:
        return _Rows(weight.reshape(1, -1), ())
    if block_size is None:
        moved = np.moveaxis(weight, axis, 0)
        return _Rows(moved.reshape(len(moved), -1), (len(moved),))
    blocks = -(-weight.shape[axis] // block_size)
    padding = [(0, 0)] * weight.ndim
    # Zeros change neither a range that includes zero nor an error.
    padding[axis] = (0, blocks * block_size - weight.shape[axis])
    padded = np.moveaxis(np.pad(weight, padding) if padding[axis][1] else weight, axis, -1)
    outer = padded.shape[:-1]
    values = padded.reshape(*outer, blocks, block_size)
    # The scales go in the order of the tensor's axes.
    ordered = np.moveaxis(values, -2, axis)
    shape = ordered.shape[:-1]
    return _Rows(np.ascontiguousarray(ordered).reshape(-1, block_size), shape)


def _percentiles(rows: npt.NDArray[np.float32], percent: float) -> tuple[Floats, Floats]:
    low, high = np.quantile(
        rows, [1 - percent / 100, percent / 100], axis=1, method="inverted_cdf"
    ).astype(np.float64)
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def _entropy(rows: npt.NDArray[np.float32], grid: Grid) -> tuple[Floats, Floats]:
    values = np.ravel(rows)
    low, high = float(values.min()), float(values.max())
    histogram = Histogram()
    histogram.add(values, low, high)
    found = entropy(TensorStatistics(low, high, *histogram.statistics()), grid)
    return np.array([min(found[0], 0.0)]), np.array([max(found[1], 0.0)])


def _least_error(
    rows: npt.NDArray[np.float32],
    low: Floats,
    high: Floats,
    grid: Grid | FloatGrid,
    clipped_weight: float,
) -> tuple[Floats, Floats]:
    """For each row the shrunken range of least squared error: 10 from 1 to 0.3 times the range,
    then 6 between the neighbours of the best."""
    # The highest values of a power-of-two float block saturate unless its scale is one wider.
    widest = 2.0 if isinstance(grid, FloatGrid) and grid.power_of_two else 1.0
    if not rows.flags.writeable:  # as mapped files are; torch warns of them
        rows = rows.copy()
    step = (widest - _LOWEST) / (_COARSE - 1)
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)

    def try_factors(factors: Floats) -> None:
        encoding = encoding_from_range(low * factors, high * factors, grid, axis=0)
        errors = _row_errors(rows, encoding, clipped_weight)
        better = errors < least
        least[better], best[better] = errors[better], factors[better]

    for factor in np.linspace(widest, _LOWEST, _COARSE):
        try_factors(np.full(len(rows), factor))
    centre = best.copy()
    for offset in np.linspace(-step, step, _FINE + 2)[1:-1]:
        try_factors(np.minimum(centre + offset, widest))
    return low * best, high * best


def _row_errors(rows: npt.NDArray[np.float32], encoding: Encoding, clipped_weight: float) -> Floats:
    """Squared error of each row under its own scale, (rows,)."""
    errors = np.zeros(len(rows))
    high_rows = max(1, _AT_ONCE // rows.shape[1])
    for top in range(0, len(rows), high_rows):
        part = slice(top, top + high_rows)
        for left in range(0, rows.shape[1], _AT_ONCE):
            values = rows[part, left : left + _AT_ONCE]
            errors[part] += _part_errors(values, encoding, part, clipped_weight)
    return errors


def _part_errors(
    values: npt.NDArray[np.float32], encoding: Encoding, part: slice, clipped_weight: float
) -> npt.NDArray[np.float32]:
    """Squared error of each row: in steps, then times the squared scale."""
    import torch

    from studio.quant.fake_quantize import Bound, clamp
    from studio.quant.rounding import bounds, round_

    scale, zero_point = encoding.scale[part], encoding.zero_point[part]
    steps = torch.from_numpy(values).div(torch.from_numpy(scale[:, None]))
    low: Bound
    high: Bound
    low, high = bounds(encoding.grid)
    if (zero_point == zero_point[0]).all():
        low, high = low - float(zero_point[0]), high - float(zero_point[0])
    else:
        offset = torch.from_numpy(zero_point[:, None].astype(np.float32))
        low, high = low - offset, high - offset
    error = round_(clamp(steps, low, high), encoding.grid).sub_(steps)
    squares = error.square().sum(dim=1)
    if clipped_weight != 1.0 and isinstance(encoding.grid, Grid):
        # What was only rounded is off by half a step at most.
        clipped = torch.nn.functional.hardshrink(error, 0.5).square_().sum(dim=1)
        squares.add_(clipped, alpha=clipped_weight - 1.0)
    return squares.numpy() * np.square(scale)
