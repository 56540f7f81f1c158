"""Encodings of constants: exact ranges, and searches against brute force in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers import weight_encoding

S4 = Grid(4, signed=True, symmetric=True)
U4 = Grid(4, signed=False, symmetric=False)
S8 = Grid(8, signed=True, symmetric=True)
OBSERVERS = (
    "minmax",
    "moving_average",
    "percentile",
    "sqnr",
    "tf_enhanced",
    "mse",
    "entropy",
    "isotone",
)


def heavy_tailed(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, size=shape).astype(np.float32)


def squares(weight: np.ndarray, encoding: Encoding) -> np.ndarray:
    return np.square(encoding.quantize_dequantize(weight).astype(np.float64) - weight)


def test_one_scale_a_channel() -> None:
    weight = np.random.default_rng(4).normal(size=(6, 3, 3, 3)).astype(np.float32)
    weight *= np.arange(1, 7, dtype=np.float32).reshape(-1, 1, 1, 1)
    encoding = weight_encoding(weight, S8, 0, "minmax")
    rows = weight.reshape(6, -1).astype(np.float64)
    expected = np.maximum(rows.max(1) / 127, -rows.min(1) / 128).astype(np.float32)
    np.testing.assert_array_equal(encoding.scale, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_on_any_axis(axis: int) -> None:
    """A short last block too, in the shape ONNX's blocked QuantizeLinear has."""
    weight, block = heavy_tailed(5, 7, 6), 4
    encoding = weight_encoding(weight, S4, axis, "minmax", block_size=block)
    shape = list(weight.shape)
    shape[axis] = -(-shape[axis] // block)
    assert encoding.scale.shape == tuple(shape)
    for place in itertools.product(*(range(size) for size in shape)):
        part = [slice(i, i + 1) for i in place]
        part[axis] = slice(place[axis] * block, (place[axis] + 1) * block)
        values = weight[tuple(part)].astype(np.float64)
        expected = max(values.max() / 7, -values.min() / 8)
        assert encoding.scale[place] == pytest.approx(expected, rel=1e-6)


def test_low_power_blocks_are_multiples_of_one_scale_a_channel() -> None:
    weight = heavy_tailed(8, 64)
    encoding = weight_encoding(weight, S4, 1, "minmax", block_size=16, lpbq=True)
    plain = weight_encoding(weight, S4, 1, "minmax", block_size=16).scale.astype(np.float64)
    channel = plain.max(axis=1, keepdims=True) / 16
    integers = np.clip(np.round(plain / channel), 1, 16)
    np.testing.assert_array_equal(encoding.integer_scale, integers)
    np.testing.assert_allclose(encoding.scale, integers * channel, rtol=1e-6)


@pytest.mark.parametrize("grid", [S4, U4, S8], ids=str)
@pytest.mark.parametrize(("observer", "gamma"), [("mse", 1), ("sqnr", 3), ("tf_enhanced", 3)])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_searches_are_as_good_as_brute_force(
    grid: Grid, observer: str, gamma: int, axis: int | None
) -> None:
    weight = heavy_tailed(500, 12) if axis else heavy_tailed(12, 500)
    others = (0, 1) if axis is None else (1 - axis,)

    def cost(encoding: Encoding) -> np.ndarray:
        scale = encoding.spread(encoding.scale, weight.shape).astype(np.float64)
        offset = encoding.spread(encoding.zero_point, weight.shape)
        exact = np.round(weight / scale) + offset
        clipped = (exact < grid.qmin) | (exact > grid.qmax)
        return (squares(weight, encoding) * np.where(clipped, gamma, 1)).sum(axis=others)

    low = np.minimum(weight.min(axis=others), 0).astype(np.float64)
    high = np.maximum(weight.max(axis=others), 0).astype(np.float64)
    best = np.min(
        [
            cost(encoding_from_range(low * f, high * f, grid, axis))
            for f in np.linspace(0.3, 1.0, 141)
        ],
        axis=0,
    )
    found = cost(weight_encoding(weight, grid, axis, observer))
    assert (found <= best * 1.06).all()
    assert found.sum() <= best.sum() * 1.03
    assert (found <= cost(encoding_from_range(low, high, grid, axis)) * (1 + 1e-6)).all()


def test_the_search_pays_at_four_bits() -> None:
    weight = heavy_tailed(8, 200)
    plain, tuned = (
        squares(weight, weight_encoding(weight, S4, 0, name)).sum() for name in ("minmax", "mse")
    )
    assert tuned < 0.8 * plain


def test_long_rows_are_searched_in_pieces_alike() -> None:
    """More weights in a row than are rounded at once."""
    weight = heavy_tailed(2, 70000)
    together = weight_encoding(weight, S4, 0, "mse")
    for row, scale in zip(weight, together.scale, strict=True):
        alone = weight_encoding(row.reshape(1, -1)[:, :], S4, 0, "mse")
        assert scale == pytest.approx(float(alone.scale[0]), rel=1e-6)


@pytest.mark.parametrize("axis", [None, 0])
def test_percentile_drops_the_outliers(axis: int | None) -> None:
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 1000)).astype(np.float32)
    weight[:, 0], weight[:, 1] = 50.0, -80.0
    encoding = weight_encoding(weight, S8, axis, "percentile", percent=99.0)
    assert np.max(encoding.scale) < 1.05 / 127
    whole = weight_encoding(weight, S8, axis, "percentile", percent=100.0)
    assert np.min(whole.scale) == pytest.approx(80 / 128)


