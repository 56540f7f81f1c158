"""Ops that make a tensor out of little."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from studio.runtime.ops.dtypes import torch_dtype
from studio.runtime.ops.registry import Call, op


@op("Constant", fresh=True)
def constant(call: Call) -> Tensor:
    """The attribute is one of `value`, `value_float(s)` and `value_int(s)`."""
    if "value" in call.attributes:
        return call.get("value").clone()
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for key in (name, name + "s"):
            if key in call.attributes:
                return torch.tensor(call.get(key), dtype=dtype)
    raise TypeError(f"a constant of strings or a sparse one: {', '.join(call.attributes)}")


@op("ConstantOfShape", since=9, host=(0,), fresh=True)
def constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = call.get("value")
    if value is None:
        return torch.zeros(shape.tolist(), device=call.device)
    # Integers are mostly shapes to be; they stay on the CPU.
    device = call.device if value.is_floating_point() else torch.device("cpu")
    return torch.full(shape.tolist(), value.item(), dtype=value.dtype, device=device)


@op("Range", since=11, host=(0, 1, 2), fresh=True)
def range_(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    low, high, step = start.item(), limit.item(), delta.item()
    count = max(0, math.ceil((high - low) / step))
    device = call.device if start.is_floating_point() else torch.device("cpu")
    return torch.arange(count, device=device).to(start.dtype) * step + low


@op("EyeLike", since=9, fresh=True)
def eye_like(call: Call, x: Tensor) -> Tensor:
    dtype = torch_dtype(call.get("dtype")) if "dtype" in call.attributes else x.dtype
    rows, columns = x.shape
    ones = torch.ones((rows, columns), device=x.device)
    diagonal = call.get("k", 0)
    return (ones.triu(diagonal) * ones.tril(diagonal)).to(dtype)


@op("HannWindow", "HammingWindow", "BlackmanWindow", since=17, host=(0,), fresh=True)
def window_function(call: Call, size: Tensor) -> Tensor:
    dtype = torch_dtype(call.get("output_datatype", 1))
    make = {
        "HannWindow": (0.5, 0.5, 0.0),
        "HammingWindow": (25 / 46, 21 / 46, 0.0),
        "BlackmanWindow": (0.42, 0.5, 0.08),
    }[call.op_type]
    count = int(size.item())
    period = count if call.get("periodic", 1) else count - 1
    phase = torch.arange(count, device=call.device, dtype=torch.float64) * (2 * math.pi / period)
    return (make[0] - make[1] * phase.cos() + make[2] * (2 * phase).cos()).to(dtype)
