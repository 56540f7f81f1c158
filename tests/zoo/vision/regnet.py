"""RegNetX and RegNetY (Radosavovic et al., 2020) and RepVGG (Ding et al., 2021)."""

from __future__ import annotations

from blocks import Classifier, SqueezeExcite, conv_bn
from seeding import seeded
from torch import Tensor, nn


class Block(nn.Module):
    """X block: bottleneck ratio 1, grouped 3x3. With `excite` the Y block."""

    def __init__(self, inputs: int, width: int, stride: int, excite: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            conv_bn(inputs, width, 1),
            conv_bn(width, width, 3, stride, groups=width // 8),
        ]
        if excite:
            layers.append(SqueezeExcite(width, inputs // 4))
        self.layers = nn.Sequential(*layers, conv_bn(width, width, 1, act=None))
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else conv_bn(inputs, width, 1, stride, act=None)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.layers(x))


def _build(excite: bool) -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 16, 3, 2)]
    inputs = 16
    for width, depth in ((24, 1), (56, 2), (96, 2)):
        for index in range(depth):
            layers.append(Block(inputs, width, 1 if index else 2, excite))
            inputs = width
    return nn.Sequential(*layers, Classifier(inputs, dropout=0.0))


def x() -> nn.Module:
    return seeded(lambda: _build(excite=False))


def y() -> nn.Module:
    return seeded(lambda: _build(excite=True))


class RepBlock(nn.Module):
    """As trained: a 3x3, a 1x1 and, where nothing changes size, a norm alone, added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.dense = conv_bn(inputs, outputs, 3, stride, act=None)
        self.pointwise = conv_bn(inputs, outputs, 1, stride, act=None)
        same = stride == 1 and inputs == outputs
        self.identity = nn.BatchNorm2d(inputs) if same else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        kept = 0 if self.identity is None else self.identity(x)
        return self.relu(self.dense(x) + self.pointwise(x) + kept)


def repvgg() -> nn.Module:
    rows = [(3, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1)]
    return seeded(lambda: nn.Sequential(*(RepBlock(*row) for row in rows), Classifier(96)))
