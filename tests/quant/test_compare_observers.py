"""Methods compared on equal values: the errors are those of the values themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers import OBSERVERS, observed_encoding
from studio.quant.observers.compare import (
    METHODS,
    compare_activation_observers,
    compare_weight_observers,
)
from studio.quant.statistics import Histogram, TensorStatistics

U8 = Grid(8, signed=False, symmetric=False)
S4 = Grid(4, signed=True, symmetric=True)


def statistics_of(values: np.ndarray) -> TensorStatistics:
    histogram = Histogram()
    low, high = float(values.min()), float(values.max())
    histogram.add(values, low, high)
    return TensorStatistics(low, high, *histogram.statistics())


def test_every_method_is_compared():
    assert set(METHODS) == {*OBSERVERS, "percentile"}


@pytest.mark.parametrize("grid", [U8, S4, FloatGrid("float8e4m3fn")], ids=str)
@pytest.mark.parametrize("positive", [False, True])
def test_errors_of_a_histogram_are_those_of_the_values(grid, positive):
    rng = np.random.default_rng(1)
    values = rng.laplace(size=100_000).astype(np.float32)
    values = np.maximum(values, 0) if positive else values
    statistics = statistics_of(values)
    for result in compare_activation_observers(statistics, grid, 99.9):
        encoding = observed_encoding(statistics, grid, result.observer, 99.9)
        error = np.square(encoding.quantize_dequantize(values).astype(np.float64) - values)
        power = np.square(values.astype(np.float64)).mean()
        assert result.mse == pytest.approx(error.mean(), rel=0.05)
        assert result.sqnr_db == pytest.approx(10 * math.log10(power / error.mean()), abs=0.2)
        assert (result.minimum, result.maximum) == (encoding.minimum, encoding.maximum)
        half = float(encoding.scale) / 2 if isinstance(grid, Grid) else 0.0
        low, high = float(encoding.minimum) - half, float(encoding.maximum) + half
        outside = (values < low) | (values > high)
        assert result.clipped == pytest.approx(outside.mean(), abs=0.002)


def test_weights_of_channels():
    rng = np.random.default_rng(2)
    weight = (rng.normal(size=(4, 50)) * [[1], [10], [0.1], [3]]).astype(np.float32)
    found = {r.observer: r for r in compare_weight_observers(weight, S4, 0, percent=99.0)}
    scale = np.maximum(weight.max(axis=1) / 7, -weight.min(axis=1) / 8)[:, None]
    rounded = np.clip(np.rint(weight / scale), -8, 7) * scale
    assert found["minmax"].mse == pytest.approx(np.square(rounded - weight).mean(), rel=1e-4)
    assert found["minmax"].clipped == 0.0
    assert found["mse"].sqnr_db >= found["minmax"].sqnr_db


def test_nothing_to_compare_without_spread():
    values = np.full(100, 2.0, dtype=np.float32)
    assert compare_activation_observers(statistics_of(values), U8, 99.9) == ()
    zeros = compare_weight_observers(np.zeros((2, 3), np.float32), S4, 0, percent=99.0)
    assert all(result.sqnr_db == math.inf for result in zeros), "exact"
