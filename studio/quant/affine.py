"""Fake-quantization in torch: what the simulator and training run.

Equal to ONNX QuantizeLinear + DequantizeLinear bit for bit: divide by the scale (multiplying by its
reciprocal differs at ties), round half to even, saturate, multiply.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.quant.encoding import Encoding


class _StraightThrough(torch.autograd.Function):
    """Fake-quantization whose gradient is 1 inside the grid's range and 0 outside.

    (Bengio et al. 2013, arXiv 1308.3432; clipped form of Jacob et al. 2018.)
    """

    @staticmethod
    def forward(ctx, x: Tensor, quantizer: FakeQuantizer) -> Tensor:  # type: ignore[no-untyped-def]
        steps = x.div(quantizer.scale).round_()
        ctx.save_for_backward((steps >= quantizer.low) & (steps <= quantizer.high))
        return steps.clamp_(quantizer.low, quantizer.high).mul_(quantizer.scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (inside,) = ctx.saved_tensors
        return grad * inside, None


class FakeQuantizer:
    """Rounds float32 tensors to the grid of an encoding; never writes to its argument.

    `ndim` is the rank of the tensors it is given (needed per channel).
    """

    def __init__(
        self, encoding: Encoding, ndim: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        grid = encoding.grid
        low, high = grid.qmin - encoding.zero_point, grid.qmax - encoding.zero_point
        self.scale: Tensor = torch.tensor(encoding.scale, device=device)
        # Bounds as numbers run three times faster than as tensors; only a per-channel zero point
        # that differs between channels needs tensors.
        self.low: Any = float(low.flat[0])
        self.high: Any = float(high.flat[0])
        if encoding.axis is not None:
            assert ndim is not None, "the rank must be known for a per-channel encoding"
            shape = [1] * ndim
            shape[encoding.axis] = -1
            self.scale = self.scale.view(shape)
            if (low != low.flat[0]).any():
                self.low = torch.tensor(low, dtype=torch.float32, device=device).view(shape)
                self.high = torch.tensor(high, dtype=torch.float32, device=device).view(shape)

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _StraightThrough.apply(x, self)
        return x.div(self.scale).round_().clamp_(self.low, self.high).mul_(self.scale)
