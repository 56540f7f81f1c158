"""From ranges to encodings: the rules of every grid, and ranges that make no sense."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quant_reference import GRANULARITIES, KINDS, SHAPE, format_numbers, grids, random_encoding

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.float_formats import FORMATS
from studio.quant.grid import FloatGrid, Grid

KINDS_AND_GRIDS = [(kind, grid) for kind in KINDS for grid in grids(kind) if grid.bits in (2, 4, 8)]
MXFP4 = FloatGrid("float4e2m1", power_of_two=True)

ends = st.floats(1e-3, 1e4)


@given(low=ends, high=ends, index=st.integers(0, len(KINDS_AND_GRIDS) - 1))
def test_every_integer_grid_covers_the_range_and_holds_zero(
    low: float, high: float, index: int
) -> None:
    _, grid = KINDS_AND_GRIDS[index]
    encoding = encoding_from_range(-low, high, grid)
    half_step = 0.5000001 * float(encoding.scale)  # the zero point is rounded
    slack = 0.0 if grid.symmetric else half_step
    rounding = 1e-6 * max(low, high)
    assert encoding.minimum <= -low + slack + rounding
    assert encoding.maximum >= high - slack - rounding
    assert encoding.quantize_dequantize(np.zeros(1, np.float32))[0] == 0.0
    assert grid.qmin <= encoding.zero_point <= grid.qmax
    if grid.symmetric:
        assert encoding.zero_point == grid.middle
    if grid.power_of_two:
        # The next lower power of two would not cover the range.
        assert np.frexp(encoding.scale)[0] == 0.5
        plain = Grid(grid.bits, grid.signed, grid.symmetric, grid.strict)
        exact = float(encoding_from_range(-low, high, plain).scale)
        assert exact <= float(encoding.scale) * (1 + 1e-6)
        assert float(encoding.scale) < 2 * exact * (1 + 1e-6)


def test_a_power_of_two_range_keeps_its_scale() -> None:
    grid = Grid(8, True, True, power_of_two=True)
    assert encoding_from_range(-1.0, 0.5, grid).scale == 2.0**-7
    assert encoding_from_range(-1.0001, 0.5, grid).scale == 2.0**-6
    assert encoding_from_range(0.0, 127 / 64, grid).scale == 2.0**-6


@pytest.mark.parametrize("signed", [False, True])
def test_unsigned_symmetric_uses_all_integers_where_nothing_is_negative(signed: bool) -> None:
    grid = Grid(8, signed, True, unsigned_symmetric=True)
    encoding = encoding_from_range([0.0, -1.0], [2.55, 1.0], grid, axis=0)
    np.testing.assert_allclose(encoding.scale, [0.01, 1 / 127], rtol=1e-6)
    np.testing.assert_array_equal(encoding.zero_point, [grid.qmin, grid.middle])
    np.testing.assert_allclose(encoding.minimum, [0.0, -128 / 127], rtol=1e-6)


def test_strict_ranges_have_equal_ends() -> None:
    # AIMET's own unit test: strict symmetric (254 steps) of arange(0, 26, .5) -> +-25.5.
    for signed in (False, True):
        grid = Grid(8, signed, True, strict=True)
        assert grid.steps == 254
        encoding = encoding_from_range(0.0, 25.5, grid)
        assert (-encoding.minimum, encoding.maximum) == (pytest.approx(25.5), pytest.approx(25.5))
        lowest = encoding.quantize(np.array([-99.0], np.float32))
        assert lowest == encoding.zero_point - 127
    assert Grid(8, False, False, strict=True).steps == 255


def test_percentile_range_of_aimet() -> None:
    # AIMET's own unit test: the 99th percentile of arange(0, 1001) in 500 bins is 990.
    encoding = encoding_from_range(0.0, 990.0, Grid(8, False, False))
    assert (encoding.minimum, encoding.maximum) == (0.0, pytest.approx(990.0))
    encoding = encoding_from_range(0.0, 990.0, Grid(8, True, True, strict=True))
    assert (encoding.minimum, encoding.maximum) == (pytest.approx(-990), pytest.approx(990))


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_those_of_ml_dtypes(name: str) -> None:
    numbers, grid = FORMATS[name], FloatGrid(name)
    positive = format_numbers(name)
    info = ml_dtypes.finfo(getattr(ml_dtypes, numbers.dtype, np.float16))
    assert (numbers.bits, numbers.mantissa_bits) == (info.bits, info.nmant)
    assert numbers.largest == float(info.max) == positive[-1]
    assert 2.0**numbers.smallest_exponent == float(info.smallest_normal)
    assert 2.0**numbers.largest_exponent <= numbers.largest < 2.0 ** (numbers.largest_exponent + 1)
    encoding = encoding_from_range(-1.0, 3.0, grid)
    if not grid.scaled:
        assert encoding.scale == 1.0
        return
    np.testing.assert_allclose(encoding.maximum, 3.0, rtol=1e-6)
    every = np.concatenate([-positive[1:], positive])
    values = (every * float(encoding.scale)).astype(np.float32)
    quantized = encoding.quantize(values)
    assert quantized.dtype == info.dtype
    np.testing.assert_array_equal(quantized.astype(np.float64), every)


@pytest.mark.parametrize(
    ("name", "emax"), [("float4e2m1", 2), ("float8e4m3fn", 8), ("float8e5m2", 15)]
)
def test_mx_scale(name: str, emax: int) -> None:
    # OCP MX v1.0: the largest power of two in the block, over that of the format.
    assert FORMATS[name].largest_exponent == emax
    peak = np.array([[1.0, 1.99, 2.0, 448.0, 0.0, 1e-30, 3e38]])
    encoding = encoding_from_range(-peak / 2, peak, FloatGrid(name, True), 1, 32)
    expected = np.exp2(np.floor(np.log2(peak[0, [0, 1, 2, 3, 5, 6]])) - emax)
    np.testing.assert_array_equal(
        encoding.scale[0, [0, 1, 2, 3, 5, 6]], np.maximum(expected, 2.0**-126)
    )
    assert encoding.scale[0, 4] == 2.0**-126
    values = np.zeros((1, 7 * 32), np.float32)
    values[0, ::32] = peak
    rounded = encoding.quantize_dequantize(values)
    assert np.isfinite(rounded).all()
    assert (np.abs(rounded[0, ::32] - values[0, ::32]) <= 0.25 * values[0, ::32]).all()


def test_mx_block_by_hand() -> None:
    # max 7 -> shared exponent 2 - 2 = 0: 7 saturates at 6, 2.5 ties to 2, 5 ties to 4.
    values = np.array([[7.0, -2.5, 5.0, 0.25, 0.3, 3.4]], np.float32)
    encoding = encoding_from_range([[-2.5]], [[7.0]], MXFP4, 1, 32)
    np.testing.assert_array_equal(
        encoding.quantize_dequantize(values), [[6.0, -2.0, 4.0, 0.0, 0.5, 3.0]]
    )


# AIMET 2.42's encodings of a 3 x 64 weight: 4 bits in blocks of 16, plain and low-power.
AIMET_BLOCKS = [
    [0.024268941953778267, 0.020047280937433243, 0.02142668142914772, 0.02033398300409317],
    [0.024206997826695442, 0.019080962985754013, 0.021245023235678673, 0.02091806009411812],
    [0.02381007745862007, 0.018600085750222206, 0.022029075771570206, 0.02121267281472683],
]


def aimet_weight() -> np.ndarray:
    n = np.arange(3 * 64)
    return (np.sin(0.7 * n + 5) * (0.05 + 0.02 * (n % 7))).astype(np.float32).reshape(3, 64)


def test_blocks_equal_aimet() -> None:
    blocks = aimet_weight().reshape(3, 4, 16)
    low, high = blocks.min(2), blocks.max(2)
    grid = Grid(4, True, True)
    plain = encoding_from_range(low, high, grid, 1, 16)
    np.testing.assert_allclose(plain.scale, AIMET_BLOCKS, rtol=1e-6)
    low_power = encoding_from_range(low, high, grid, 1, 16, lpbq=True)
    assert low_power.integer_scale is not None
    np.testing.assert_array_equal(low_power.integer_scale[0], [16, 13, 14, 13])
    channel = plain.scale.max(1, keepdims=True) / 16
    np.testing.assert_array_equal(low_power.channel_scale, channel)
    np.testing.assert_array_equal(
        low_power.scale, low_power.integer_scale.astype(np.float32) * channel
    )


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=6),
    st.floats(2.0**-20, 1024, width=32),
)
def test_channel_scale_gives_the_scales_back(integers: list[int], channel: float) -> None:
    factors = np.array([integers])
    scale = factors.astype(np.float32) * np.float32(channel)
    zero = np.zeros(scale.shape, np.int64)
    encoding = Encoding(Grid(4, True, True), scale, zero, 1, 16, factors)
    np.testing.assert_array_equal(factors.astype(np.float32) * encoding.channel_scale, scale)


@pytest.mark.parametrize("grid", [Grid(4, True, True), Grid(8, False, False), MXFP4], ids=str)
def test_a_dead_channel_has_a_usable_scale_and_stays_zero(grid: Grid | FloatGrid) -> None:
    encoding = encoding_from_range([-1.0, 0.0, 0.0], [1.0, 0.0, 1e-44], grid, axis=0)
    values = np.array([[0.3, 0.0, 0.0], [0.9, 0.0, 1e-44]], np.float32).T
    rounded = encoding.quantize_dequantize(values)
    np.testing.assert_array_equal(rounded[1:], 0.0)
    assert (rounded[0] > 0).all()


@pytest.mark.parametrize("constant", [-3.0, 0.7, 1e-9])
def test_a_constant_is_kept_up_to_the_step(constant: float) -> None:
    for grid in (Grid(8, False, False), Grid(8, True, True), FloatGrid("float8e4m3fn")):
        encoding = encoding_from_range(constant, constant, grid)
        value = encoding.quantize_dequantize(np.array([constant], np.float32))[0]
        assert abs(value - constant) <= max(1e-6 * abs(constant), 2.0**-23)


@pytest.mark.parametrize(
    ("low", "high", "where", "message"),
    [
        (0.0, np.inf, {}, "the range is not finite: 0 to inf"),
        (np.nan, 1.0, {}, "the range is not finite: nan to 1"),
        ([0.0, -np.inf], [1.0, 1.0], {"axis": 1}, "channel 1 is not finite"),
        ([[0.0, 0.0]], [[1.0, np.nan]], {"axis": 1, "block_size": 8}, r"block \(0, 1\) is not"),
        (2.0, 1.0, {}, "ends reversed: 2 to 1"),
        ([0.0, 3.0], [1.0, 2.0], {"axis": 0}, "channel 1 has its ends reversed"),
        (-1e300, 1e300, {}, "too wide for float32"),
        ([0.0], [1.0, 2.0], {"axis": 0}, "differ in shape"),
        ([0.0, 0.0], [1.0, 2.0], {}, "do not fit axis None"),
        ([0.0, 0.0], [1.0, 2.0], {"axis": 1, "block_size": 4}, "do not fit axis 1"),
        (0.0, 1.0, {"lpbq": True}, "symmetric grid and blocks"),
    ],
)
def test_a_range_that_makes_no_sense_is_named(low, high, where, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        encoding_from_range(low, high, Grid(8, False, False), **where)


def test_low_power_blocks_of_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="need integers, not float4e2m1"):
        encoding_from_range([[-1.0]], [[1.0]], MXFP4, 1, 32, lpbq=True)


def test_unknown_formats_and_bitwidths_are_refused() -> None:
    with pytest.raises(ValueError, match="float8e3m4"):
        FloatGrid("float8e3m4")
    for bits in (1, 33):
        with pytest.raises(ValueError, match="2 to 32"):
            Grid(bits, True, True)


@pytest.mark.parametrize("grid", [Grid(8, True, True), MXFP4], ids=str)
def test_values_without_a_number_are_refused(grid: Grid | FloatGrid) -> None:
    encoding = encoding_from_range(-1.0, 1.0, grid)
    with pytest.raises(ValueError, match="has no NaN"):
        encoding.quantize(np.array([np.nan], np.float32))


def test_a_tensor_of_another_shape_is_refused() -> None:
    channels = encoding_from_range(np.zeros(3), np.ones(3), Grid(8, False, False), 1)
    with pytest.raises(ValueError, match="3 scales on axis 1"):
        channels.quantize(np.zeros((3, 4), np.float32))
    blocks = encoding_from_range(np.zeros((3, 2)), np.ones((3, 2)), Grid(8, False, False), 1, 4)
    assert blocks.quantize(np.zeros((3, 5), np.float32)).shape == (3, 5)
    with pytest.raises(ValueError, match="blocks of 4 on axis 1"):
        blocks.quantize(np.zeros((3, 9), np.float32))


def test_encodings_differ_by_everything_they_say() -> None:
    peak = np.ones((4, 2))
    grid = Grid(4, True, True)
    first = encoding_from_range(-peak, peak, grid, 1, 8)
    assert first == encoding_from_range(-peak, peak, grid, 1, 8)
    assert first != encoding_from_range(-peak, peak, grid, 1, 9)
    assert first != encoding_from_range(-peak, peak, grid, 1, 8, lpbq=True)
    assert first != encoding_from_range(-peak, peak * 1.5, grid, 1, 8)


def test_numbers_of_scales() -> None:
    rng = np.random.default_rng(0)
    counts = {
        name: random_encoding(Grid(8, True, True), name, rng).channels for name in GRANULARITIES
    }
    assert counts["tensor"] == 1
    assert counts["channel 1"] == SHAPE[1]
    assert counts["block 1, last short"] == 6 * 3 * 4
