"""FCN (Long et al., 2015), PSPNet (Zhao et al., 2017), DeepLabV3+ (Chen et al., 2018) and BiSeNet
(Yu et al., 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import conv_bn, resize_like
from resnet import Basic
from seeding import seeded
from torch import Tensor, nn

CLASSES = 5


class FCN(nn.Module):
    """FCN-8s: transposed convolutions that start as bilinear, skips cropped to fit."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Sequential(
            conv_bn(3, 16, 3, 2), conv_bn(16, 24, 3, 2), conv_bn(24, 32, 3, 2)
        )
        self.fourth, self.fifth = conv_bn(32, 48, 3, 2), conv_bn(48, 64, 3, 2)
        self.score3, self.score4 = nn.Conv2d(32, CLASSES, 1), nn.Conv2d(48, CLASSES, 1)
        self.score5 = nn.Conv2d(64, CLASSES, 1)
        self.up5 = nn.ConvTranspose2d(CLASSES, CLASSES, 4, 2, bias=False)
        self.up4 = nn.ConvTranspose2d(CLASSES, CLASSES, 4, 2, bias=False)
        self.up3 = nn.ConvTranspose2d(CLASSES, CLASSES, 16, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        third = self.third(x)
        fourth = self.fourth(third)
        score = self.up5(self.score5(self.fifth(fourth)))
        wanted = self.score4(fourth)
        score = wanted + score[:, :, 1 : 1 + wanted.size(2), 1 : 1 + wanted.size(3)]
        score = self.up4(score)
        wanted = self.score3(third)
        score = wanted + score[:, :, 1 : 1 + wanted.size(2), 1 : 1 + wanted.size(3)]
        return self.up3(score)[:, :, 4 : 4 + x.size(2), 4 : 4 + x.size(3)]


class PSPNet(nn.Module):
    """The image's mean over grids of 1, 2, 3 and 6 cells beside the features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 16, 3, 2), Basic(16, 32, 2), Basic(32, 48, 2), Basic(48, 48, 1)
        )
        self.sides = (1, 2, 3, 6)
        self.reduce = nn.ModuleList(conv_bn(48, 12, 1) for _ in self.sides)
        self.head = nn.Sequential(conv_bn(96, 48), nn.Dropout2d(0.1), nn.Conv2d(48, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        parts = [y]
        for side, reduce in zip(self.sides, self.reduce, strict=True):
            parts.append(resize_like(reduce(F.adaptive_avg_pool2d(y, side)), y))
        return resize_like(self.head(torch.cat(parts, 1)), x)


class DeepLab(nn.Module):
    """Dilated convolutions side by side, image pooling, and a decoder with one skip."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(conv_bn(3, 16, 3, 2), Basic(16, 24, 2))
        self.high = nn.Sequential(Basic(24, 48, 2), Basic(48, 64, 1), Basic(64, 64, 1))
        self.aspp = nn.ModuleList(
            [conv_bn(64, 32, 1), *(conv_bn(64, 32, 3, dilation=rate) for rate in (2, 4, 6))]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn(64, 32, 1))
        self.project, self.skip = conv_bn(160, 32, 1), conv_bn(24, 12, 1)
        self.decode = nn.Sequential(
            conv_bn(44, 44, 3, groups=44), conv_bn(44, 32, 1), nn.Conv2d(32, CLASSES, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        high = self.high(low)
        parts = [layer(high) for layer in self.aspp] + [resize_like(self.pooled(high), high)]
        y = self.project(torch.cat(parts, 1))
        y = self.decode(torch.cat([resize_like(y, low), self.skip(low)], 1))
        return resize_like(y, x)


class Refine(nn.Module):
    """Attention refinement: channels weighted by their mean."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv_bn(inputs, outputs)
        self.gate = nn.Sequential(conv_bn(outputs, outputs, 1, act=None), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.mul(y, self.gate(y.mean((2, 3), keepdim=True)))


class BiSeNet(nn.Module):
    """A shallow path for detail and a deep one for context."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            conv_bn(3, 16, 7, 2), conv_bn(16, 16, 3, 2), conv_bn(16, 32, 3, 2)
        )
        self.context8 = nn.Sequential(conv_bn(3, 16, 3, 2), Basic(16, 24, 2), Basic(24, 32, 2))
        self.context16, self.context32 = Basic(32, 48, 2), Basic(48, 64, 2)
        self.refine16, self.refine32 = Refine(48, 32), Refine(64, 32)
        self.globally = conv_bn(64, 32, 1)
        self.fuse = conv_bn(64, 48, 1)
        self.gate = nn.Sequential(
            nn.Conv2d(48, 12, 1), nn.ReLU(), nn.Conv2d(12, 48, 1), nn.Sigmoid()
        )
        self.head = nn.Conv2d(48, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        detail = self.spatial(x)
        at16 = self.context16(self.context8(x))
        at32 = self.context32(at16)
        whole = self.globally(F.avg_pool2d(at32, at32.shape[2:]))
        context = self.refine32(at32) + F.interpolate(whole, at32.shape[2:], mode="nearest")
        context = F.interpolate(context, scale_factor=2.0, mode="nearest") + self.refine16(at16)
        context = F.interpolate(context, scale_factor=2.0, mode="nearest")
        fused = self.fuse(torch.cat([detail, context], 1))
        fused = fused + fused * self.gate(F.adaptive_avg_pool2d(fused, 1))
        scores = self.head(fused)
        return F.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=True)


def fcn() -> nn.Module:
    return seeded(FCN)


def pspnet() -> nn.Module:
    return seeded(PSPNet)


def deeplab() -> nn.Module:
    return seeded(DeepLab)


def bisenet() -> nn.Module:
    return seeded(BiSeNet)
