"""DenseNet (Huang et al., 2017): every layer reads what all before it made."""

from __future__ import annotations

import torch
from blocks import Classifier
from seeding import seeded
from torch import Tensor, nn


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = (
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
        )
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(x)))


class DenseBlock(nn.Module):
    def __init__(self, inputs: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + growth * i, growth) for i in range(count))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


def _transition(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, inputs // 2, 1, bias=False),
        nn.AvgPool2d(2, 2),
    )


def densenet() -> nn.Module:
    def build() -> nn.Module:
        layers: list[nn.Module] = [
            nn.Conv2d(3, 24, 7, 2, 3, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        width = 24
        for count in (3, 4):
            layers += [DenseBlock(width, 12, count), _transition(width + 12 * count)]
            width = (width + 12 * count) // 2
        layers += [DenseBlock(width, 12, 4), nn.BatchNorm2d(width + 48), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, Classifier(width + 48))

    return seeded(build)
