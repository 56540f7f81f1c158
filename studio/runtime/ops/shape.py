"""Shapes, layout and the joining and splitting of tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, Value, op


@op("Identity")
def identity(call: Call, x: Value) -> Result:
    return (x,)


@op("Dropout", since=7, host=(1, 2))
def dropout(
    call: Call, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Result:
    """Active only where `training_mode` (opset 12) is true."""
    share = 0.5 if ratio is None else ratio.item()
    if training is not None and training.item() and share > 0:
        mask = torch.rand_like(x) >= share
        y = x * mask / (1 - share)
    else:
        mask, y = torch.ones_like(x, dtype=torch.bool), x
    if call.opset < 10:
        mask = mask.to(x.dtype)
    return (y, mask)[: call.outputs]


@op("Shape")
def shape(call: Call, x: Tensor) -> Tensor:
    """`start` and `end` since opset 15. The result lies on the CPU."""
    return torch.tensor(x.shape[call.get("start") : call.get("end")], dtype=torch.int64)


@op("Size")
def size(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@op("Reshape", since=5, host=(1,))
def reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    """0 copies the input's size (unless `allowzero`), -1 is what remains."""
    sizes = shape.tolist()
    if not call.get("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
        if -1 in sizes and x.numel() == 0:
            sizes[sizes.index(-1)] = 0
    return x.reshape(sizes)


@op("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("Squeeze", host=(1,))
def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Axes are an attribute before opset 13; without any, every axis of size 1 goes."""
    chosen = call.get("axes") if axes is None else axes.tolist()
    return x.squeeze() if chosen is None else x.squeeze(chosen)


@op("Unsqueeze", host=(1,))
def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Axes are an attribute before opset 13; they count in the result."""
    chosen = call.get("axes") if axes is None else axes.reshape(-1).tolist()
    rank = x.dim() + len(chosen)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@op("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    order = call.get("perm")
    return x.permute(list(range(x.dim() - 1, -1, -1)) if order is None else order)


@op("Expand", since=8, host=(1,))
def expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape.tolist()))


@op("Tile", since=6, host=(1,), fresh=True)
def tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(repeats.tolist())


@op("Concat", since=4, fresh=True)
def concat(call: Call, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, call.get("axis"))


@op("Split", since=2, host=(1,))
def split(call: Call, x: Tensor, sizes: Tensor | None = None) -> Result:
    """Sizes are an attribute before opset 13; without any, equal parts, the last one smaller."""
    axis = call.get("axis", 0)
    parts = call.get("split") if sizes is None else sizes.tolist()
    if parts is None:
        count, length = call.get("num_outputs", call.outputs), x.shape[axis]
        part = -(-length // count)
        parts = [min(part, length - i * part) for i in range(count)]
    return tuple(torch.split(x, parts, axis))


@op("Slice", host=(1, 2, 3, 4))
def slice_(
    call: Call,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Bounds are attributes before opset 10, inputs since."""
    if starts is None or ends is None:
        begin, stop, dims, strides = call.get("starts"), call.get("ends"), call.get("axes"), None
    else:
        begin, stop = starts.tolist(), ends.tolist()
        dims = None if axes is None else axes.tolist()
        strides = None if steps is None else steps.tolist()
    dims = range(len(begin)) if dims is None else dims
    strides = [1] * len(begin) if strides is None else strides
    index = [slice(None)] * x.dim()
    flipped = []
    for low, high, dim, step in zip(begin, stop, dims, strides, strict=True):
        low, high, _ = slice(low, high, step).indices(x.shape[dim])
        if step > 0:
            index[dim] = slice(low, high, step)
            continue
        # torch has no negative steps: mirror the axis and the bounds.
        flipped.append(dim)
        index[dim] = slice(x.shape[dim] - 1 - low, x.shape[dim] - 1 - high, -step)
    return (x.flip(flipped) if flipped else x)[tuple(index)]


@op("Pad", since=2, host=(1, 2, 3))
def pad(
    call: Call,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Amounts are attributes before opset 11, inputs since; negative ones crop."""
    amounts = call.get("pads") if pads is None else pads.tolist()
    fill = call.get("value", 0.0) if pads is not None or call.opset < 11 else 0.0
    fill = fill if value is None else value.item()
    dims = list(range(x.dim())) if axes is None else axes.tolist()
    mode = call.get("mode", "constant")
    begin, end = [0] * x.dim(), [0] * x.dim()
    for i, dim in enumerate(dims):
        begin[dim], end[dim] = amounts[i], amounts[i + len(dims)]
    if mode == "constant":
        pairs = [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]
        while pairs and pairs[-2:] == [0, 0]:
            pairs = pairs[:-2]
        return F.pad(x, pairs, value=fill) if pairs else x
    for dim in range(x.dim()):
        if begin[dim] or end[dim]:
            where = _padded_index(x.shape[dim], begin[dim], end[dim], mode, x.device)
            x = x.index_select(dim, where)
    return x


def _padded_index(length: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    """Which element of an axis each element of the padded axis repeats."""
    if mode == "edge":
        return torch.arange(-begin, length + end, device=device).clamp(0, length - 1)
    kept = torch.arange(max(0, -begin), length + min(0, end), device=device)
    where = torch.arange(-max(0, begin), len(kept) + max(0, end), device=device)
    if mode == "wrap":
        return kept[where % len(kept)]
    period = max(1, 2 * (len(kept) - 1))
    where = where % period
    return kept[torch.minimum(where, period - where)]


@op("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """`mode` (opset 11): DCR reads the block from the outer part of the channels, CRD inner."""
    block = call.get("blocksize")
    n, c, h, w = x.shape
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


@op("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    block = call.get("blocksize")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    if call.get("mode", "DCR") == "CRD":
        parts = parts.permute(0, 1, 3, 5, 2, 4)
    else:
        parts = parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


@op("CenterCropPad", since=18, host=(1,))
def center_crop_pad(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    dims = call.get("axes") or range(x.dim())
    for dim, target in zip(dims, shape.tolist(), strict=True):
        length = x.shape[dim]
        if target <= length:
            x = x.narrow(dim, (length - target) // 2, target)
            continue
        before = (target - length) // 2
        after = target - length - before
        x = F.pad(x, [0, 0] * (x.dim() - 1 - dim % x.dim()) + [before, after])
    return x
