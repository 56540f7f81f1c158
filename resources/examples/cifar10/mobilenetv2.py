"""A small MobileNetV2 for 32x32 images (Sandler et al. 2018, arXiv 1801.04381)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        first = [*conv_bn(inputs, hidden, 1), nn.ReLU6()] if expand > 1 else []
        self.layers = nn.Sequential(
            *first,
            *conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(),
            *conv_bn(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Strides fit 32x32 images; half of the paper's widths."""

    STAGES = (
        (1, 8, 1, 1),
        (6, 16, 2, 1),
        (6, 16, 3, 2),
        (6, 32, 3, 2),
        (6, 48, 2, 1),
        (6, 80, 2, 2),
    )

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = [*conv_bn(3, 16, 3), nn.ReLU6()]
        width = 16
        for expand, outputs, repeats, stride in self.STAGES:
            for repeat in range(repeats):
                blocks.append(
                    InvertedResidual(width, outputs, stride if repeat == 0 else 1, expand)
                )
                width = outputs
        blocks += [*conv_bn(width, 320, 1), nn.ReLU6()]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(320, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1)
        return self.classifier(x)


def mobilenetv2() -> nn.Module:
    return MobileNetV2()
