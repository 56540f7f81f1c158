"""Calibration methods against exhaustive search, closed forms and published constants."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers import OBSERVERS, observed_encoding
from studio.quant.observers.entropy import entropy
from studio.quant.observers.isotone import isotone
from studio.quant.observers.minmax import minmax
from studio.quant.observers.moving_average import moving_average
from studio.quant.observers.percentile import percentile
from studio.quant.observers.search import squared_errors
from studio.quant.observers.sqnr import sqnr, sqnr_candidates, tf_enhanced
from studio.quant.statistics import BINS, Histogram, TensorStatistics

U4 = Grid(4, signed=False, symmetric=False)
S4 = Grid(4, signed=True, symmetric=True)
U8 = Grid(8, signed=False, symmetric=False)
S8 = Grid(8, signed=True, symmetric=True)
STRICT = Grid(8, signed=True, symmetric=True, strict=True)
U16 = Grid(16, signed=False, symmetric=False)
FP8 = FloatGrid("float8e4m3fn")
ALL = (*OBSERVERS, "percentile")


def statistics_of(values: np.ndarray, **others: np.ndarray) -> TensorStatistics:
    histogram = Histogram()
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    histogram.add(values, low, high)
    counts, first, last = histogram.statistics()
    return TensorStatistics(low, high, counts, first, last, **others)


def binned(values: np.ndarray, bins: int) -> TensorStatistics:
    """With a histogram as numpy makes it."""
    counts, edges = np.histogram(values, bins)
    return TensorStatistics(edges[0], edges[-1], counts, float(edges[0]), float(edges[-1]))


def heavy_tailed(seed: int = 2, size: int = 20000) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, size=size)


def error(values: np.ndarray, encoding: Encoding) -> float:
    return float(np.square(encoding.quantize_dequantize(values) - values).mean())


# --- min-max --------------------------------------------------------------------------------------


def test_minmax_clips_nothing() -> None:
    values = np.random.default_rng(1).normal(size=4000)
    encoding = observed_encoding(statistics_of(values), U8, "minmax")
    step = float(encoding.scale)
    assert encoding.minimum <= values.min() + step
    assert encoding.maximum >= values.max() - step


@pytest.mark.parametrize(
    ("values", "grid", "expected"),
    [
        (np.arange(0, 26, 0.5), U8, (0.0, 25.5)),
        (np.arange(0, 26, 0.5), STRICT, (-25.5, 25.5)),
        (np.arange(-2, 10), Grid(3, signed=True, symmetric=True), (-12.0, 9.0)),
    ],
)
def test_published_ranges_of_minmax(values, grid, expected) -> None:
    """The constants of AIMET's own unit tests."""
    encoding = observed_encoding(statistics_of(values), grid, "minmax")
    assert (float(encoding.minimum), float(encoding.maximum)) == pytest.approx(expected, rel=1e-6)


# --- moving average -------------------------------------------------------------------------------


def test_moving_average_is_torchs() -> None:
    """MovingAverageMinMaxObserver: x <- x + 0.01 * (current - x), from the first batch on."""
    ranges = np.random.default_rng(0).normal([-2, 3], 1, size=(40, 2)).astype(np.float32)
    low, high = (float(end) for end in ranges[0])
    for batch_low, batch_high in ranges[1:].astype(np.float64):
        low += 0.01 * (batch_low - low)
        high += 0.01 * (batch_high - high)
    statistics = TensorStatistics(-9.0, 9.0, np.zeros(0, np.int64), 0.0, 0.0, batch_ranges=ranges)
    assert moving_average(statistics) == pytest.approx((low, high), rel=1e-9)


def test_moving_average_of_one_batch_is_its_range() -> None:
    ranges = np.array([[-1.0, 2.0]], np.float32)
    statistics = TensorStatistics(-1.0, 2.0, np.zeros(0, np.int64), 0.0, 0.0, batch_ranges=ranges)
    assert moving_average(statistics) == (-1.0, 2.0)


# --- percentile -----------------------------------------------------------------------------------


def test_published_range_of_percentile() -> None:
    """AIMET's unit test: the 99th percentile of 0 to 1000 in 500 bins."""
    statistics = binned(np.arange(0, 1001), 500)
    encodings = [encoding_from_range(*percentile(statistics, 99.0), grid) for grid in (U8, STRICT)]
    assert float(encodings[0].minimum) == 0.0
    assert float(encodings[0].maximum) == pytest.approx(990.0)
    assert float(encodings[1].minimum) == pytest.approx(-990.0)
    assert float(encodings[1].maximum) == pytest.approx(990.0)


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.9, 99.99])
def test_percentile_against_sorted_values(percent: float) -> None:
    values = heavy_tailed(size=20011)  # no share of it is a whole number
    statistics = statistics_of(values)
    width = (statistics.high - statistics.low) / BINS
    low, high = percentile(statistics, percent)
    ordered = np.sort(values.astype(np.float32))
    upper = ordered[math.ceil(len(values) * percent / 100) - 1]
    lower = ordered[math.ceil(len(values) * (100 - percent) / 100) - 1]
    assert 0 <= upper - high <= width * 1.001
    assert 0 <= lower - low <= width * 1.001


