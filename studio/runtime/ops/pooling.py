"""Pooling in one to three dimensions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, op
from studio.runtime.ops.windows import Window, pad_spatial, window

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _ceil_extra(call: Call, win: Window, size: tuple[int, ...]) -> tuple[int, ...]:
    """Elements missing at the end for the last, partly outside, window of `ceil_mode`.

    A window that would start in the padding after the input does not count.
    """
    if not call.get("ceil_mode", 0) or call.get("auto_pad", "NOTSET") != "NOTSET":
        return (0,) * len(size)
    extra = []
    for i, n in enumerate(size):
        padded = n + win.begin[i] + win.end[i]
        steps = -(-(padded - win.extents[i]) // win.strides[i])
        if steps * win.strides[i] >= n + win.begin[i]:
            steps -= 1
        extra.append(max(0, steps * win.strides[i] + win.extents[i] - padded))
    return tuple(extra)


@op("MaxPool")
def max_pool(call: Call, x: Tensor) -> Result:
    """Second output: position of each maximum in x flattened as a whole (opset 8)."""
    rank = x.dim() - 2
    size = tuple(x.shape[2:])
    win = window(call, size, call.get("kernel_shape"))
    extra = _ceil_extra(call, win, size)
    end = tuple(e + more for e, more in zip(win.end, extra, strict=True))
    pool = _MAX_POOL[rank]
    # torch has no max pooling of 8-bit integers.
    data = x if x.is_floating_point() else x.to(torch.float32)
    small = all(2 * b <= k for b, k in zip(win.begin, win.kernel, strict=True))
    if call.outputs == 1 and win.begin == end and small:
        pooled = pool(data, win.kernel, win.strides, win.begin, win.dilations)
        return pooled.to(x.dtype)
    padded = pad_spatial(data, win.begin, end, -math.inf)
    if call.outputs == 1:
        return pool(padded, win.kernel, win.strides, 0, win.dilations).to(x.dtype)
    pooled, where = pool(padded, win.kernel, win.strides, 0, win.dilations, return_indices=True)
    return pooled.to(x.dtype), _global_index(call, where, padded.shape, x.shape, win)


def _global_index(
    call: Call, where: Tensor, padded: torch.Size, shape: torch.Size, win: Window
) -> Tensor:
    """Turn positions in one padded plane into positions in the whole of x.

    `storage_order=1` numbers the last two axes column by column.
    """
    coordinates = []
    for axis in range(len(shape) - 1, 1, -1):
        coordinates.append(where % padded[axis] - win.begin[axis - 2])
        where = where // padded[axis]
    coordinates.reverse()
    axes = list(range(2, len(shape)))
    if call.get("storage_order", 0):
        axes[-2:] = reversed(axes[-2:])
    index = torch.zeros_like(where)
    for axis in axes:
        index = index * shape[axis] + coordinates[axis - 2]
    planes = torch.arange(shape[0] * shape[1], device=where.device) * math.prod(shape[2:])
    return index + planes.reshape([shape[0], shape[1]] + [1] * (len(shape) - 2))


@op("AveragePool", since=7, fresh=True)
def average_pool(call: Call, x: Tensor) -> Tensor:
    size = tuple(x.shape[2:])
    win = window(call, size, call.get("kernel_shape"))
    extra = _ceil_extra(call, win, size)
    include = bool(call.get("count_include_pad", 0))
    small = all(2 * b <= k for b, k in zip(win.begin, win.kernel, strict=True))
    if win.symmetric and small and not any(extra) and max(win.dilations) == 1:
        pool = _AVG_POOL[x.dim() - 2]
        return pool(x, win.kernel, win.strides, win.begin, count_include_pad=include)
    counted = torch.ones((1, 1, *size), dtype=x.dtype, device=x.device)
    counted = pad_spatial(counted, win.begin, win.end, 1.0 if include else 0.0)
    counts = _window_sum(pad_spatial(counted, (0,) * len(size), extra), win)
    padded = pad_spatial(pad_spatial(x, win.begin, win.end), (0,) * len(size), extra)
    return _window_sum(padded, win) / counts


def _window_sum(x: Tensor, win: Window) -> Tensor:
    """Sum of x [N, C, *spatial] (already padded) over each window."""
    channels = x.shape[1]
    ones = torch.ones((channels, 1, *win.kernel), dtype=x.dtype, device=x.device)
    return _CONV[x.dim() - 2](x, ones, None, win.strides, 0, win.dilations, channels)


@op("LpPool", since=2, fresh=True)
def lp_pool(call: Call, x: Tensor) -> Tensor:
    power = call.get("p", 2)
    size = tuple(x.shape[2:])
    win = window(call, size, call.get("kernel_shape"))
    extra = _ceil_extra(call, win, size)
    end = tuple(e + more for e, more in zip(win.end, extra, strict=True))
    return _window_sum(pad_spatial(x.abs() ** power, win.begin, end), win) ** (1 / power)


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@op("GlobalAveragePool", fresh=True)
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    return x.mean(_spatial(x), keepdim=True)


@op("GlobalMaxPool", fresh=True)
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    return x.amax(_spatial(x), keepdim=True)


@op("GlobalLpPool", since=2, fresh=True)
def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, call.get("p", 2), _spatial(x), keepdim=True)


@op("MaxUnpool", since=9, host=(2,), fresh=True)
def max_unpool(call: Call, x: Tensor, where: Tensor, output_shape: Tensor | None = None) -> Tensor:
    """Scatter x to the positions `where`, counted in an output of the default size."""
    win = window(call, x.shape[2:], call.get("kernel_shape"))
    default = list(x.shape[:2])
    for i, n in enumerate(x.shape[2:]):
        default.append((n - 1) * win.strides[i] + win.kernel[i] - win.begin[i] - win.end[i])
    flat = torch.zeros(math.prod(default), dtype=x.dtype, device=x.device)
    result = flat.scatter(0, where.flatten(), x.flatten()).reshape(default)
    if output_shape is None:
        return result
    more = [n - d for n, d in zip(output_shape.tolist(), default, strict=True)]
    return pad_spatial(result, [0] * len(more), more)
