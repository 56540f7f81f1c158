"""SSD-Lite (Sandler et al., 2018, after Liu et al., 2016) and RetinaFace (Deng et al., 2020): boxes
decoded from anchors inside the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import conv_bn
from mobilenet import InvertedResidual, separable
from seeding import seeded
from torch import Tensor, nn

IMAGE = 96


def anchors(sides: tuple[int, ...], sizes: tuple[tuple[float, ...], ...]) -> Tensor:
    """(positions * sizes, 4): centre x, centre y, width, height, relative to the image."""
    boxes = []
    for side, own in zip(sides, sizes, strict=True):
        centres = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        for_each = [
            torch.stack([x, y, torch.full_like(x, s), torch.full_like(x, s)], -1) for s in own
        ]
        boxes.append(torch.stack(for_each, 2).view(-1, 4))
    return torch.cat(boxes)


def decode(offsets: Tensor, around: Tensor) -> Tensor:
    """Corners of the boxes, with the variances 0.1 and 0.2 of the SSD paper."""
    centre = around[:, :2] + offsets[..., :2] * 0.1 * around[:, 2:]
    size = around[:, 2:] * torch.exp(offsets[..., 2:] * 0.2)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


class SSDLite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classes = 4
        self.features = nn.ModuleList(
            [
                nn.Sequential(
                    conv_bn(3, 16, 3, 2, act=nn.ReLU6),
                    InvertedResidual(16, 24, 64, 2),
                    InvertedResidual(24, 40, 96, 2),
                ),
                InvertedResidual(40, 64, 160, 2),
                InvertedResidual(64, 64, 128, 2),
            ]
        )
        self.locate = nn.ModuleList(self._head(width, 2 * 4) for width in (40, 64, 64))
        self.classify = nn.ModuleList(self._head(width, 2 * 4) for width in (40, 64, 64))
        sizes = ((0.1, 0.2), (0.3, 0.45), (0.6, 0.9))
        self.register_buffer("anchors", anchors((12, 6, 3), sizes))

    def _head(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            conv_bn(inputs, inputs, 3, groups=inputs, act=nn.ReLU6), nn.Conv2d(inputs, outputs, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for layer, locate, classify in zip(self.features, self.locate, self.classify, strict=True):
            x = layer(x)
            boxes.append(locate(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
            scores.append(classify(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.classes))
        decoded = decode(torch.cat(boxes, 1), self.anchors)
        return decoded.clamp(0, 1), F.softmax(torch.cat(scores, 1), dim=-1)


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1, inplace=True)


class ContextModule(nn.Module):
    """SSH: 3x3, 5x5 and 7x7 out of chained 3x3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv3 = conv_bn(width, width // 2, act=None)
        self.conv5a = conv_bn(width, width // 4, act=leaky)
        self.conv5b = conv_bn(width // 4, width // 4, act=None)
        self.conv7a = conv_bn(width // 4, width // 4, act=leaky)
        self.conv7b = conv_bn(width // 4, width // 4, act=None)

    def forward(self, x: Tensor) -> Tensor:
        five = self.conv5a(x)
        parts = [self.conv3(x), self.conv5b(five), self.conv7b(self.conv7a(five))]
        return F.relu(torch.cat(parts, dim=1))


class RetinaFace(nn.Module):
    """Boxes (batch, anchors, 4), face scores (.., 2) and five landmarks (.., 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    conv_bn(3, 16, 3, 2, act=leaky), separable(16, 32, 2), separable(32, 48, 2)
                ),
                separable(48, 64, 2),
                separable(64, 96, 2),
            ]
        )
        self.lateral = nn.ModuleList(conv_bn(width, 32, 1, act=leaky) for width in (48, 64, 96))
        self.merge = nn.ModuleList(conv_bn(32, 32, act=leaky) for _ in range(2))
        self.context = nn.ModuleList(ContextModule(32) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(32, 2 * size, 1) for size in (4, 2, 10)) for _ in range(3)
        )
        sizes = ((0.16, 0.3), (0.3, 0.6), (0.6, 0.9))
        self.register_buffer("anchors", anchors((12, 6, 3), sizes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for index in (1, 0):
            size = [levels[index].size(2), levels[index].size(3)]
            grown = F.interpolate(levels[index + 1], size=size, mode="nearest")
            levels[index] = self.merge[index](levels[index] + grown)
        found: list[list[Tensor]] = [[], [], []]
        for level, context, heads in zip(levels, self.context, self.heads, strict=True):
            y = context(level)
            for rows, head, size in zip(found, heads, (4, 2, 10), strict=True):
                rows.append(head(y).permute(0, 2, 3, 1).contiguous().view(y.shape[0], -1, size))
        boxes, scores, points = (torch.cat(rows, dim=1) for rows in found)
        places = points.view(points.shape[0], -1, 5, 2) * 0.1 * self.anchors[:, None, 2:]
        places = (places + self.anchors[:, None, :2]).flatten(2)
        return decode(boxes, self.anchors), F.softmax(scores, dim=-1), places


def ssdlite() -> nn.Module:
    return seeded(SSDLite)


def retinaface() -> nn.Module:
    return seeded(RetinaFace)
