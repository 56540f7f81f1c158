"""RetinaNet with a feature pyramid (Lin et al., 2017), CenterNet (Zhou et al., 2019) and
EfficientDet with BiFPN (Tan et al., 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import conv_bn
from resnet import Basic
from seeding import seeded
from torch import Tensor, nn

CLASSES, SHAPES = 4, 3


class Pyramid(nn.Module):
    """A small ResNet and its feature pyramid, strides 8 to 64."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.at8 = nn.Sequential(conv_bn(3, 16, 3, 2), Basic(16, 24, 2), Basic(24, 32, 2))
        self.at16, self.at32 = Basic(32, 48, 2), Basic(48, 64, 2)
        self.lateral = nn.ModuleList(nn.Conv2d(size, width, 1) for size in (32, 48, 64))
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.extra = nn.Conv2d(64, width, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.at8(x)
        c4 = self.at16(c3)
        c5 = self.at32(c4)
        p5 = self.lateral[2](c5)
        p4 = self.lateral[1](c4) + F.interpolate(p5, size=c4.shape[-2:], mode="nearest")
        p3 = self.lateral[0](c3) + F.interpolate(p4, size=c3.shape[-2:], mode="nearest")
        levels = [layer(p) for layer, p in zip(self.smooth, (p3, p4, p5), strict=True)]
        return [*levels, self.extra(c5)]


class RetinaNet(nn.Module):
    """One head, used on every level: its weights are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = Pyramid(32)
        self.classify, self.locate = self._head(SHAPES * CLASSES), self._head(SHAPES * 4)

    def _head(self, outputs: int) -> nn.Sequential:
        inner = [layer for _ in range(2) for layer in (nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())]
        return nn.Sequential(*inner, nn.Conv2d(32, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = [], []
        for level in self.pyramid(x):
            scores.append(self.classify(level).permute(0, 2, 3, 1).reshape(x.size(0), -1, CLASSES))
            boxes.append(self.locate(level).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4))
        return torch.sigmoid(torch.cat(scores, 1)), torch.cat(boxes, 1)


class CenterNet(nn.Module):
    """Heat map, its peaks by a max pool, sizes and offsets; transposed convolutions up."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 16, 3, 2), Basic(16, 32, 2), Basic(32, 64, 2), Basic(64, 96, 2)
        )
        self.up = nn.Sequential(*self._up(96, 64), *self._up(64, 48))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(48, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, size, 1))
            for size in (CLASSES, 2, 2)
        )

    def _up(self, inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y = self.up(self.features(x))
        heat = torch.clamp(self.heads[0](y).sigmoid(), 1e-4, 1 - 1e-4)
        peak = F.max_pool2d(heat, (3, 3), stride=1, padding=1)
        return heat, peak, self.heads[1](y), self.heads[2](y)


class Weighted(nn.Module):
    """Fast normalised fusion: a weighted mean with learned, non-negative weights."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(count) + 0.5)
        self.act = nn.SiLU()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise, self.norm = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)

    def forward(self, *parts: Tensor) -> Tensor:
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + 1e-4)
        total = sum(weights[i] * part for i, part in enumerate(parts))
        return self.norm(self.pointwise(self.depthwise(self.act(total))))


class EfficientDet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = 32
        self.at8 = nn.Sequential(conv_bn(3, 16, 3, 2), Basic(16, 24, 2), Basic(24, 32, 2))
        self.at16, self.at32 = Basic(32, 48, 2), Basic(48, 64, 2)
        self.lateral = nn.ModuleList(conv_bn(size, width, 1, act=None) for size in (32, 48, 64))
        self.middle4, self.out3 = Weighted(2, width), Weighted(2, width)
        self.out4, self.out5 = Weighted(3, width), Weighted(2, width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))  # one for each level
        self.classify = nn.Conv2d(width, SHAPES * CLASSES, 1)
        self.locate = nn.Conv2d(width, SHAPES * 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c3 = self.at8(x)
        c4 = self.at16(c3)
        p3, p4, p5 = (f(c) for f, c in zip(self.lateral, (c3, c4, self.at32(c4)), strict=True))
        middle = self.middle4(p4, F.interpolate(p5, scale_factor=2, mode="nearest"))
        out3 = self.out3(p3, F.interpolate(middle, scale_factor=2, mode="nearest"))
        out4 = self.out4(p4, middle, F.max_pool2d(out3, 3, 2, 1))
        out5 = self.out5(p5, F.max_pool2d(out4, 3, 2, 1))
        scores, boxes = [], []
        for norm, level in zip(self.norms, (out3, out4, out5), strict=True):
            y = F.silu(norm(self.depthwise(level)))
            scores.append(self.classify(y).permute(0, 2, 3, 1).reshape(x.size(0), -1, CLASSES))
            boxes.append(self.locate(y).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4))
        return torch.sigmoid(torch.cat(scores, 1)), torch.cat(boxes, 1)


def retinanet() -> nn.Module:
    return seeded(RetinaNet)


def centernet() -> nn.Module:
    return seeded(CenterNet)


def efficientdet() -> nn.Module:
    return seeded(EfficientDet)
