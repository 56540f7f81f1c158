"""Calibration methods against exhaustive search and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid
from studio.quant.observers import minmax, mse, weight_encoding
from studio.quant.statistics import Histogram, TensorStatistics

U4 = Grid(4, signed=False, symmetric=False)
S4 = Grid(4, signed=True, symmetric=True)


def statistics_of(values: np.ndarray) -> TensorStatistics:
    histogram = Histogram()
    low, high = float(values.min()), float(values.max())
    histogram.add(values, low, high)
    counts, first, last = histogram.statistics()
    return TensorStatistics(low, high, counts, first, last)


def error(values: np.ndarray, encoding) -> float:
    return float(np.square(encoding.quantize_dequantize(values) - values).mean())


def test_minmax_clips_nothing() -> None:
    values = np.random.default_rng(1).normal(size=4000).astype(np.float32)
    encoding = minmax(statistics_of(values), Grid(8, signed=False, symmetric=False))
    step = float(encoding.scale)
    assert encoding.minimum <= values.min() + step
    assert encoding.maximum >= values.max() - step


@pytest.mark.parametrize("grid", [U4, S4], ids=str)
def test_mse_is_as_good_as_an_exhaustive_search(grid: Grid) -> None:
    values = np.random.default_rng(2).standard_t(3, size=20000).astype(np.float32)
    found = error(values, mse(statistics_of(values), grid))
    low, high = float(values.min()), float(values.max())
    factors = np.linspace(0.01, 1, 60)
    pairs = (
        [(f, f) for f in factors] if grid.symmetric else [(f, g) for f in factors for g in factors]
    )
    best = min(error(values, encoding_from_range(low * f, high * g, grid)) for f, g in pairs)
    assert found <= 1.03 * best
    assert found < 0.5 * error(values, minmax(statistics_of(values), grid))


def test_mse_of_a_relu_output_keeps_zero_as_lower_end() -> None:
    values = np.maximum(np.random.default_rng(3).normal(size=20000), 0).astype(np.float32)
    encoding = mse(statistics_of(values), Grid(8, signed=False, symmetric=False))
    assert encoding.minimum == 0.0


def test_weights_per_channel_have_one_scale_a_channel() -> None:
    weight = np.random.default_rng(4).normal(size=(6, 3, 3, 3)).astype(np.float32)
    weight *= np.arange(1, 7, dtype=np.float32).reshape(-1, 1, 1, 1)
    encoding = weight_encoding(weight, Grid(8, signed=True, symmetric=True), 0, "minmax")
    rows = weight.reshape(6, -1).astype(np.float64)
    expected = np.maximum(rows.max(1) / 127, -rows.min(1) / 128).astype(np.float32)
    np.testing.assert_array_equal(encoding.scale, expected)


def test_mse_of_weights_is_never_worse_than_minmax() -> None:
    weight = np.random.default_rng(5).standard_t(4, size=(8, 200)).astype(np.float32)
    plain, tuned = (weight_encoding(weight, S4, 0, name) for name in ("minmax", "mse"))
    errors = [
        np.square(e.quantize_dequantize(weight) - weight).mean(axis=1) for e in (plain, tuned)
    ]
    assert (errors[1] <= errors[0] * (1 + 1e-6)).all()
    assert errors[1].mean() < 0.8 * errors[0].mean()
