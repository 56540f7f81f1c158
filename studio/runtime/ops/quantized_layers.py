"""Layers of quantized tensors as onnxruntime has them (domain com.microsoft).

Each is computed in float32 between dequantization and quantization, as onnxruntime computes them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.dtypes import onnx_dtype
from studio.runtime.ops.fused import MICROSOFT
from studio.runtime.ops.linear_algebra import integer_product
from studio.runtime.ops.pooling import average_pool
from studio.runtime.ops.quantization import dynamic_quantize_linear, qlinear_conv, quantized
from studio.runtime.ops.registry import Call, op


def _real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    steps = x.to(torch.float32)
    return (steps if zero is None else steps - zero.to(torch.float32)) * scale


def _stored(y: Tensor, scale: Tensor, zero: Tensor | None, like: Tensor) -> Tensor:
    """y quantized to the type of `like`."""
    return quantized(y / scale, zero, onnx_dtype(like.dtype))


@op("QLinearAdd", "QLinearMul", domain=MICROSOFT, fresh=True)
def qlinear_binary(
    call: Call,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
) -> Tensor:
    left, right = _real(a, a_scale, a_zero), _real(b, b_scale, b_zero)
    y = left + right if call.op_type == "QLinearAdd" else left * right
    return _stored(y, y_scale, y_zero, a)


@op("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT, fresh=True)
def qlinear_activation(
    call: Call,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
) -> Tensor:
    real = _real(x, x_scale, x_zero)
    if call.op_type == "QLinearSigmoid":
        y = torch.sigmoid(real)
    else:
        y = F.leaky_relu(real, call.get("alpha", 0.01))
    return _stored(y, y_scale, y_zero, x)


@op("QLinearSoftmax", domain=MICROSOFT, fresh=True)
def qlinear_softmax(
    call: Call,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """Over `axis`, or over all axes from it on where the attribute `opset` is below 13."""
    axis = call.get("axis", -1) % x.dim()
    real = _real(x, x_scale, x_zero)
    flat = real if call.get("opset") >= 13 else real.flatten(axis)
    return _stored(torch.softmax(flat, axis).reshape(x.shape), y_scale, y_zero, x)


@op("QLinearAveragePool", domain=MICROSOFT, fresh=True)
def qlinear_average_pool(
    call: Call,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
) -> Tensor:
    last = call.get("channels_last", 0)
    real = _real(x, x_scale, x_zero)
    y = average_pool(call, real.movedim(-1, 1) if last else real)
    return _stored(y.movedim(1, -1) if last else y, y_scale, y_zero, x)


@op("QLinearGlobalAveragePool", domain=MICROSOFT, fresh=True)
def qlinear_global_average_pool(
    call: Call, x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor
) -> Tensor:
    start = 1 if call.get("channels_last", 0) else 2
    axes = list(range(start, start + x.dim() - 2))
    return _stored(_real(x, x_scale, x_zero).mean(axes, keepdim=True), y_scale, y_zero, x)


@op("QLinearConcat", domain=MICROSOFT, fresh=True)
def qlinear_concat(call: Call, y_scale: Tensor, y_zero: Tensor, *inputs: Tensor) -> Tensor:
    """Inputs are triples: tensor, scale, zero point."""
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    joined = torch.cat([_real(*triple) for triple in triples], call.get("axis"))
    return _stored(joined, y_scale, y_zero, y_zero)


@op("QLinearWhere", domain=MICROSOFT, fresh=True)
def qlinear_where(
    call: Call,
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    z_scale: Tensor,
    z_zero: Tensor,
) -> Tensor:
    chosen = torch.where(condition, _real(x, x_scale, x_zero), _real(y, y_scale, y_zero))
    return _stored(chosen, z_scale, z_zero, x)


@op("QLinearConv", domain=MICROSOFT, fresh=True)
def qlinear_conv_channels_last(call: Call, x: Tensor, *rest: Tensor) -> Tensor:
    """QLinearConv of the standard; x and the result have the channels last if `channels_last`."""
    if not call.get("channels_last", 0):
        return qlinear_conv(call, x, *rest)
    return qlinear_conv(call, x.movedim(-1, 1), *rest).movedim(1, -1)


@op("QGemm", domain=MICROSOFT, fresh=True)
def q_gemm(
    call: Call,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
) -> Tensor:
    """alpha A' B' + C, C in int32 steps of the product; a float result without `y_scale`."""
    left = a.t() if call.get("transA", 0) else a
    right = b.t() if call.get("transB", 0) else b
    sums = integer_product(left, right, a_zero, b_zero)
    sums = sums if c is None else sums + c
    y = sums * (call.get("alpha", 1.0) * a_scale * b_scale)
    if y_scale is None:
        return y
    return _stored(y, y_scale, y_zero, a if y_zero is None else y_zero)


@op("MatMulIntegerToFloat", domain=MICROSOFT, fresh=True)
def matmul_integer_to_float(
    call: Call,
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    y = integer_product(a, b, a_zero, b_zero) * (a_scale * b_scale)
    return y if bias is None else y + bias


@op("DynamicQuantizeMatMul", domain=MICROSOFT, fresh=True)
def dynamic_quantize_matmul(
    call: Call,
    a: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """a is quantized by its own range first."""
    steps, scale, zero = dynamic_quantize_linear(call, a)
    return matmul_integer_to_float(call, steps, b, scale, b_scale, zero, b_zero, bias)
