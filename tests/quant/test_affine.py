"""torch fake-quantization against the encoding's own arithmetic, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.quant.affine import FakeQuantizer
from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid


@pytest.mark.parametrize("bits", [2, 4, 8, 11, 16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 2])
def test_equals_numpy_bit_for_bit(bits: int, symmetric: bool, axis: int | None) -> None:
    rng = np.random.default_rng(bits)
    x = (rng.standard_normal((3, 40, 5)) * 2).astype(np.float32)
    shape = () if axis is None else (x.shape[axis],)
    low, high = -rng.uniform(0.5, 2, shape), rng.uniform(0.5, 3, shape)
    encoding = encoding_from_range(low, high, Grid(bits, symmetric, symmetric), axis)
    before = x.copy()
    result = FakeQuantizer(encoding, 3)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(result, encoding.quantize_dequantize(x))
    np.testing.assert_array_equal(x, before)


def test_gradient_is_one_inside_and_zero_outside() -> None:
    encoding = encoding_from_range(-1.0, 1.0, Grid(4, signed=False, symmetric=False))
    x = torch.tensor([-5.0, -0.9, 0.0, 0.3, 0.9, 5.0], requires_grad=True)
    FakeQuantizer(encoding)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