def test_entropy_per_tensor_drops_the_outliers() -> None:
    weight = np.random.default_rng(0).normal(size=(50, 1000)).astype(np.float32)
    weight[0, 0] = 30.0
    assert float(weight_encoding(weight, S8, None, "entropy").scale) < 15 / 127


@pytest.mark.parametrize("format", ["float8e4m3fn", "float8e5m2", "float4e2m1"])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_float_weights(format: str, power_of_two: bool) -> None:
    grid = FloatGrid(format, power_of_two)
    weight = heavy_tailed(4, 64)
    plain, tuned = (
        weight_encoding(weight, grid, 1, name, block_size=32) for name in ("minmax", "mse")
    )
    assert squares(weight, tuned).sum() <= squares(weight, plain).sum() * (1 + 1e-6)
    if power_of_two:
        assert (np.frexp(tuned.scale)[0] == 0.5).all()


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
def test_half_precision_has_no_scale(format: str) -> None:
    encoding = weight_encoding(heavy_tailed(4, 8), FloatGrid(format), 0, "mse")
    assert encoding.scale == 1.0


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("grid", [S4, U4, S8, FloatGrid("float8e4m3fn")], ids=str)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_dead_channels_and_constants(observer: str, grid, granularity: str) -> None:
    weight = heavy_tailed(3, 8)
    weight[0], weight[1] = 0.0, 0.5
    axis = {"tensor": None, "channel": 0, "block": 1}[granularity]
    block = 4 if granularity == "block" else None
    encoding = weight_encoding(weight, grid, axis, observer, percent=99.99, block_size=block)
    rounded = encoding.quantize_dequantize(weight)
    assert (rounded[0] == 0).all()
    if axis is not None:
        np.testing.assert_allclose(rounded[1], 0.5, rtol=0.03)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_power_of_two_scales(observer: str) -> None:
    grid = Grid(4, signed=True, symmetric=True, power_of_two=True)
    encoding = weight_encoding(heavy_tailed(4, 64), grid, 1, observer, percent=99, block_size=16)
    assert (np.frexp(encoding.scale)[0] == 0.5).all()


@pytest.mark.parametrize("observer", OBSERVERS)
def test_a_weight_without_elements(observer: str) -> None:
    encoding = weight_encoding(np.zeros((0, 4), np.float32), S8, None, observer, percent=99.0)
    assert encoding.scale > 0
