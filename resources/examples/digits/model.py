"""A small convolutional network for handwritten digits of 8x8 pixels."""

from __future__ import annotations

import torch
from torch import nn


class ConvBlock(nn.Sequential):
    """Convolution, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU()


class Residual(nn.Module):
    """Depthwise-separable convolution added to its input (MobileNet's block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = ConvBlock(channels, channels, 3, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.norm(self.pointwise(self.depthwise(x))))


class DigitsNet(nn.Module):
    """Logits (N, 10) of images (N, 1, 8, 8) with values from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(1, 24, 3)
        self.block1 = Residual(24)
        self.down = ConvBlock(24, 48, 3, stride=2)
        self.block2 = Residual(48)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(48, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.block1(self.stem(image))
        x = self.block2(self.down(x))
        return self.classifier(self.pool(x).flatten(1))


def digits_net() -> nn.Module:
    """The network with fresh weights; load `weights.safetensors` for the trained ones."""
    return DigitsNet()
