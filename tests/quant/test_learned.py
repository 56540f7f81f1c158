"""Learned ranges: values, closed-form gradients, and finite differences of the smooth stand-in.

The stand-in is the same quantizer in float64 whose rounding offsets (of value and zero point) are
constants taken where the gradient is asked for.
"""

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
    gather,
    grids,
    numbers,
    quotient,
    random_encoding,
    random_values,
    spread,
)

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.learned import (
    LearnedRange,
    LearnedScale,
    learned_fake_quantize,
    lsq_gradient_scale,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LEARNABLE = [grid for grid in FLOATS if grid.scaled]


def close(actual: torch.Tensor | None, expected: np.ndarray, terms: np.ndarray) -> None:
    """Equal up to float32 summation: `terms` is the sum of the summands' sizes."""
    assert actual is not None
    error = np.abs(actual.detach().cpu().numpy() - expected)
    assert actual.shape == expected.shape
    assert (error <= 1e-6 * terms + 1e-30).all(), (error / terms).max()


def check(encoding: Encoding, rng: np.random.Generator, device: str) -> None:
    x = random_values(encoding, rng)
    g = rng.standard_normal(SHAPE).astype(np.float32)
    steps, inside = numbers(x, encoding)
    quantizer = LearnedScale(encoding, x.ndim, learn_zero_point=True).to(device)
    tensor = torch.tensor(x, device=device, requires_grad=True)
    result = quantizer(tensor)
    np.testing.assert_array_equal(result.detach().cpu().numpy(), dequantized(steps, encoding))
    result.backward(torch.tensor(g, device=device))
    assert tensor.grad is not None and quantizer.zero_point is not None
    np.testing.assert_array_equal(tensor.grad.cpu().numpy(), g * inside)
    of_scale = g * np.where(inside, steps - quotient(x, encoding), steps)
    sizes = gather(np.abs(g) * (np.abs(steps) + np.abs(quotient(x, encoding)) * inside), encoding)
    close(quantizer.scale.grad, gather(of_scale, encoding), sizes)
    of_middle = np.where(inside, 0.0, -g * spread(encoding.scale, encoding, SHAPE))
    close(
        quantizer.zero_point.grad, gather(of_middle, encoding), gather(np.abs(of_middle), encoding)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_integers(kind: str, granularity: str, device: str) -> None:
    rng = np.random.default_rng(0)
    for grid in grids(kind):
        # float32 zero points beyond 24 bits are not exact.
        if grid.bits <= 16:
            check(random_encoding(grid, granularity, rng), rng, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("grid", LEARNABLE, ids=str)
def test_floats(grid: FloatGrid, granularity: str, device: str) -> None:
    rng = np.random.default_rng(1)
    check(random_encoding(grid, granularity, rng), rng, device)


def finite_difference(function, at: np.ndarray, step: float) -> np.ndarray:  # type: ignore[no-untyped-def]
    gradient = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scale_and_zero_point_against_finite_differences(bits: int, granularity: str) -> None:
    rng = np.random.default_rng(bits)
    encoding = random_encoding(Grid(bits, False, False), granularity, rng)
    grid = encoding.grid
    x, g = random_values(encoding, rng), rng.standard_normal(SHAPE)
    scale, middle = encoding.scale.astype(np.float64), encoding.zero_point.astype(np.float64)
    exact = x / spread(scale, encoding, SHAPE)
    rounded = np.rint(quotient(x, encoding))
    offset = rounded - exact
    # The saturated set is the one at the point itself, as in the formula.
    place = rounded + spread(middle, encoding, SHAPE)
    low, high = place < grid.qmin, place > grid.qmax

    def loss(scale: np.ndarray, middle: np.ndarray) -> float:
        s, z = (spread(v, encoding, SHAPE) for v in (scale, middle))
        steps = x / s + offset + z
        steps = np.where(low, grid.qmin, np.where(high, grid.qmax, steps))
        return float((g * (steps - z) * s).sum())

    quantizer = LearnedScale(encoding, 3, learn_zero_point=True)
    quantizer(torch.tensor(x)).backward(torch.tensor(g, dtype=torch.float32))
    assert quantizer.scale.grad is not None and quantizer.zero_point is not None
    numeric = finite_difference(lambda s: loss(s, middle), scale, 1e-7)
    np.testing.assert_allclose(quantizer.scale.grad.numpy(), numeric, rtol=1e-4, atol=1e-3)
    numeric = finite_difference(lambda z: loss(scale, z), middle, 1e-4)
    np.testing.assert_allclose(quantizer.zero_point.grad, numeric, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_range_against_finite_differences(granularity: str, symmetric: bool) -> None:
    rng = np.random.default_rng(3)
    encoding = random_encoding(Grid(4, symmetric, symmetric), granularity, rng)
    quantizer = LearnedRange(encoding, 3)
    with torch.no_grad():  # away from the grid, so that both offsets of rounding matter
        quantizer.minimum -= 0.01
        quantizer.maximum += 0.02
    now = quantizer.encoding()
    x, g = random_values(now, rng), rng.standard_normal(SHAPE)
    low = quantizer.minimum.detach().numpy().astype(np.float64)
    high = quantizer.maximum.detach().numpy().astype(np.float64)
    grid = now.grid
    scale = (high - low) / grid.steps
    exact = np.zeros(low.shape) if symmetric else grid.qmin - low / scale
    offset = quotient_offset(x, now, scale)
    middle_offset = now.zero_point - exact
    place = np.rint(quotient(x, now)) + spread(now.zero_point, now, SHAPE)
    below, above = place < grid.qmin, place > grid.qmax

    def loss(low: np.ndarray, high: np.ndarray) -> float:
        scale = (high - low) / grid.steps
        middle = np.zeros(low.shape) if symmetric else grid.qmin - low / scale + middle_offset
        s, z = spread(scale, now, SHAPE), spread(middle, now, SHAPE)
        steps = np.where(below, grid.qmin, np.where(above, grid.qmax, x / s + offset + z))
        return float((g * (steps - z) * s).sum())

    quantizer(torch.tensor(x)).backward(torch.tensor(g, dtype=torch.float32))
    for end, numeric in (
        (quantizer.minimum, finite_difference(lambda v: loss(v, high), low, 1e-6)),
        (quantizer.maximum, finite_difference(lambda v: loss(low, v), high, 1e-6)),
    ):
        assert end.grad is not None
        np.testing.assert_allclose(end.grad.numpy(), numeric, rtol=1e-3, atol=1e-3)


def quotient_offset(x: np.ndarray, encoding: Encoding, scale: np.ndarray) -> np.ndarray:
    return np.rint(quotient(x, encoding)) - x / spread(scale, encoding, SHAPE)


def test_pact_moves_the_upper_end_by_what_saturates() -> None:
    # PACT: the gradient of alpha is that of the values at or above it.
    quantizer = LearnedRange(
        encoding_from_range(0.0, 2.0, Grid(4, False, False)), rounding_term=False
    )
    quantizer.minimum.requires_grad_(False)
    x = torch.linspace(0, 4, 101)
    g = torch.cos(torch.arange(101.0))
    quantizer(x).backward(g)
    assert quantizer.minimum.grad is None
    torch.testing.assert_close(quantizer.maximum.grad, g[x > 2 + 1 / 15].sum())


def test_lsq_scales_the_gradient_of_the_scale_alone() -> None:
    encoding = encoding_from_range(-1.0, 1.0, Grid(4, True, True))
    factor = lsq_gradient_scale(1000, encoding.grid)
    assert factor == pytest.approx((1000 * 7) ** -0.5)
    x, g = torch.linspace(-3, 3, 1000, requires_grad=True), torch.cos(torch.arange(1000.0))
    gradients = []
    for scale in (1.0, factor):
        quantizer = LearnedScale(encoding, gradient_scale=scale)
        x.grad = None
        quantizer(x).backward(g)
        assert x.grad is not None and quantizer.scale.grad is not None
        gradients.append((x.grad.clone(), quantizer.scale.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1] * factor, gradients[1][1])


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, scale = torch.randn(20), torch.tensor(0.1, requires_grad=True)
    learned_fake_quantize(x, scale, None, Grid(4, True, True)).sum().backward()
    assert x.grad is None and scale.grad is not None
    x.requires_grad_()
    learned_fake_quantize(x, scale.detach(), None, Grid(4, True, True)).sum().backward()
    assert x.grad is not None


def test_the_backward_pass_keeps_the_values_alone() -> None:
    kept: list[torch.Tensor] = []
    x = torch.randn(1000, requires_grad=True)
    quantizer = LearnedScale(encoding_from_range(-1.0, 1.0, Grid(8, False, False)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quantizer(x)
    assert [t.data_ptr() for t in kept if t.numel() > 1] == [x.data_ptr()]


ALL = [
    *(Grid(8, signed, **options) for signed in (False, True) for options in KINDS.values()),
    *LEARNABLE,
]


@pytest.mark.parametrize("learned", [LearnedScale, LearnedRange])
@pytest.mark.parametrize("grid", ALL, ids=str)
def test_starts_from_the_encoding_and_gives_one_back(grid: Grid | FloatGrid, learned: type) -> None:
    rng = np.random.default_rng(4)
    for granularity in GRANULARITIES:
        encoding = random_encoding(grid, granularity, rng)
        quantizer = learned(encoding, 3)
        again = quantizer.encoding()
        assert (again.axis, again.block_size) == (encoding.axis, encoding.block_size)
        np.testing.assert_allclose(again.scale, encoding.scale, rtol=2e-7)
        np.testing.assert_array_equal(again.zero_point, encoding.zero_point)
        with torch.no_grad():
            for parameter in quantizer.parameters():
                parameter *= 1.3
        again = quantizer.encoding()
        x = random_values(again, rng)
        np.testing.assert_array_equal(
            quantizer(torch.tensor(x)).detach(), again.quantize_dequantize(x)
        )
        if grid.power_of_two:
            assert (np.frexp(again.scale)[0] == 0.5).all()


def test_low_power_blocks_stay_such() -> None:
    peak = np.random.default_rng(5).uniform(0.5, 3, (6, 2))
    encoding = encoding_from_range(-peak, peak, Grid(4, True, True), 1, 5, lpbq=True)
    quantizer = LearnedScale(encoding, 2)
    assert quantizer.encoding() == encoding
    with torch.no_grad():
        quantizer.scale.mul_(torch.linspace(0.5, 1.5, 12).view(6, 2))
    again = quantizer.encoding()
    assert again.integer_scale is not None
    assert (again.integer_scale >= 1).all() and (again.integer_scale.max(1) == 16).all()
    factors = again.integer_scale.astype(np.float32)
    np.testing.assert_array_equal(factors * again.channel_scale, again.scale)


def test_a_vanishing_scale_is_held_and_can_come_back() -> None:
    quantizer = LearnedScale(encoding_from_range(-1.0, 1.0, Grid(8, True, True)))
    with torch.no_grad():
        quantizer.scale.fill_(-0.5)
    assert quantizer.encoding().scale == np.float32(2**-23)
    quantizer(torch.ones(3)).sum().backward()
    assert quantizer.scale.grad != 0


def test_half_precision_has_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="float16"):
        LearnedScale(encoding_from_range(-1.0, 1.0, FloatGrid("float16")))