def test_percentile_100_is_exact() -> None:
    statistics = statistics_of(heavy_tailed())
    assert percentile(statistics, 100.0) == minmax(statistics)


# --- errors of candidates -------------------------------------------------------------------------


def brute_force(statistics, lows, highs, grid, clipped_weight) -> np.ndarray:
    """From the definition, one candidate after the other, in float64."""
    edges = np.linspace(statistics.low, statistics.high, statistics.counts.size + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    found = []
    for low, high in zip(lows, highs, strict=True):
        encoding = encoding_from_range(low, high, grid)
        scale, zero = float(encoding.scale), int(encoding.zero_point)
        exact = np.round(centres / scale) + zero
        integers = np.clip(exact, grid.qmin, grid.qmax)
        squares = ((integers - zero) * scale - centres) ** 2
        squares[integers != exact] *= clipped_weight
        found.append((squares * statistics.counts).sum())
    return np.array(found)


@pytest.mark.parametrize("clipped_weight", [1.0, 3.0])
@pytest.mark.parametrize("grid", [U4, S4, U8, S8, STRICT, U16], ids=str)
def test_errors_of_candidates_against_brute_force(grid: Grid, clipped_weight: float) -> None:
    statistics = statistics_of(heavy_tailed(size=5000))
    rng = np.random.default_rng(0)
    lows = statistics.minimum * rng.uniform(0, 1.2, 30)
    highs = statistics.maximum * rng.uniform(0.05, 1.2, 30)
    lows[0], highs[1] = 0.0, 0.0
    found = squared_errors(statistics, lows, highs, grid, clipped_weight)
    expected = brute_force(statistics, lows, highs, grid, clipped_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_errors_of_float_candidates_against_ml_dtypes() -> None:
    import ml_dtypes

    statistics = statistics_of(heavy_tailed(size=3000))
    highs = np.array([0.5, 1.0, 4.0]) * statistics.maximum
    found = squared_errors(statistics, -highs, highs, FP8)
    for high, one in zip(highs, found, strict=True):
        scale = np.float32(high / 448)
        steps = np.clip(statistics.centres.astype(np.float32) / scale, -448, 448)
        rounded = steps.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
        expected = ((rounded - statistics.centres) ** 2 * statistics.counts).sum()
        assert one == pytest.approx(expected, rel=1e-5)


# --- MSE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [U4, S4], ids=str)
def test_mse_is_as_good_as_an_exhaustive_search(grid: Grid) -> None:
    values = heavy_tailed().astype(np.float32)
    found = error(values, observed_encoding(statistics_of(values), grid, "mse"))
    low, high = float(values.min()), float(values.max())
    factors = np.linspace(0.01, 1, 60)
    pairs = (
        [(f, f) for f in factors] if grid.symmetric else [(f, g) for f in factors for g in factors]
    )
    best = min(error(values, encoding_from_range(low * f, high * g, grid)) for f, g in pairs)
    assert found <= 1.03 * best
    assert found < 0.5 * error(values, observed_encoding(statistics_of(values), grid, "minmax"))


def test_mse_of_a_relu_output_keeps_zero_as_lower_end() -> None:
    values = np.maximum(np.random.default_rng(3).normal(size=20000), 0)
    assert float(observed_encoding(statistics_of(values), U8, "mse").minimum) == 0.0


def test_mse_of_a_float_format_is_no_worse_than_its_minmax() -> None:
    values = heavy_tailed().astype(np.float32)
    for grid in (FP8, FloatGrid("float4e2m1"), FloatGrid("float4e2m1", power_of_two=True)):
        plain, tuned = (
            error(values, observed_encoding(statistics_of(values), grid, name))
            for name in ("minmax", "mse")
        )
        assert tuned <= plain * (1 + 1e-3)
    assert tuned < 0.9 * plain


# --- SQNR -----------------------------------------------------------------------------------------


def aimet_candidates(low: float, high: float, steps: int) -> list[tuple[float, int]]:
    """(delta, offset) by AIMET's rule, asymmetric, in plain Python."""
    low, high = min(low, 0.0), max(high, 0.0)
    widest = (high - low) / steps
    number = min(steps + 2, 21)
    offsets = [round(-steps + steps / (number - 2) * k) for k in range(number - 1)]
    offsets.append(round(low / widest))
    found = []
    for k in range(1, 18):
        for offset in offsets:
            delta = widest * k / 16
            clipped_low = max(delta * offset, low)
            clipped_high = min(delta * offset + steps * delta, high)
            delta = (clipped_high - clipped_low) / steps
            if delta > 0:
                found.append((delta, round(clipped_low / delta)))
    return found


@pytest.mark.parametrize("shift", [0.0, 1.5, 40.0])
@pytest.mark.parametrize("bits", [4, 8])
def test_sqnr_picks_the_best_of_aimets_candidates(bits: int, shift: float) -> None:
    statistics = statistics_of(heavy_tailed(size=4000) + shift)
    grid = Grid(bits, signed=False, symmetric=False)
    centres, steps = statistics.centres, 2**bits - 1
    costs = {}
    for delta, offset in aimet_candidates(statistics.minimum, statistics.maximum, steps):
        exact = np.round(centres / delta - offset)
        integers = np.clip(exact, 0, steps)
        squares = ((integers + offset) * delta - centres) ** 2 * statistics.counts
        costs[delta, offset] = (squares * np.where(integers != exact, 3, 1)).sum()
    delta, offset = min(costs, key=costs.get)
    encoding = encoding_from_range(*sqnr(statistics, grid), grid)
    assert float(encoding.scale) == pytest.approx(delta, rel=1e-6)
    assert int(encoding.zero_point) == -offset


@pytest.mark.parametrize("strict", [False, True])
def test_symmetric_sqnr_picks_the_best_of_101_scales(strict: bool) -> None:
    grid = Grid(8, signed=True, symmetric=True, strict=strict)
    statistics = statistics_of(heavy_tailed(size=4000))
    peak = max(-statistics.minimum, statistics.maximum)
    centres, costs = statistics.centres, {}
    for k in range(1, 102):
        delta = 2 * peak / grid.steps * k / 100
        exact = np.round(centres / delta)
        integers = np.clip(exact, grid.qmin, grid.qmax)
        squares = (integers * delta - centres) ** 2 * statistics.counts
        costs[delta] = (squares * np.where(integers != exact, 3, 1)).sum()
    encoding = encoding_from_range(*sqnr(statistics, grid), grid)
    assert float(encoding.scale) == pytest.approx(min(costs, key=costs.get), rel=1e-6)


def test_published_best_candidate_of_sqnr() -> None:
    """AIMET's unit test: scales 1/255 and 2/255 with offsets -128 and 0, normal values."""
    values = np.random.default_rng(0).normal(size=(100, 100))
    statistics = statistics_of(values.ravel())
    pairs = list(itertools.product((1 / 255, 2 / 255), (-128, 0)))
    lows = np.array([delta * offset for delta, offset in pairs])
    highs = np.array([delta * (offset + 255) for delta, offset in pairs])
    assert pairs[int(np.argmin(squared_errors(statistics, lows, highs, U8, 3.0)))] == (
        2 / 255,
        -128,
    )


def test_sqnr_candidates_stay_within_the_values() -> None:
    lows, highs = sqnr_candidates(-1.0, 3.0, U8)
    width = (highs - lows) / 255
    assert (lows >= -1.0 - width).all()
    assert (highs <= 3.0 + width).all()


def test_tf_enhanced_ignores_what_lies_far_beyond_the_first_batch() -> None:
    values = np.append(np.random.default_rng(0).normal(size=20000), [400.0])
    first = np.array([[-4.0, 4.0], [-4.0, 400.0]], np.float32)
    limited = tf_enhanced(statistics_of(values, batch_ranges=first), U8)
    assert limited[1] == pytest.approx(4.0 + 1.5 * 8.0, abs=0.1)
    assert tf_enhanced(statistics_of(values), U8)[1] > 100


# --- entropy --------------------------------------------------------------------------------------


def divergence(counts: np.ndarray, i: int, levels: int) -> float:
    """KL(P || Q) for the first i bins, from the pseudocode of the TensorRT talk."""
    p = counts[:i].astype(np.float64)
    q = np.zeros(i)
    for level in range(levels):
        start, stop = level * i // levels, (level + 1) * i // levels
        filled = counts[start:stop] > 0
        if filled.any():
            q[start:stop][filled] = counts[start:stop].sum() / filled.sum()
    p[-1] += counts[i:].sum()
    p, q = p / p.sum(), q / q.sum()
    if ((p > 0) & (q == 0)).any():
        return math.inf
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


@pytest.mark.parametrize("grid", [S8, S4], ids=str)
def test_entropy_finds_the_least_divergence(grid: Grid) -> None:
    statistics = statistics_of(heavy_tailed(5))
    zero = round(-statistics.low / (statistics.high - statistics.low) * BINS)
    positive, negative = statistics.counts[zero:], statistics.counts[:zero][::-1]
    size = max(positive.size, negative.size)
    folded = np.zeros(size, np.int64)
    folded[: positive.size] += positive
    folded[: negative.size] += negative
    folded = folded[: np.flatnonzero(folded)[-1] + 1]
    folded[0] = folded[1]
    levels = grid.qmax + 1
    every = {i: divergence(folded, i, levels) for i in range(levels, folded.size + 1)}
    width = (statistics.high - statistics.low) / BINS
    low, high = entropy(statistics, grid)
    found = every[round(max(-low, high) / width - 0.5)]
    assert found <= min(every.values()) * 1.02 + 1e-9
    assert max(-low, high) < 0.9 * max(-statistics.minimum, statistics.maximum)


def test_entropy_behind_a_relu_uses_all_levels() -> None:
    values = np.abs(heavy_tailed(6))
    low, high = entropy(statistics_of(values), U8)
    assert low == 0.0
    statistics = statistics_of(values)
    width = (statistics.high - statistics.low) / BINS
    folded = statistics.counts[: np.flatnonzero(statistics.counts)[-1] + 1].copy()
    folded[0] = folded[1]
    every = {i: divergence(folded, i, 256) for i in range(256, folded.size + 1)}
    assert every[round(high / width - 0.5)] <= min(every.values()) * 1.02 + 1e-9


def test_entropy_does_not_mind_how_many_values_are_zero() -> None:
    values = np.abs(heavy_tailed(6))
    alone = entropy(statistics_of(values), U8)
    many = np.concatenate([values, np.zeros(20 * values.size, np.float32)])
    assert entropy(statistics_of(many), U8) == pytest.approx(alone)


def test_entropy_of_a_fine_grid_keeps_everything() -> None:
    statistics = statistics_of(heavy_tailed())
    assert entropy(statistics, U16) == minmax(statistics)


# --- isotone --------------------------------------------------------------------------------------


def test_isotone_keeps_the_winner_apart() -> None:
    """Scores of which one sample's outlier would widen the range until most winners tie."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, 10))
    scores[0, 0] = -60.0
    ordered = np.sort(scores, axis=1)
    pairs = ordered[:, :-3:-1].astype(np.float32)
    statistics = statistics_of(scores.ravel(), top_two=pairs)

    def apart(span: tuple[float, float]) -> int:
        encoding = encoding_from_range(*span, U4)
        return int((np.diff(encoding.quantize(pairs), axis=1) < 0).sum())

    low, high = statistics.minimum, statistics.maximum
    factors = np.linspace(0.02, 1, 50)
    best = max(apart((low * f, high * g)) for f in factors for g in factors)
    assert apart(isotone(statistics, U4)) >= 0.97 * best
    assert apart(isotone(statistics, U4)) > 3 * apart((low, high))


def test_isotone_without_scores_is_minmax() -> None:
    statistics = statistics_of(heavy_tailed())
    assert isotone(statistics, U8) == minmax(statistics)


# --- degenerate tensors ---------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [U8, S8, U16, FP8, FloatGrid("float16")], ids=str)
@pytest.mark.parametrize("observer", ALL)
@pytest.mark.parametrize("value", [0.0, 3.0, -0.25, 1e-40])
def test_a_tensor_of_one_value_keeps_it(observer: str, grid, value: float) -> None:
    values = np.full(100, value, np.float32)
    encoding = observed_encoding(statistics_of(values), grid, observer, 99.99)
    tolerance = 0.04 if isinstance(grid, FloatGrid) else 0.005
    np.testing.assert_allclose(
        encoding.quantize_dequantize(values), values, atol=abs(value) * tolerance + 1e-7
    )


@pytest.mark.parametrize("observer", ALL)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_one_sided_tensors_keep_their_side(observer: str, side: float) -> None:
    values = side * (np.abs(heavy_tailed(7)) + 0.5)
    encoding = observed_encoding(statistics_of(values), U8, observer, 99.9)
    assert float(encoding.minimum if side > 0 else encoding.maximum) == 0.0


@pytest.mark.parametrize("observer", ALL)
def test_without_histogram_the_range_is_kept(observer: str) -> None:
    statistics = TensorStatistics(-1.0, 3.0, np.zeros(0, np.int64), 0.0, 0.0)
    encoding = observed_encoding(statistics, U8, observer, 99.9)
    assert float(encoding.maximum - encoding.minimum) == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize("observer", ALL)
def test_power_of_two_scales(observer: str) -> None:
    grid = Grid(8, signed=True, symmetric=True, power_of_two=True)
    scale = float(observed_encoding(statistics_of(heavy_tailed()), grid, observer, 99.9).scale)
    assert math.frexp(scale)[0] == 0.5
