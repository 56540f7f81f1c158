"""Conversion between element types."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from studio.runtime.ops.dtypes import INTEGER_RANGES, NARROW_INTEGERS, onnx_dtype, torch_dtype
from studio.runtime.ops.registry import Call, op

_T = ir.DataType
_LARGEST = {
    torch.float8_e4m3fn: 448.0,
    torch.float8_e4m3fnuz: 240.0,
    torch.float8_e5m2: 57344.0,
    torch.float8_e5m2fnuz: 57344.0,
}


@op("Cast", since=6)
def cast(call: Call, x: Tensor) -> Tensor:
    """Floats outside an 8-bit float's range become its largest value unless `saturate` is 0."""
    return convert(call, x, ir.DataType(call.get("to")))


@op("CastLike", since=15)
def cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    return convert(call, x, call.type_of(1) or onnx_dtype(like.dtype))


def convert(call: Call, x: Tensor, dtype: ir.DataType) -> Tensor:
    """x as ONNX type `dtype`, by the `saturate` and `round_mode` attributes of `call`."""
    saturate = bool(call.get("saturate", 1))
    if dtype == _T.FLOAT8E8M0:
        return _power_of_two(x, call.get("round_mode", "up"), saturate)
    if dtype == _T.FLOAT4E2M1:
        return four_bit_float(x)
    if dtype in NARROW_INTEGERS:
        return _wrapped(x if x.dtype in (torch.int8, torch.uint8) else x.to(torch.int64), dtype)
    target = torch_dtype(dtype)
    if saturate and target in _LARGEST and x.dtype not in _LARGEST:
        x = x.to(torch.float32).clamp(-_LARGEST[target], _LARGEST[target])
    result = x.to(target)
    if target == torch.float8_e4m3fn and x.is_floating_point() and not saturate:
        # torch saturates this type, which has no infinity; halfway to the next step is 464.
        lost = (x.abs() > 464) & (x.dtype != target)
        return result.to(torch.float32).masked_fill(lost, torch.nan).to(target)
    return result


def _wrapped(x: Tensor, dtype: ir.DataType) -> Tensor:
    """Integers cut to the lowest bits of `dtype`, in the 8 bits that hold them."""
    low, high = INTEGER_RANGES[dtype]
    return ((x.to(torch.int16) - low) % (high - low + 1) + low).to(torch_dtype(dtype))


def four_bit_float(x: Tensor) -> Tensor:
    """x rounded to the nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with its sign, ties to even.

    Not a number becomes 0. The result is float8_e4m3fn, which holds these values.
    """
    x = torch.nan_to_num(x.to(torch.float32), nan=0.0).clamp(-6, 6)
    step = torch.where(x.abs() < 2, 0.5, torch.where(x.abs() < 4, 1.0, 2.0))
    return (torch.round(x / step) * step).to(torch.float8_e4m3fn)


def _power_of_two(x: Tensor, mode: str, saturate: bool) -> Tensor:
    """The exponent alone, of |x|; infinity and not a number give not a number.

    `mode` is up, down or nearest. Past the largest exponent the result stays there, or is not a
    number unless `saturate`.
    """
    bits = x.to(torch.float32).contiguous().view(torch.int32)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    if mode == "up":
        more = fraction > 0
    elif mode == "nearest":
        # Halfway goes up, but for the smallest numbers, which have no exponent.
        more = (fraction > 0x400000) | ((fraction == 0x400000) & (exponent > 0))
    else:
        more = torch.zeros_like(fraction, dtype=torch.bool)
    raised = exponent + more
    if saturate:
        raised = raised.clamp(max=0xFE)
    raised = torch.where(exponent == 0xFF, exponent, raised)
    return raised.to(torch.uint8).view(torch.float8_e8m0fnu)


@op("BitCast", since=26)
def bit_cast(call: Call, x: Tensor) -> Tensor:
    dtype = ir.DataType(call.get("to"))
    bits = x.contiguous().view(torch_dtype(dtype))
    return _wrapped(bits, dtype) if dtype in NARROW_INTEGERS else bits
