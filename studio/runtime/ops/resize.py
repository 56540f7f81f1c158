"""Resize and Upsample: every mode of interpolation, one axis at a time.

Coordinates and filters as in the specification of ONNX Resize.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, op


@op("Upsample", since=7, host=(1,))
def upsample(call: Call, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Scales are an attribute before opset 9."""
    factors = call.get("scales") if scales is None else scales.tolist()
    sizes = [math.floor(n * f) for n, f in zip(x.shape, factors, strict=True)]
    return _resize(call, x, range(x.dim()), sizes, factors, None)


@op("Resize", since=10, host=(1, 2, 3))
def resize(
    call: Call,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Opset 10 has only scales (as second input); opset 18 adds axes and antialiasing."""
    if call.opset < 11:
        roi, scales = None, roi
    axes = call.get("axes")
    axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    length = [x.shape[axis] for axis in axes]
    if sizes is not None and sizes.numel():
        target = sizes.tolist()
        factors = [n / old for n, old in zip(target, length, strict=True)]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(axes)
            target = [math.floor(old * factor + 0.5) for old in length]
    else:
        assert scales is not None, "neither scales nor sizes are given"
        factors = scales.tolist()
        target = [math.floor(old * f) for old, f in zip(length, factors, strict=True)]
    return _resize(call, x, axes, target, factors, None if roi is None else roi.tolist())


def _resize(
    call: Call,
    x: Tensor,
    axes: Sequence[int],
    sizes: Sequence[int],
    factors: Sequence[float],
    roi: Sequence[float] | None,
) -> Tensor:
    if call.opset < 11:
        transform = "asymmetric"
    else:
        transform = call.get("coordinate_transformation_mode", "half_pixel")
    changed = [i for i, axis in enumerate(axes) if factors[i] != 1 or sizes[i] != x.shape[axis]]
    if transform == "tf_crop_and_resize":
        changed = list(range(len(axes)))
    quick = _quick(call, x, axes, sizes, factors, transform)
    if quick is not None:
        return quick
    result = x if x.is_floating_point() else x.to(torch.float32)
    for i in changed:
        bounds = (roi[i], roi[i + len(axes)]) if roi else (0.0, 1.0)
        where = _coordinates(transform, x.shape[axes[i]], sizes[i], factors[i], bounds)
        result = _resize_axis(call, result, axes[i], where, factors[i])
        if transform == "tf_crop_and_resize":
            outside = (where < 0) | (where > x.shape[axes[i]] - 1)
            shape = [1] * x.dim()
            shape[axes[i]] = -1
            fill = call.get("extrapolation_value", 0.0)
            result = result.masked_fill(outside.reshape(shape).to(x.device), fill)
    return result if x.is_floating_point() else result.round().to(x.dtype)


def _quick(
    call: Call,
    x: Tensor,
    axes: Sequence[int],
    sizes: Sequence[int],
    factors: Sequence[float],
    transform: str,
) -> Tensor | None:
    """torch's own kernel where it computes the same, else None."""
    size = list(x.shape)
    for i, axis in enumerate(axes):
        if sizes[i] != factors[i] * x.shape[axis]:
            return None
        size[axis] = sizes[i]
    same = size[:2] == list(x.shape[:2])
    if x.dim() != 4 or not same or not x.is_floating_point() or call.get("antialias", 0):
        return None
    mode = call.get("mode", "nearest")
    if mode == "nearest":
        whole = all(n % old == 0 for n, old in zip(size[2:], x.shape[2:], strict=True))
        rounding = "floor" if call.opset < 11 else call.get("nearest_mode", "round_prefer_floor")
        usual = (transform == "asymmetric" and rounding == "floor") or (
            transform in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        )
        return F.interpolate(x, size[2:], mode="nearest") if whole and usual else None
    if call.get("exclude_outside", 0):
        return None
    corners = transform == "align_corners"
    half = transform == "half_pixel" or (transform == "pytorch_half_pixel" and min(size[2:]) > 1)
    if mode == "linear" and (half or corners):
        if x.dtype == torch.float32 and not x.requires_grad:
            return _bilinear(x, size[2:], corners)
        return F.interpolate(x, size[2:], mode="bilinear", align_corners=corners)
    if mode == "cubic" and (half or corners) and call.get("cubic_coeff_a", -0.75) == -0.75:
        return F.interpolate(x, size[2:], mode="bicubic", align_corners=corners)
    return None


def _bilinear(x: Tensor, size: Sequence[int], corners: bool) -> Tensor:
    """Bilinear interpolation of NCHW float32 in the order of onnxruntime's additions.

    Between quantized values the result is often exactly between two integers: there the last bit
    decides, and torch's own kernel adds in another order (onnxruntime, UpsampleBilinear: weights in
    float32, top left, top right, bottom left, bottom right).
    """
    top, bottom, below, above = _neighbours(x.shape[2], size[0], corners, x.device)
    left, right, before, after = _neighbours(x.shape[3], size[1], corners, x.device)
    last = x.permute(0, 2, 3, 1)  # whole pixels are copied at once
    columns = last.index_select(2, left), last.index_select(2, right)
    result: Tensor | None = None
    for rows, vertical in ((top, above), (bottom, below)):
        for picked, horizontal in zip(columns, (after, before), strict=True):
            weight = (horizontal * vertical[:, None])[None, :, :, None]
            part = picked.index_select(1, rows).mul_(weight)
            result = part if result is None else result.add_(part)
    assert result is not None
    return result.permute(0, 3, 1, 2)


def _neighbours(
    length: int, size: int, corners: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis: the elements before and after each position, and the distances to them."""
    at = torch.arange(size, dtype=torch.float32)
    if size == length:
        where = at
    elif corners:
        where = at * (length - 1) / (size - 1) if size > 1 else torch.zeros_like(at)
    else:
        where = (at + 0.5) / torch.tensor(size / length, dtype=torch.float32) - 0.5
    where = where.clamp(0, length - 1)
    first = where.to(torch.int64)
    second = (first + 1).clamp(max=length - 1)
    edge = first == second
    to_first = (where - first).abs().masked_fill(edge, 0.5)
    to_second = (where - second).abs().masked_fill(edge, 0.5)
    return first.to(device), second.to(device), to_first.to(device), to_second.to(device)


def _coordinates(
    transform: str, length: int, size: int, factor: float, roi: tuple[float, float]
) -> Tensor:
    """Position in the input of each element of the output along one axis, float64 [size]."""
    at = torch.arange(size, dtype=torch.float64)
    if transform == "half_pixel" or (transform == "pytorch_half_pixel" and size > 1):
        return (at + 0.5) / factor - 0.5
    if transform == "pytorch_half_pixel":
        return torch.zeros_like(at)
    if transform == "half_pixel_symmetric":
        offset = length / 2 * (1 - size / (factor * length))
        return offset + (at + 0.5) / factor - 0.5
    if transform == "align_corners":
        return at * (length - 1) / (size - 1) if size > 1 else torch.zeros_like(at)
    if transform == "asymmetric":
        return at / factor
    if transform == "tf_half_pixel_for_nn":
        return (at + 0.5) / factor
    assert transform == "tf_crop_and_resize", transform
    start, end = roi
    if size > 1:
        return start * (length - 1) + at * (end - start) * (length - 1) / (size - 1)
    return torch.full_like(at, 0.5 * (start + end) * (length - 1))


def _resize_axis(call: Call, x: Tensor, axis: int, where: Tensor, factor: float) -> Tensor:
    length = x.shape[axis]
    mode = call.get("mode", "nearest")
    if mode == "nearest":
        rounding = "floor" if call.opset < 11 else call.get("nearest_mode", "round_prefer_floor")
        index = _rounded(where, rounding).clamp(0, length - 1).to(torch.int64)
        return x.index_select(axis, index.to(x.device))
    weights = _weights(call, mode, where, length, factor).to(x.device, x.dtype)
    return torch.movedim(torch.movedim(x, axis, -1) @ weights.t(), -1, axis)


def _rounded(where: Tensor, mode: str) -> Tensor:
    if mode == "round_prefer_floor":
        return torch.ceil(where - 0.5)
    if mode == "round_prefer_ceil":
        return torch.floor(where + 0.5)
    return torch.floor(where) if mode == "floor" else torch.ceil(where)


def _weights(call: Call, mode: str, where: Tensor, length: int, factor: float) -> Tensor:
    """How much each input element counts for each output element, [size, length]."""
    linear = mode == "linear"
    antialias = bool(call.get("antialias", 0))
    squeeze = min(factor, 1.0) if antialias else 1.0
    reach = math.ceil((1 if linear else 2) / squeeze)
    steps = torch.arange(1 - reach, reach + 1, dtype=torch.float64)
    position = torch.floor(where).unsqueeze(1) + steps
    distance = ((position - where.unsqueeze(1)) * squeeze).abs()
    taps = (1 - distance).clamp(min=0) if linear else _cubic(distance, call)
    if call.get("exclude_outside", 0):
        taps = taps * ((position >= 0) & (position < length))
    if antialias or call.get("exclude_outside", 0):
        taps = taps / taps.sum(1, keepdim=True)
    index = position.clamp(0, length - 1).to(torch.int64)
    return torch.zeros(len(where), length, dtype=torch.float64).scatter_add(1, index, taps)


def _cubic(distance: Tensor, call: Call) -> Tensor:
    """Keys' cubic convolution kernel (IEEE ASSP 29(6), 1981)."""
    a = call.get("cubic_coeff_a", -0.75)
    near = ((a + 2) * distance - (a + 3)) * distance.square() + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
