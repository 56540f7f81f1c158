"""OpenPose (Cao et al., 2017): stages that refine part maps and affinity fields."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import Tensor, nn

FIELDS, PARTS = 12, 7


def plain(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True)
    )


def branch(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        plain(inputs, 32, kernel),
        plain(32, 32, kernel),
        plain(32, 48, 1),
        nn.Conv2d(48, outputs, 1),
    )


class OpenPose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            plain(3, 16),
            nn.MaxPool2d(2, 2),
            plain(16, 32),
            nn.MaxPool2d(2, 2),
            plain(32, 48),
            nn.MaxPool2d(2, 2),
            plain(48, 32),
        )
        inputs = [32, 32 + FIELDS + PARTS, 32 + FIELDS + PARTS]
        kernels = [3, 7, 7]
        self.fields = nn.ModuleList(map(branch, inputs, [FIELDS] * 3, kernels))
        self.parts = nn.ModuleList(map(branch, inputs, [PARTS] * 3, kernels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        y = features
        for fields, parts in zip(self.fields, self.parts, strict=True):
            field, part = fields(y), parts(y)
            y = torch.cat([field, part, features], 1)
        return field, part


def openpose() -> nn.Module:
    return seeded(OpenPose)
