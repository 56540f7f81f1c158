"""ShuffleNetV2 (Ma et al., 2018): halves of the channels, shuffled after every unit."""

from __future__ import annotations

import torch
from blocks import conv_bn
from seeding import seeded
from torch import Tensor, nn


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, outputs // 2
        first = inputs if stride == 2 else half
        self.right = nn.Sequential(
            conv_bn(first, half, 1),
            conv_bn(half, half, 3, stride, groups=half, act=None),
            conv_bn(half, half, 1),
        )
        if stride == 2:
            self.left = nn.Sequential(
                conv_bn(inputs, inputs, 3, 2, groups=inputs, act=None), conv_bn(inputs, half, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return channel_shuffle(torch.cat([self.left(x), self.right(x)], 1), 2)
        left, right = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat([left, self.right(right)], 1), 2)


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.Sequential(
            Unit(24, 48, 2), Unit(48, 48, 1), Unit(48, 96, 2), Unit(96, 96, 1), Unit(96, 96, 1)
        )
        self.last = conv_bn(96, 128, 1)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.stages(self.stem(x))).mean([2, 3]))


def v2() -> nn.Module:
    return seeded(ShuffleNet)
