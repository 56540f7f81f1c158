"""Normalization layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, op


def _per_channel(values: Tensor, rank: int) -> Tensor:
    """`values` [C] shaped to broadcast over [N, C, *spatial]."""
    return values.reshape([1, -1] + [1] * (rank - 2))


@op("BatchNormalization", since=7, fresh=True)
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Result:
    """With `training_mode` the batch's own statistics, and the running ones as outputs 2 and 3."""
    epsilon, momentum = call.get("epsilon", 1e-5), call.get("momentum", 0.9)
    if not call.get("training_mode", 0):
        # torch's own has no gradient to the running statistics.
        trained = mean.requires_grad or var.requires_grad
        if scale.dtype == x.dtype == mean.dtype and not trained:
            return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)
        mean, var, scale, bias = (_per_channel(t, x.dim()) for t in (mean, var, scale, bias))
        return ((x - mean) / torch.sqrt(var + epsilon) * scale + bias).to(x.dtype)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    batch_var, batch_mean = torch.var_mean(x, axes, correction=0)
    y = F.batch_norm(x, batch_mean, batch_var, scale, bias, False, 0.0, epsilon)
    running_mean = mean * momentum + batch_mean * (1 - momentum)
    running_var = var * momentum + batch_var * (1 - momentum)
    return (y, running_mean.to(mean.dtype), running_var.to(var.dtype))[: call.outputs]


@op("InstanceNormalization", fresh=True)
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=call.get("epsilon", 1e-5))


@op("LayerNormalization", fresh=True)
def layer_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Result:
    """Outputs 2 and 3 are the mean and the reciprocal of the standard deviation.

    ONNX has the op since opset 17; onnxruntime writes it into models of any.
    """
    axis, epsilon = call.get("axis", -1) % x.dim(), call.get("epsilon", 1e-5)
    shape = x.shape[axis:]
    whole = scale.shape == shape and (bias is None or bias.shape == shape)
    if call.outputs == 1 and whole and scale.dtype == x.dtype:
        return F.layer_norm(x, shape, scale, bias, epsilon)
    axes = list(range(axis, x.dim()))
    var, mean = torch.var_mean(x.float(), axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(var + epsilon)
    y = ((x - mean) * inverse).to(x.dtype) * scale
    y = y if bias is None else y + bias
    return (y, mean, inverse)[: call.outputs]


@op("RMSNormalization", since=23, fresh=True)
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(call.get("axis", -1) % x.dim(), x.dim()))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean_square = wide.square().mean(axes, keepdim=True)
    normal = wide * torch.rsqrt(mean_square + call.get("epsilon", 1e-5))
    return normal.to(x.dtype) * scale


@op("GroupNormalization", since=18, fresh=True)
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias are one a group before opset 21, one a channel since."""
    groups, epsilon = call.get("num_groups"), call.get("epsilon", 1e-5)
    if call.opset < 21:
        repeats = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return F.group_norm(x, groups, scale, bias, epsilon)


@op("LRN", fresh=True)
def lrn(call: Call, x: Tensor) -> Tensor:
    size, alpha = call.get("size"), call.get("alpha", 1e-4)
    squares = F.pad(x.square().movedim(1, -1), ((size - 1) // 2, size - 1 - (size - 1) // 2))
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (call.get("bias", 1.0) + alpha / size * sums) ** call.get("beta", 0.75)


@op("LpNormalization", fresh=True)
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    """A vector of norm 0 stays 0."""
    norm = torch.linalg.vector_norm(x, call.get("p", 2), call.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@op("MeanVarianceNormalization", since=9, fresh=True)
def mean_variance_normalization(call: Call, x: Tensor) -> Tensor:
    axes = call.get("axes") or [0, 2, 3]
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(var) + 1e-9)
