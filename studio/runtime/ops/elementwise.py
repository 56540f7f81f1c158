"""Arithmetic of one, two and many tensors, element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from studio.runtime.ops.dtypes import STORAGE_ONLY
from studio.runtime.ops.registry import Call, inplace, op

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @op(name, fresh=True)
    def unary(call: Call, x: Tensor) -> Tensor:
        return function(x)


for _name, _function in _UNARY.items():
    _register_unary(_name, _function)


def _wide(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """`function` by way of int64 for the types torch stores but does not compute with."""
    if a.dtype in STORAGE_ONLY:
        return function(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
    return function(a, b)


@op("Add", since=7, fresh=True)
def add(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return _wide(torch.add, a, b)


@inplace("Add")
def add_(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return a.add_(b) if a.shape == b.shape and a.is_floating_point() else add(call, a, b)


@op("Sub", since=7, fresh=True)
def sub(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return _wide(torch.sub, a, b)


@op("Mul", since=7, fresh=True)
def mul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return _wide(torch.mul, a, b)


@inplace("Mul")
def mul_(call: Call, a: Tensor, b: Tensor) -> Tensor:
    fits = a.is_floating_point() and a.dim() == b.dim() and a.dtype == b.dtype
    if fits and all(m in (1, n) for m, n in zip(b.shape, a.shape, strict=True)):
        return a.mul_(b)
    return mul(call, a, b)


@op("Div", since=7, fresh=True)
def div(call: Call, a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return torch.div(a, b)
    return _wide(lambda x, y: torch.div(x, y, rounding_mode="trunc"), a, b)


@op("Mod", since=10, fresh=True)
def mod(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """`fmod=1` takes the sign of the dividend (C), 0 that of the divisor (Python)."""
    return _wide(torch.fmod if call.get("fmod", 0) else torch.remainder, a, b)


@op("Pow", since=7, fresh=True)
def pow_(call: Call, a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def _many(function: Callable[[Tensor, Tensor], Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    return reduce(lambda a, b: _wide(function, a, b), tensors)


@op("Max", since=6)
def maximum(call: Call, *tensors: Tensor) -> Tensor:
    return _many(torch.maximum, tensors)


@op("Min", since=6)
def minimum(call: Call, *tensors: Tensor) -> Tensor:
    return _many(torch.minimum, tensors)


@op("Sum", since=6)
def sum_(call: Call, *tensors: Tensor) -> Tensor:
    return _many(torch.add, tensors)


@op("Mean", since=6)
def mean(call: Call, *tensors: Tensor) -> Tensor:
    return _many(torch.add, tensors) / len(tensors)


@op("Clip", host=(1, 2))
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Bounds are attributes before opset 11, inputs since; a low above the high gives the high."""
    return _clip(call, x, low, high, torch.clamp)


@inplace("Clip")
def clip_(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return _clip(call, x, low, high, torch.clamp_)


def _clip(
    call: Call,
    x: Tensor,
    low: Tensor | None,
    high: Tensor | None,
    clamp: Callable[..., Tensor],
) -> Tensor:
    if call.opset < 11:
        least, most = call.get("min"), call.get("max")
    else:
        # Bounds that learn stay tensors; numbers are the faster call.
        learned = (low is not None and low.requires_grad) or (
            high is not None and high.requires_grad
        )
        if learned:
            bounds = (None if bound is None else bound.to(x.device) for bound in (low, high))
            return torch.clamp(x, *bounds)
        least = None if low is None else low.item()
        most = None if high is None else high.item()
    if least is None and most is None:
        return x
    if x.dtype in STORAGE_ONLY:
        return torch.clamp(x.to(torch.int64), least, most).to(x.dtype)
    return clamp(x, least, most)


@op("BitShift", since=11, fresh=True)
def bit_shift(call: Call, a: Tensor, b: Tensor) -> Tensor:
    left = call.get("direction") == "LEFT"
    bits = torch.iinfo(a.dtype).bits
    shift = torch.bitwise_left_shift if left else torch.bitwise_right_shift
    if bits < 64:
        return shift(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
    signed, amount = a.view(torch.int64), b.to(torch.int64)
    if left:
        return shift(signed, amount).view(a.dtype)
    # int64 shifts its sign in; mask it out to shift as unsigned.
    mask = torch.where(amount > 0, (1 << (64 - amount).clamp(max=63)) - 1, -1)
    return (shift(signed, amount) & mask).view(a.dtype)
