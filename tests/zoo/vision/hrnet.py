"""HRNet (Wang et al., 2020) for segmentation, and for poses (Sun et al., 2019)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from blocks import conv_bn
from resnet import Basic
from seeding import seeded
from torch import Tensor, nn

WIDTHS = (12, 24, 48)


class Fuse(nn.Module):
    """Every resolution gets the sum of all, brought to its size."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.rows = nn.ModuleList()
        for target, width in enumerate(widths):
            row = nn.ModuleList()
            for source, other in enumerate(widths):
                if source == target:
                    row.append(nn.Identity())
                elif source > target:
                    grow = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
                    row.append(nn.Sequential(conv_bn(other, width, 1, act=None), grow))
                else:
                    steps = [conv_bn(other, other, 3, 2) for _ in range(target - source - 1)]
                    row.append(nn.Sequential(*steps, conv_bn(other, width, 3, 2, act=None)))
            self.rows.append(row)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        fused = []
        for row in self.rows:
            total = row[0](parts[0])
            for layer, part in zip(list(row)[1:], parts[1:], strict=True):
                total = total + layer(part)
            fused.append(F.relu(total))
        return fused


class HRNet(nn.Module):
    """`pose`: heat maps of the highest resolution alone; else scores from all of them."""

    def __init__(self, outputs: int, pose: bool) -> None:
        super().__init__()
        self.pose = pose
        self.stem = nn.Sequential(
            conv_bn(3, 16, 3, 2), conv_bn(16, 16, 3, 2), Basic(16, WIDTHS[0], 1)
        )
        self.new = nn.ModuleList(conv_bn(a, b, 3, 2) for a, b in pairwise(WIDTHS))
        self.stages = nn.ModuleList(
            nn.ModuleList(Basic(width, width, 1) for width in WIDTHS[: count + 1])
            for count in (1, 2)
        )
        self.fuse = nn.ModuleList(Fuse(WIDTHS[: count + 1]) for count in (1, 2))
        width = WIDTHS[0] if pose else sum(WIDTHS)
        middle = nn.Identity() if pose else conv_bn(width, width, 1)
        self.head = nn.Sequential(middle, nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for new, stage, fuse in zip(self.new, self.stages, self.fuse, strict=True):
            parts.append(new(parts[-1]))
            parts = fuse([layer(part) for layer, part in zip(stage, parts, strict=True)])
        if self.pose:
            return self.head(parts[0])
        size = parts[0].shape[-2:]
        grown = [
            F.interpolate(part, size, mode="bilinear", align_corners=True) for part in parts[1:]
        ]
        scores = self.head(torch.cat([parts[0], *grown], 1))
        return F.interpolate(scores, x.shape[-2:], mode="bilinear", align_corners=False)


def segmentation() -> nn.Module:
    return seeded(lambda: HRNet(5, pose=False))


def pose() -> nn.Module:
    return seeded(lambda: HRNet(17, pose=True))
