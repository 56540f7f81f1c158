"""MobileNetV1 (Howard et al., 2017), V2 (Sandler et al., 2018) and V3 (Howard et al., 2019)."""

from __future__ import annotations

from blocks import Activation, Classifier, SqueezeExcite, conv_bn, relu
from seeding import seeded
from torch import Tensor, nn


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """V1: depthwise, then pointwise convolution."""
    return nn.Sequential(
        conv_bn(inputs, inputs, 3, stride, groups=inputs), conv_bn(inputs, outputs, 1)
    )


class InvertedResidual(nn.Module):
    """V2 and V3: expansion, depthwise convolution, linear projection."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expanded: int,
        stride: int,
        kernel: int = 3,
        act: Activation = nn.ReLU6,
        excite: bool = False,
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(conv_bn(inputs, expanded, 1, act=act))
        layers.append(conv_bn(expanded, expanded, kernel, stride, groups=expanded, act=act))
        if excite:
            layers.append(SqueezeExcite(expanded, max(expanded // 4, 8), gate=nn.Hardsigmoid))
        layers.append(conv_bn(expanded, outputs, 1, act=None))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def v1() -> nn.Module:
    rows = [(16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2)]
    return seeded(
        lambda: nn.Sequential(
            conv_bn(3, 16, 3, 2), *(separable(*row) for row in rows), Classifier(256)
        )
    )


def v2() -> nn.Module:
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1)]

    def build() -> nn.Module:
        layers: list[nn.Module] = [conv_bn(3, 16, 3, 2, act=nn.ReLU6)]
        inputs = 16
        for expansion, outputs, repeats, stride in rows:
            for index in range(repeats):
                step = stride if index == 0 else 1
                layers.append(InvertedResidual(inputs, outputs, inputs * expansion, step))
                inputs = outputs
        return nn.Sequential(*layers, conv_bn(inputs, 256, 1, act=nn.ReLU6), Classifier(256))

    return seeded(build)


def v3() -> nn.Module:
    rows: list[tuple[int, int, int, int, Activation, bool]] = [
        (16, 16, 2, 3, relu, True),
        (72, 24, 2, 3, relu, False),
        (88, 24, 1, 3, relu, False),
        (96, 40, 2, 5, nn.Hardswish, True),
        (240, 40, 1, 5, nn.Hardswish, True),
        (120, 48, 1, 5, nn.Hardswish, True),
    ]

    def build() -> nn.Module:
        layers: list[nn.Module] = [conv_bn(3, 16, 3, 2, act=nn.Hardswish)]
        inputs = 16
        for expanded, outputs, stride, kernel, act, excite in rows:
            layers.append(InvertedResidual(inputs, outputs, expanded, stride, kernel, act, excite))
            inputs = outputs
        return nn.Sequential(
            *layers,
            conv_bn(inputs, 288, 1, act=nn.Hardswish),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(288, 256, 1),
            nn.Hardswish(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(256, 10),
        )

    return seeded(build)
