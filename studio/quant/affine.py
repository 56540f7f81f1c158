"""Fake-quantization in torch: what the simulator and training run.

Equal to ONNX QuantizeLinear + DequantizeLinear bit for bit: divide by the scale (multiplying by its
reciprocal differs at ties), round half to even, saturate, multiply.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from studio.quant.encoding import Encoding


class _StraightThrough(torch.autograd.Function):
    """Fake-quantization whose gradient is 1 inside the grid's range and 0 outside.

    (Bengio et al. 2013, arXiv 1308.3432; clipped form of Jacob et al. 2018.)
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: Tensor, low: Tensor, high: Tensor
    ) -> Tensor:
        steps = x.div(scale).round_()
        ctx.save_for_backward((steps >= low) & (steps <= high))
        return steps.clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def, override]
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None, None


def fake_quantizer(
    encoding: Encoding, ndim: int | None = None, device: torch.device | str = "cpu"
) -> Callable[[Tensor], Tensor]:
    """A function that rounds a float32 tensor to `encoding`'s grid.

    `ndim` is the rank of the tensors it will be given (needed per channel). Never writes to its
    argument.
    """

    def shaped(values: Tensor) -> Tensor:
        if encoding.axis is None:
            return values
        assert ndim is not None, "the rank must be known for a per-channel encoding"
        shape = [1] * ndim
        shape[encoding.axis] = -1
        return values.view(shape)

    grid = encoding.grid
    scale = shaped(torch.tensor(encoding.scale, device=device))
    zero_point = torch.tensor(encoding.zero_point, device=device)
    low = shaped((grid.qmin - zero_point).to(torch.float32))
    high = shaped((grid.qmax - zero_point).to(torch.float32))

    def quantize(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _StraightThrough.apply(x, scale, low, high)
        return x.div(scale).round_().clamp_(low, high).mul_(scale)

    return quantize
