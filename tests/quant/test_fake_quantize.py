"""Every grid at every granularity against the formulas in float64: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quant_reference import (
    FLOATS,
    GRANULARITIES,
    KINDS,
    SHAPE,
    dequantized,
    grids,
    numbers,
    random_encoding,
    random_values,
)

from studio.quant.dynamic import DynamicFakeQuantizer
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer
from studio.quant.grid import FloatGrid, Grid

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def check(encoding: Encoding, rng: np.random.Generator, device: str) -> None:
    x = random_values(encoding, rng)
    steps, inside = numbers(x, encoding)
    expected = dequantized(steps, encoding)
    quantizer = FakeQuantizer(encoding, x.ndim, device)
    tensor = torch.tensor(x, device=device)
    np.testing.assert_array_equal(quantizer(tensor).cpu().numpy(), expected)
    np.testing.assert_array_equal(tensor.cpu().numpy(), x)
    written = quantizer.write_over(tensor.clone())
    np.testing.assert_array_equal(written.cpu().numpy(), expected)
    if device == "cpu":
        np.testing.assert_array_equal(encoding.quantize_dequantize(x), expected)
        np.testing.assert_array_equal(encoding.dequantize(encoding.quantize(x)), expected)
    tensor.requires_grad_()
    upstream = rng.standard_normal(SHAPE).astype(np.float32)
    result = quantizer(tensor)
    np.testing.assert_array_equal(result.detach().cpu().numpy(), expected)
    result.backward(torch.tensor(upstream, device=device))
    assert tensor.grad is not None
    np.testing.assert_array_equal(tensor.grad.cpu().numpy(), upstream * inside)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_integers(kind: str, granularity: str, device: str) -> None:
    rng = np.random.default_rng(0)
    for grid in grids(kind):
        check(random_encoding(grid, granularity, rng), rng, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("grid", FLOATS, ids=str)
def test_floats(grid: FloatGrid, granularity: str, device: str) -> None:
    rng = np.random.default_rng(1)
    check(random_encoding(grid, granularity, rng), rng, device)


@pytest.mark.parametrize("device", DEVICES)
def test_low_power_blocks(device: str) -> None:
    rng = np.random.default_rng(2)
    for bits in (2, 4, 8):
        for axis, block in ((0, 2), (1, 5), (1, 4)):
            peak = rng.uniform(
                0.5, 3, [-(-n // block) if i == axis else n for i, n in enumerate(SHAPE)]
            )
            grid = Grid(bits, True, True)
            check(encoding_from_range(-peak, peak, grid, axis, block, lpbq=True), rng, device)


def test_layout_of_memory_stays() -> None:
    x = torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    for axis, block, shape in ((None, None, ()), (1, None, (8,)), (1, 4, (2, 2, 5, 5))):
        ends = np.ones(shape)
        encoding = encoding_from_range(-ends, ends, Grid(8, True, True), axis, block)
        result = FakeQuantizer(encoding, 4)(x)
        assert result.shape == x.shape
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_rounded_in_float32(dtype: torch.dtype) -> None:
    encoding = encoding_from_range(-1.0, 1.0, Grid(8, False, False))
    x = torch.randn(100).to(dtype)
    expected = FakeQuantizer(encoding)(x.float()).to(dtype)
    assert torch.equal(FakeQuantizer(encoding)(x), expected)


@pytest.mark.parametrize("grid", [Grid(8, True, True), *FLOATS], ids=str)
def test_nan_stays_and_infinity_saturates_but_in_half_precision(grid: Grid | FloatGrid) -> None:
    encoding = encoding_from_range(-2.0, 2.0, grid)
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    half = isinstance(grid, FloatGrid) and not grid.scaled
    ends = [-np.inf, np.inf] if half else [encoding.minimum, encoding.maximum]
    expected = np.array([np.nan, ends[1], ends[0]], np.float32)
    for result in (
        FakeQuantizer(encoding)(torch.tensor(x)).numpy(),
        FakeQuantizer(encoding)(torch.tensor(x, requires_grad=True)).detach().numpy(),
        encoding.quantize_dequantize(x),
    ):
        np.testing.assert_array_equal(result, expected)


def test_dynamic_grids_follow_the_range_of_each_tensor() -> None:
    rng = np.random.default_rng(3)
    for grid in (Grid(8, True, True), FloatGrid("float8e4m3fn"), FloatGrid("float4e2m1", True)):
        for axis, block in GRANULARITIES.values():
            if axis is not None and isinstance(grid, Grid):
                continue
            quantizer = DynamicFakeQuantizer(grid, axis, block, len(SHAPE))
            for _ in range(2):
                x = rng.standard_normal(SHAPE).astype(np.float32)
                encoding = own_encoding(x, grid, axis, block)
                expected = dequantized(numbers(x, encoding)[0], encoding)
                np.testing.assert_array_equal(quantizer(torch.tensor(x)).numpy(), expected)


def own_encoding(
    x: np.ndarray, grid: Grid | FloatGrid, axis: int | None, block: int | None
) -> Encoding:
    if axis is None:
        return encoding_from_range(x.min(), x.max(), grid)
    if block is None:
        others = tuple(i for i in range(x.ndim) if i != axis)
        return encoding_from_range(x.min(others), x.max(others), grid, axis)
    starts = np.arange(0, x.shape[axis], block)
    low, high = (f.reduceat(x, starts, axis) for f in (np.minimum, np.maximum))
    return encoding_from_range(low, high, grid, axis, block)


def test_empty_tensors_stay_empty() -> None:
    empty = torch.empty(0, 4)
    assert DynamicFakeQuantizer(Grid(8, False, False))(empty).shape == (0, 4)
    assert FakeQuantizer(encoding_from_range(-1.0, 1.0, Grid(8, True, True)))(empty).shape == (0, 4)


def test_dynamic_passes_the_gradient_of_values_inside() -> None:
    x = torch.randn(50, requires_grad=True)
    DynamicFakeQuantizer(Grid(8, False, False))(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(50))
