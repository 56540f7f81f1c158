"""MobileViT (Mehta and Rastegari, 2022): patches unfolded, attended to, folded back."""

from __future__ import annotations

import torch
from blocks import Classifier, conv_bn
from mobilenet import InvertedResidual
from seeding import seeded
from torch import Tensor, nn


class MobileViTBlock(nn.Module):
    """Local convolution, torch's own transformer layers over patches of 2x2, fusion."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            conv_bn(channels, channels, 3, act=nn.SiLU), nn.Conv2d(channels, width, 1, bias=False)
        )
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, 4, 2 * width, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.project = conv_bn(width, channels, 1, act=nn.SiLU)
        self.fuse = conv_bn(2 * channels, channels, 3, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        y = self.local(x)
        batch, width, height, columns = y.shape
        across = columns // 2
        y = y.reshape(batch * width * (height // 2), 2, across, 2).transpose(1, 2)
        y = y.reshape(batch, width, (height // 2) * across, 4).transpose(1, 3)
        y = self.norm(self.layers(y.reshape(batch * 4, (height // 2) * across, width)))
        y = y.reshape(batch, 4, (height // 2) * across, width).transpose(1, 3)
        y = y.reshape(batch * width * (height // 2), across, 2, 2).transpose(1, 2)
        y = self.project(y.reshape(batch, width, height, columns))
        return self.fuse(torch.cat([x, y], 1))


def mobilevit() -> nn.Module:
    def inverted(inputs: int, outputs: int, stride: int) -> nn.Module:
        return InvertedResidual(inputs, outputs, inputs * 4, stride, act=nn.SiLU)

    return seeded(
        lambda: nn.Sequential(
            conv_bn(3, 16, 3, 2, act=nn.SiLU),
            inverted(16, 16, 1),
            inverted(16, 24, 2),
            inverted(24, 48, 2),
            MobileViTBlock(48, 64, 2),
            inverted(48, 64, 2),
            MobileViTBlock(64, 80, 1),
            conv_bn(64, 256, 1, act=nn.SiLU),
            Classifier(256),
        )
    )
