"""Pooling over regions of interest, and convolution at learned positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, op
from studio.runtime.ops.windows import window


def _sample_positions(
    start: float, bin_size: float, bins: int, samples: int, device: torch.device
) -> Tensor:
    """Coordinates [bins * samples] of evenly spaced samples in each bin."""
    centres = (torch.arange(samples, device=device, dtype=torch.float64) + 0.5) / samples
    steps = torch.arange(bins, device=device, dtype=torch.float64).unsqueeze(1) + centres
    return (start + steps * bin_size).reshape(-1)


def _interpolation(at: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbours of each coordinate, [2, P], their weights, and which lie inside."""
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.floor()
    high = (low + 1).clamp(max=length - 1)
    share = at - low
    return torch.stack([low, high]).long(), torch.stack([1 - share, share]), inside


def _aligned_region(call: Call, plane: Tensor, box: list[float]) -> Tensor:
    """One region of `plane` [C, H, W] pooled to [C, output_height, output_width]."""
    half = call.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    half = half and call.opset >= 16
    scale, ratio = call.get("spatial_scale", 1.0), call.get("sampling_ratio", 0)
    sizes = call.get("output_height", 1), call.get("output_width", 1)
    left, top, right, bottom = (edge * scale - (0.5 if half else 0.0) for edge in box)
    extents = [bottom - top, right - left]
    if not half:
        extents = [max(extent, 1.0) for extent in extents]
    indices, weights, insides, counts = [], [], [], []
    for start, extent, bins, length in zip(
        (top, left), extents, sizes, plane.shape[1:], strict=True
    ):
        samples = ratio if ratio > 0 else math.ceil(extent / bins)
        at = _sample_positions(start, extent / bins, bins, max(samples, 0), plane.device)
        index, weight, inside = _interpolation(at, length)
        indices.append(index)
        weights.append(weight)
        insides.append(inside)
        counts.append(samples)
    if min(counts) <= 0:
        return plane.new_zeros(len(plane), *sizes)
    inside = insides[0].unsqueeze(1) & insides[1]
    parts = []
    for y in range(2):
        for x in range(2):
            weight = weights[0][y].unsqueeze(1) * weights[1][x] * inside
            corner = plane[:, indices[0][y]][:, :, indices[1][x]]
            parts.append(corner * weight.to(plane.dtype))
    pool_shape = (len(plane), sizes[0], counts[0], sizes[1], counts[1])
    if call.get("mode", "avg") == "max":
        # The specification takes the largest of the weighed corners, not of their sums.
        largest = torch.stack(parts).amax(0)
        return largest.reshape(pool_shape).amax((2, 4))
    return sum(parts[1:], parts[0]).reshape(pool_shape).mean((2, 4))


@op("RoiAlign", since=10, host=(1, 2), fresh=True)
def roi_align(call: Call, x: Tensor, boxes: Tensor, batch: Tensor) -> Tensor:
    """x [N, C, H, W], boxes [R, 4] as (x1, y1, x2, y2), image of each [R] -> [R, C, h, w].

    The coordinates are shifted by half a pixel since opset 16 unless the attribute says otherwise.
    """
    regions = [
        _aligned_region(call, x[image], box)
        for box, image in zip(boxes.tolist(), batch.tolist(), strict=True)
    ]
    shape = (0, x.shape[1], call.get("output_height", 1), call.get("output_width", 1))
    return torch.stack(regions) if regions else x.new_zeros(shape)


@op("MaxRoiPool", host=(1,), fresh=True)
def max_roi_pool(call: Call, x: Tensor, boxes: Tensor) -> Tensor:
    """Boxes [R, 5] as (image, x1, y1, x2, y2) in whole pixels, both ends counted -> [R, C, h, w].

    A bin without a pixel gives 0.
    """
    height, width = call.get("pooled_shape")
    scale = call.get("spatial_scale", 1.0)
    regions = []
    for image, *box in boxes.tolist():
        left, top, right, bottom = (_rounded(edge * scale) for edge in box)
        plane = x[int(image)]
        pooled = x.new_zeros(x.shape[1], height, width)
        tall, wide = max(bottom - top + 1, 1), max(right - left + 1, 1)
        for i in range(height):
            rows = _bin(top, tall, i, height, x.shape[2])
            for j in range(width):
                columns = _bin(left, wide, j, width, x.shape[3])
                part = plane[:, rows, columns]
                if part.numel():
                    pooled[:, i, j] = part.amax((1, 2))
        regions.append(pooled)
    return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], height, width)


def _rounded(x: float) -> int:
    """Halves away from zero."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def _bin(start: int, extent: int, index: int, bins: int, length: int) -> slice:
    first = math.floor(index * extent / bins) + start
    last = math.ceil((index + 1) * extent / bins) + start
    return slice(min(max(first, 0), length), min(max(last, 0), length))


@op("DeformConv", since=19, fresh=True)
def deform_conv(
    call: Call,
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution that samples x [N, C, H, W] at learned offsets (2-d).

    offset is [N, offset_group * kh * kw * 2, oh, ow], (y, x) pairs; mask [N, offset_group * kh *
    kw, oh, ow] weighs the samples; w is [M, C / group, kh, kw].
    """
    if x.dim() != 4:
        raise ValueError(f"DeformConv is done for images of 2 dimensions, not {x.dim() - 2}")
    n, channels, height, width = x.shape
    win = window(call, x.shape[2:], w.shape[2:])
    (kh, kw), (oh, ow) = win.kernel, offset.shape[2:]
    groups, parts = call.get("group", 1), call.get("offset_group", 1)
    taps = kh * kw
    moved = offset.reshape(n, parts, taps, 2, oh, ow)
    base = []
    for i, (kernel, count) in enumerate(((kh, oh), (kw, ow))):
        first = torch.arange(count, device=x.device) * win.strides[i] - win.begin[i]
        tap = torch.arange(kernel, device=x.device) * win.dilations[i]
        base.append((tap.unsqueeze(1) + first).to(x.dtype))
    y = base[0].reshape(kh, 1, oh, 1).expand(kh, kw, oh, ow).reshape(taps, oh, ow)
    z = base[1].reshape(1, kw, 1, ow).expand(kh, kw, oh, ow).reshape(taps, oh, ow)
    rows, columns = y + moved[:, :, :, 0], z + moved[:, :, :, 1]
    # At least two pixels a side, so that a position divided by the length stays a position.
    images = x.reshape(n * parts, channels // parts, height, width)
    images = F.pad(images, (0, int(width == 1), 0, int(height == 1)))
    tall, wide = images.shape[2] - 1, images.shape[3] - 1
    grid = torch.stack([columns / wide * 2 - 1, rows / tall * 2 - 1], -1)
    sampled = F.grid_sample(images, grid.reshape(n * parts, taps * oh, ow, 2), align_corners=True)
    sampled = sampled.reshape(n, parts, channels // parts, taps, oh, ow)
    if mask is not None:
        sampled = sampled * mask.reshape(n, parts, 1, taps, oh, ow)
    columns = sampled.reshape(n, groups, channels // groups * taps, oh * ow)
    kernels = w.reshape(groups, w.shape[0] // groups, -1)
    result = torch.einsum("gmk,ngkp->ngmp", kernels, columns).reshape(n, w.shape[0], oh, ow)
    return result if b is None else result + b.reshape(1, -1, 1, 1)
