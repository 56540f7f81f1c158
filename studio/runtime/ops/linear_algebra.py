"""Matrix products and related."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.runtime.ops.registry import Call, op


@op("MatMul", fresh=True)
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return torch.matmul(a, b)
    return torch.matmul(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)


@op("Gemm", since=7, fresh=True)
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha * A' B' + beta * C, C broadcast."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    a = a.t() if call.get("transA", 0) else a
    b = b.t() if call.get("transB", 0) else b
    if not a.is_floating_point():
        product = alpha * torch.matmul(a.to(torch.int64), b.to(torch.int64))
        return (product if c is None else product + beta * c).to(a.dtype)
    if c is not None:
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    product = torch.mm(a, b)
    return product if alpha == 1 else alpha * product


@op("Einsum", since=12)
def einsum(call: Call, *tensors: Tensor) -> Tensor:
    return torch.einsum(call.get("equation").replace(" ", ""), *tensors)


@op("Det", since=11, fresh=True)
def det(call: Call, x: Tensor) -> Tensor:
    return torch.linalg.det(x)


@op("MatMulInteger", since=10, fresh=True)
def matmul_integer(
    call: Call, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """int32 sums of 8-bit products; a's zero point may be per row, b's per column."""
    return integer_product(a, b, a_zero, b_zero).to(torch.int32)


def integer_product(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """(a - a_zero) (b - b_zero) in int64."""
    left, right = a.to(torch.int64), b.to(torch.int64)
    if a_zero is not None:
        left = left - (a_zero.unsqueeze(-1) if a_zero.dim() == 1 else a_zero).to(torch.int64)
    if b_zero is not None:
        right = right - b_zero.to(torch.int64)
    return torch.matmul(left, right)
