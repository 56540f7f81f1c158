"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, inplace, op


@op("Relu", fresh=True)
def relu(call: Call, x: Tensor) -> Tensor:
    return torch.relu(x)


@inplace("Relu")
def relu_(call: Call, x: Tensor) -> Tensor:
    return torch.relu_(x)


@op("LeakyRelu", fresh=True)
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    return F.leaky_relu(x, call.get("alpha", 0.01))


@inplace("LeakyRelu")
def leaky_relu_(call: Call, x: Tensor) -> Tensor:
    return F.leaky_relu(x, call.get("alpha", 0.01), inplace=True)


@op("PRelu", since=7, fresh=True)
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@op("ThresholdedRelu", fresh=True)
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    return F.threshold(x, call.get("alpha", 1.0), 0.0)


@op("Elu", fresh=True)
def elu(call: Call, x: Tensor) -> Tensor:
    return F.elu(x, call.get("alpha", 1.0))


@op("Celu", since=12, fresh=True)
def celu(call: Call, x: Tensor) -> Tensor:
    return F.celu(x, call.get("alpha", 1.0))


@op("Selu", fresh=True)
def selu(call: Call, x: Tensor) -> Tensor:
    alpha, gamma = call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)
    return gamma * F.elu(x, alpha)


@op("Gelu", since=20, fresh=True)
@op("Gelu", domain="com.microsoft", fresh=True)
def gelu(call: Call, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=call.get("approximate", "none"))


@op("QuickGelu", domain="com.microsoft", fresh=True)
def quick_gelu(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.702) * x)


@op("Sigmoid", fresh=True)
def sigmoid(call: Call, x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@inplace("Sigmoid")
def sigmoid_(call: Call, x: Tensor) -> Tensor:
    return torch.sigmoid_(x)


@op("HardSigmoid", fresh=True)
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    return (x * call.get("alpha", 0.2) + call.get("beta", 0.5)).clamp(0, 1)


@inplace("HardSigmoid")
def hard_sigmoid_(call: Call, x: Tensor) -> Tensor:
    return x.mul_(call.get("alpha", 0.2)).add_(call.get("beta", 0.5)).clamp_(0, 1)


@op("HardSwish", since=14, fresh=True)
def hard_swish(call: Call, x: Tensor) -> Tensor:
    return F.hardswish(x)


@inplace("HardSwish")
def hard_swish_(call: Call, x: Tensor) -> Tensor:
    return F.hardswish(x, inplace=True)


@op("Swish", since=24, fresh=True)
def swish(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.0) * x)


@op("SwiGLU", since=28, fresh=True)
def swiglu(call: Call, x: Tensor, gate: Tensor) -> Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.0) * x) * gate


@op("Tanh", fresh=True)
def tanh(call: Call, x: Tensor) -> Tensor:
    return torch.tanh(x)


@inplace("Tanh")
def tanh_(call: Call, x: Tensor) -> Tensor:
    return torch.tanh_(x)


@op("Mish", since=18, fresh=True)
def mish(call: Call, x: Tensor) -> Tensor:
    return F.mish(x)


@op("Softplus", fresh=True)
def softplus(call: Call, x: Tensor) -> Tensor:
    return F.softplus(x)


@op("Softsign", fresh=True)
def softsign(call: Call, x: Tensor) -> Tensor:
    return F.softsign(x)


@op("Shrink", since=9, fresh=True)
def shrink(call: Call, x: Tensor) -> Tensor:
    bias, threshold = call.get("bias", 0.0), call.get("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, zero)).to(
        x.dtype
    )


def _over_axis(call: Call, x: Tensor) -> tuple[Tensor, int]:
    """Before opset 13 all axes from `axis` (default 1) on count as one; since, `axis` alone."""
    if call.opset >= 13:
        return x, call.get("axis", -1)
    axis = call.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.flatten(axis) if axis < x.dim() else x.unsqueeze(axis), axis


@op("Softmax", fresh=True)
def softmax(call: Call, x: Tensor) -> Tensor:
    flat, axis = _over_axis(call, x)
    return torch.softmax(flat, axis).reshape(x.shape)


@op("LogSoftmax", fresh=True)
def log_softmax(call: Call, x: Tensor) -> Tensor:
    flat, axis = _over_axis(call, x)
    return torch.log_softmax(flat, axis).reshape(x.shape)


@op("Hardmax", fresh=True)
def hardmax(call: Call, x: Tensor) -> Tensor:
    flat, axis = _over_axis(call, x)
    largest = flat.argmax(axis, keepdim=True)
    return torch.zeros_like(flat).scatter_(axis, largest, 1).reshape(x.shape)
