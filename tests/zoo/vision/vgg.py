"""AlexNet (Krizhevsky et al., 2012), VGG with batch norm (Simonyan and Zisserman, 2015) and
SqueezeNet (Iandola et al., 2016)."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import Tensor, nn


def alexnet() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 24, 11, 4, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(24, 48, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(48, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.AdaptiveAvgPool2d((3, 3)),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(64 * 9, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(128, 10),
        )
    )


def vgg_bn() -> nn.Module:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        inputs = 3
        for width in (16, 0, 32, 32, 0, 64, 64, 0, 96, 0):
            if width == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
            inputs = width
        return nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(96 * 16, 128),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(128, 10),
        )

    return seeded(build)


class Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1(x)), torch.relu(self.expand3(x))], 1)


def squeezenet() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(32, 8, 32),
            Fire(64, 8, 32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.Dropout(0.5),
            nn.Conv2d(128, 10, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )
