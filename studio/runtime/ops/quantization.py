"""Quantized numbers: QuantizeLinear, DequantizeLinear and the integer ops around them."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from studio.runtime.ops.casting import four_bit_float
from studio.runtime.ops.convolution import conv_integer
from studio.runtime.ops.dtypes import INTEGER_RANGES, onnx_dtype, torch_dtype
from studio.runtime.ops.linear_algebra import integer_product
from studio.runtime.ops.registry import Call, op


def aligned(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """`values` (scale or zero point) shaped to broadcast over x: whole, per channel or blocked."""
    if values.numel() == 1 and values.dim() <= 1:
        return values.reshape([])
    axis = axis % x.dim()
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def quantized(
    steps: Tensor, zero: Tensor | None, dtype: ir.DataType, saturate: bool = True
) -> Tensor:
    """Round half to even, add the zero point, saturate (8-bit floats only if asked to)."""
    if dtype == ir.DataType.FLOAT4E2M1:
        return four_bit_float(steps)
    if dtype not in INTEGER_RANGES:
        largest = torch.finfo(torch_dtype(dtype)).max
        steps = steps.clamp(-largest, largest) if saturate else steps
        return steps.to(torch_dtype(dtype))
    low, high = INTEGER_RANGES[dtype]
    whole = torch.round(steps)
    if zero is not None:
        whole = whole + zero.to(whole.dtype)
    return whole.clamp(low, high).to(torch_dtype(dtype))


@op("QuantizeLinear", since=10, fresh=True)
@op("QuantizeLinear", domain="com.microsoft", fresh=True)
def quantize_linear(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """The type is the zero point's, else `output_dtype` (opset 21), else uint8."""
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    dtype = call.type_of(2) if zero is not None else None
    if dtype is None:
        dtype = ir.DataType(call.get("output_dtype", 0) or ir.DataType.UINT8)
        if zero is not None:
            dtype = onnx_dtype(zero.dtype)
    # float64 stays itself; the halves are divided as float32.
    wide = torch.promote_types(torch.promote_types(x.dtype, scale.dtype), torch.float32)
    steps = x.to(wide) / aligned(scale, x, axis, block).to(wide)
    start = None if zero is None else aligned(zero, x, axis, block)
    return quantized(steps, start, dtype, bool(call.get("saturate", 1)))


@op("DequantizeLinear", since=10, fresh=True)
@op("DequantizeLinear", domain="com.microsoft", fresh=True)
def dequantize_linear(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    steps = x.to(torch.float32)
    if zero is not None:
        steps = steps - aligned(zero, x, axis, block).to(torch.float32)
    return (steps * aligned(scale, x, axis, block)).to(scale.dtype)


@op("DynamicQuantizeLinear", since=11, fresh=True)
def dynamic_quantize_linear(call: Call, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 values, scale and zero point of the range of x, which is made to hold 0."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = torch.round(-low / scale).clamp(0, 255)
    return quantized(x / scale, zero, ir.DataType.UINT8), scale, zero.to(torch.uint8)


def _requantized(sums: Tensor, factor: Tensor, zero: Tensor, call: Call, index: int) -> Tensor:
    dtype = call.type_of(index)
    if dtype is None:
        dtype = ir.DataType.INT8 if zero.dtype == torch.int8 else ir.DataType.UINT8
    return quantized(sums * factor, zero, dtype)


@op("QLinearConv", since=10, fresh=True)
def qlinear_conv(
    call: Call,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Scales and zero points of w may be per output channel; the bias is int32."""
    sums = conv_integer(call, x, w, x_zero, w_zero).to(torch.int64)
    channels = [1, -1] + [1] * (x.dim() - 2)
    if bias is not None:
        sums = sums + bias.reshape(channels)
    factor = x_scale * w_scale / y_scale
    return _requantized(sums, factor.reshape(channels), y_zero, call, 7)


@op("QLinearMatMul", since=10, fresh=True)
def qlinear_matmul(
    call: Call,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """a's scale may be per row, b's per column."""
    rows = a_scale.float().unsqueeze(-1) if a_scale.dim() == 1 else a_scale.float()
    factor = rows * b_scale.float() / y_scale.float()
    return _requantized(integer_product(a, b, a_zero, b_zero), factor, y_zero, call, 7)
