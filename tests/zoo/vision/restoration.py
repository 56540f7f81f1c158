"""SRGAN's generator (Ledig et al., 2017), ESPCN (Shi et al., 2016) and DnCNN
(Zhang et al., 2017)."""

from __future__ import annotations

import torch
from blocks import conv_bn
from seeding import seeded
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(width, width, act=nn.PReLU), conv_bn(width, width, act=None)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SRGAN(nn.Module):
    """Four times the size, by two pixel shuffles."""

    def __init__(self) -> None:
        super().__init__()
        width = 24
        self.first = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(Residual(width) for _ in range(3)), conv_bn(width, width, act=None)
        )
        self.up = nn.Sequential(*(self._up(width) for _ in range(2)))
        self.last = nn.Conv2d(width, 3, 9, padding=4)

    def _up(self, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return (torch.tanh(self.last(self.up(first + self.body(first)))) + 1) / 2


def srgan() -> nn.Module:
    model = seeded(SRGAN)
    model.last.weight.data *= 0.1  # a trained one does not drive the tanh far into saturation
    return model


def espcn() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(32, 9, 3, padding=1),
            nn.PixelShuffle(3),
            nn.Sigmoid(),
        )
    )


class DnCNN(nn.Module):
    """Predicts the noise and takes it away."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            *(conv_bn(32, 32) for _ in range(4)),
            nn.Conv2d(32, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x - self.noise(x)


def dncnn() -> nn.Module:
    return seeded(DnCNN)
