"""Convolution in one to three dimensions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, op
from studio.runtime.ops.windows import Window, pad_spatial, window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolve(call: Call, x: Tensor, w: Tensor, b: Tensor | None, pad_value: float = 0.0) -> Tensor:
    """Convolution of x [N, C, *spatial] with w [M, C / group, *kernel], padded by `pad_value`."""
    win = window(call, x.shape[2:], w.shape[2:])
    begin = win.begin
    if not win.symmetric or pad_value:
        x = pad_spatial(x, win.begin, win.end, pad_value)
        begin = (0,) * len(begin)
    group = call.get("group", 1)
    return _CONV[x.dim() - 2](x, w, b, win.strides, begin, win.dilations, group)


@op("Conv", fresh=True)
def conv(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return convolve(call, x, w, b)


@op("ConvTranspose", fresh=True)
def conv_transpose(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """w is [C, M / group, *kernel]. `output_shape` and `auto_pad` set the padding, else `pads`."""
    rank = x.dim() - 2
    strides = call.get("strides") or [1] * rank
    dilations = call.get("dilations") or [1] * rank
    extra = call.get("output_padding") or [0] * rank
    pads = call.get("pads") or [0] * (2 * rank)
    begin, end = list(pads[:rank]), list(pads[rank:])
    mode = call.get("auto_pad", "NOTSET")
    wanted = call.get("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is not None:
        for i in range(rank):
            full = strides[i] * (x.shape[2 + i] - 1) + extra[i]
            total = full + (w.shape[2 + i] - 1) * dilations[i] + 1 - wanted[-rank:][i]
            small, large = total // 2, total - total // 2
            begin[i], end[i] = (large, small) if mode != "SAME_UPPER" else (small, large)
    run = _CONV_TRANSPOSE[rank]
    group = call.get("group", 1)
    if begin == end and min(begin) >= 0:
        return run(x, w, b, strides, begin, extra, group, dilations)
    full_result = run(x, w, b, strides, 0, extra, group, dilations)
    return pad_spatial(full_result, [-n for n in begin], [-n for n in end])


@op("ConvInteger", since=10, fresh=True)
def conv_integer(
    call: Call, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """int32 sums of 8-bit products. Computed in float64, which holds every such sum exactly."""
    data, weight = x.to(torch.float64), w.to(torch.float64)
    if x_zero is not None:
        data = data - x_zero.to(torch.float64)
    if w_zero is not None:
        zero = w_zero.to(torch.float64)
        weight = weight - zero.reshape([-1] + [1] * (w.dim() - 1) if zero.numel() > 1 else [])
    return convolve(call, data, weight, None).to(torch.int32)


@op("Col2Im", since=18, host=(1, 2), fresh=True)
def col2im(call: Call, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Sums the columns x [N, C * prod(block), L] into images [N, C, *image]."""
    size, kernel = image.tolist(), block.tolist()
    win = window(call, size, kernel)
    padded = [n + b + e for n, b, e in zip(size, win.begin, win.end, strict=True)]
    if len(size) == 2:
        folded = F.fold(x, tuple(padded), tuple(kernel), win.dilations, 0, win.strides)
    else:
        where = _column_targets(padded, win).to(x.device)
        columns = x.reshape(x.shape[0], -1, where.numel())
        zeros = x.new_zeros(x.shape[0], columns.shape[1], math.prod(padded))
        folded = zeros.index_add(2, where.reshape(-1), columns)
        folded = folded.reshape(*columns.shape[:2], *padded)
    return pad_spatial(folded, [-n for n in win.begin], [-n for n in win.end])


def _column_targets(padded: list[int], win: Window) -> Tensor:
    """Flat position in the padded image of each (tap of the block, place of the block)."""
    rank = len(padded)
    where = torch.zeros([1] * (2 * rank), dtype=torch.int64)
    for i, length in enumerate(padded):
        places = (length - win.extents[i]) // win.strides[i] + 1
        shape = [1] * (2 * rank)
        shape[i], shape[rank + i] = win.kernel[i], places
        taps = torch.arange(win.kernel[i]).unsqueeze(1) * win.dilations[i]
        where = where * length + (taps + torch.arange(places) * win.strides[i]).reshape(shape)
    return where
