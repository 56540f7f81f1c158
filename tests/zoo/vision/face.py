"""MTCNN's three networks (Zhang et al., 2016): proposal, refinement and output."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import Tensor, nn


def convolutions(*rows: tuple[int, int, int, int]) -> list[nn.Module]:
    """(inputs, outputs, kernel, pool), each with a PReLU; `pool` 0 for none."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, pool in rows:
        layers += [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]
        if pool:
            layers.append(nn.MaxPool2d(pool, 2, ceil_mode=True))
    return layers


class PNet(nn.Module):
    """Fully convolutional: boxes and scores at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*convolutions((3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)))
        self.score, self.box = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.features(x)
        return self.box(y), torch.softmax(self.score(y), dim=1)


class Crop(nn.Module):
    """R-Net and O-Net: a crop of one size to box, score and (O-Net) landmarks. The features are
    flattened in Caffe's order, width before height."""

    def __init__(self, features: list[nn.Module], size: int, width: int, heads: list[int]) -> None:
        super().__init__()
        self.features, self.dense = nn.Sequential(*features), nn.Linear(size, width)
        self.act = nn.PReLU(width)
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.features(x).permute(0, 3, 2, 1).contiguous()
        y = self.act(self.dense(y.view(y.shape[0], -1)))
        score, *rest = (head(y) for head in self.heads)
        return torch.softmax(score, dim=1), *rest


def pnet() -> nn.Module:
    return seeded(PNet)


def rnet() -> nn.Module:
    rows = [(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)]
    return seeded(lambda: Crop(convolutions(*rows), 64 * 9, 128, [2, 4]))


def onet() -> nn.Module:
    rows = [(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)]
    return seeded(lambda: Crop(convolutions(*rows), 128 * 9, 256, [2, 4, 10]))
