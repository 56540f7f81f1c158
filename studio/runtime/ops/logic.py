"""Comparison, boolean and bitwise ops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from studio.runtime.ops.dtypes import STORAGE_ONLY, widened
from studio.runtime.ops.registry import Call, op

_COMPARE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
}
_BOOLEAN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
_BITWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}


def _register_binary(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @op(name, since=7, fresh=True)
    def binary(call: Call, a: Tensor, b: Tensor) -> Tensor:
        return function(widened(a), widened(b))


def _register_bitwise(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @op(name, since=18, fresh=True)
    def bitwise(call: Call, a: Tensor, b: Tensor) -> Tensor:
        return function(widened(a), widened(b)).to(a.dtype)


for _name, _function in (_COMPARE | _BOOLEAN).items():
    _register_binary(_name, _function)
for _name, _function in _BITWISE.items():
    _register_bitwise(_name, _function)


@op("Not", fresh=True)
def not_(call: Call, x: Tensor) -> Tensor:
    return torch.logical_not(x)


@op("BitwiseNot", since=18, fresh=True)
def bitwise_not(call: Call, x: Tensor) -> Tensor:
    if x.dtype in STORAGE_ONLY:
        return torch.bitwise_not(x.to(torch.int64)).to(x.dtype)
    return torch.bitwise_not(x)


@op("IsNaN", since=9, fresh=True)
def is_nan(call: Call, x: Tensor) -> Tensor:
    return torch.isnan(x)


@op("IsInf", since=10, fresh=True)
def is_inf(call: Call, x: Tensor) -> Tensor:
    infinite = torch.isinf(x)
    if not call.get("detect_negative", 1):
        infinite = infinite & (x > 0)
    if not call.get("detect_positive", 1):
        infinite = infinite & (x < 0)
    return infinite


@op("Where", since=9, fresh=True)
def where(call: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)
