"""Sampling of images at given points, and what chooses boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, op

_SAMPLE_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@op("GridSample", since=16, fresh=True)
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """`mode` is called bilinear and bicubic before opset 20, linear and cubic since."""
    mode = call.get("mode", "linear")
    return F.grid_sample(
        x,
        grid.to(x.dtype),
        mode=_SAMPLE_MODES.get(mode, mode),
        padding_mode=call.get("padding_mode", "zeros"),
        align_corners=bool(call.get("align_corners", 0)),
    )


@op("AffineGrid", since=20, host=(1,), fresh=True)
def affine_grid(call: Call, theta: Tensor, size: Tensor) -> Tensor:
    return F.affine_grid(theta, size.tolist(), align_corners=bool(call.get("align_corners", 0)))


@op("NonMaxSuppression", since=10, host=(2, 3, 4), fresh=True)
def non_max_suppression(
    call: Call,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None = None,
    overlap: Tensor | None = None,
    least_score: Tensor | None = None,
) -> Tensor:
    """Boxes [N, B, 4], scores [N, C, B] -> kept (batch, class, box), best first in each class."""
    limit = 0 if most is None else int(most.item())
    threshold = 0.0 if overlap is None else overlap.item()
    kept = []
    for batch, (image_boxes, image_scores) in enumerate(zip(boxes, scores, strict=True)):
        corners = _corners(image_boxes, bool(call.get("center_point_box", 0)))
        for label, values in enumerate(image_scores):
            order = torch.argsort(values, descending=True, stable=True)
            if least_score is not None:
                order = order[values[order] > least_score.item()]
            count = 0
            while len(order) and count < limit:
                best, order = order[0], order[1:]
                kept.append([batch, label, int(best)])
                count += 1
                order = order[_overlap(corners[best], corners[order]) <= threshold]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: Tensor, centered: bool) -> Tensor:
    """(low, low, high, high) of boxes given by center and size or by any two opposite corners."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centered:
        return torch.cat([first - second / 2, first + second / 2], 1)
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of `box` [4] with each of `others` [B, 4]."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))
