"""Layers that onnxruntime's optimizer joins into one (domain com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.convolution import convolve
from studio.runtime.ops.indexing import trilu
from studio.runtime.ops.linear_algebra import gemm
from studio.runtime.ops.registry import Call, op
from studio.runtime.ops.sampling import grid_sample
from studio.runtime.ops.shape import pad

MICROSOFT = "com.microsoft"

op("Trilu", domain=MICROSOFT, host=(1,), fresh=True)(trilu)
op("GridSample", domain=MICROSOFT, fresh=True)(grid_sample)
op("Pad", domain=MICROSOFT, host=(1, 2))(pad)

# By name: the function of x and the activation's parameters.
_ACTIVATIONS: dict[str, Callable[[Tensor, Sequence[float]], Tensor]] = {
    "": lambda x, p: x,
    "Relu": lambda x, p: torch.relu(x),
    "Tanh": lambda x, p: torch.tanh(x),
    "Sigmoid": lambda x, p: torch.sigmoid(x),
    "LeakyRelu": lambda x, p: F.leaky_relu(x, p[0] if p else 0.01),
    "Clip": lambda x, p: x.clamp(p[0], p[1]),
    "HardSigmoid": lambda x, p: (x * p[0] + p[1]).clamp(0, 1),
    "HardSwish": lambda x, p: F.hardswish(x),
    "Elu": lambda x, p: F.elu(x, p[0] if p else 1.0),
    "Softplus": lambda x, p: F.softplus(x),
    "Softsign": lambda x, p: F.softsign(x),
}


def _activated(call: Call, x: Tensor, parameters: Sequence[float]) -> Tensor:
    name = call.get("activation", "")
    if name not in _ACTIVATIONS:
        raise ValueError(f"no activation {name}")
    return _ACTIVATIONS[name](x, parameters)


@op("FusedConv", domain=MICROSOFT, fresh=True)
def fused_conv(
    call: Call, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    """Convolution, plus `z` where given, then the activation."""
    y = convolve(call, x, w, b)
    return _activated(call, y if z is None else y + z, call.get("activation_params") or ())


@op("NhwcConv", "NhwcFusedConv", domain=MICROSOFT, fresh=True)
def nhwc_conv(
    call: Call, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    """FusedConv of x, w and z with the channels last."""
    y = fused_conv(
        call, x.movedim(-1, 1), w.movedim(-1, 1), b, None if z is None else z.movedim(-1, 1)
    )
    return y.movedim(1, -1)


@op("FusedGemm", domain=MICROSOFT, fresh=True)
def fused_gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    named = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = [call.get(name) for name in named if name in call.attributes]
    return _activated(call, gemm(call, a, b, c), parameters)


@op("FusedMatMul", "TransposeMatMul", domain=MICROSOFT, fresh=True)
def fused_matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """alpha A' B'; `transBatchA` says that the rows of A come before its batch axes."""
    operands = []
    for x, side in ((a, "A"), (b, "B")):
        if call.get(f"transBatch{side}", 0):
            x = x.movedim(0, -2)
        operands.append(x.transpose(-2, -1) if call.get(f"trans{side}", 0) and x.dim() > 1 else x)
    alpha = call.get("alpha", 1.0)
    product = torch.matmul(*operands)
    return product if alpha == 1 else alpha * product


@op("BiasGelu", domain=MICROSOFT, fresh=True)
def bias_gelu(call: Call, x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


@op("FastGelu", domain=MICROSOFT, fresh=True)
def fast_gelu(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@op("BiasSplitGelu", domain=MICROSOFT, fresh=True)
def bias_split_gelu(call: Call, x: Tensor, bias: Tensor) -> Tensor:
    """First half of x + bias times the GELU of the second."""
    value, gate = (x + bias).chunk(2, -1)
    return value * F.gelu(gate)


@op("BiasAdd", domain=MICROSOFT, fresh=True)
def bias_add(call: Call, x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    return x + bias + skip


@op("Inverse", domain=MICROSOFT, fresh=True)
def inverse(call: Call, x: Tensor) -> Tensor:
    return torch.linalg.inv(x)


@op("ExpandDims", domain=MICROSOFT, host=(1,))
def expand_dims(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    return x.unsqueeze(int(axis.item()))


@op("CDist", domain=MICROSOFT, fresh=True)
def cdist(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of the rows of a and b, squared for the metric sqeuclidean."""
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.square() if call.get("metric", "sqeuclidean") == "sqeuclidean" else distance


@op("CropAndResize", domain=MICROSOFT, host=(2, 3), fresh=True)
def crop_and_resize(call: Call, x: Tensor, boxes: Tensor, batch: Tensor, size: Tensor) -> Tensor:
    """Boxes [R, 4] as (y1, x1, y2, x2) cut out and resized -> [R, C, h, w].

    Coordinates go from 0, the first pixel, to 1, the last. Positions outside the image give
    `extrapolation_value`.
    """
    height, width = size.tolist()
    tall, wide = x.shape[2] - 1, x.shape[3] - 1
    steps = [torch.linspace(0, 1, n, device=x.device, dtype=x.dtype) for n in (height, width)]
    middle = torch.full((1,), 0.5, device=x.device, dtype=x.dtype)
    rows, columns = (
        boxes[:, i, None] + (boxes[:, i + 2] - boxes[:, i])[:, None] * (s if len(s) > 1 else middle)
        for i, s in enumerate(steps)
    )
    grid = torch.stack(
        [
            (columns * 2 - 1).unsqueeze(1).expand(-1, height, -1),
            (rows * 2 - 1).unsqueeze(2).expand(-1, -1, width),
        ],
        -1,
    )
    mode = call.get("mode", "bilinear")
    images = x[batch.long().to(x.device)]
    y = F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=True)
    rows, columns = rows * tall, columns * wide
    inside = ((rows >= 0) & (rows <= tall)).unsqueeze(2) & (
        (columns >= 0) & (columns <= wide)
    ).unsqueeze(1)
    return y.masked_fill(~inside.unsqueeze(1), call.get("extrapolation_value", 0.0))
