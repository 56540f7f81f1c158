"""MNASNet-A1 (Tan et al., 2019)."""

from __future__ import annotations

from blocks import Classifier, conv_bn, relu
from mobilenet import InvertedResidual
from seeding import seeded
from torch import nn


def a1() -> nn.Module:
    rows = [(6, 24, 3, 2, False), (3, 40, 5, 2, True), (6, 80, 3, 2, False), (6, 112, 3, 1, True)]

    def build() -> nn.Module:
        layers: list[nn.Module] = [
            conv_bn(3, 32, 3, 2),
            conv_bn(32, 32, 3, groups=32),
            conv_bn(32, 16, 1, act=None),
        ]
        inputs = 16
        for expansion, outputs, kernel, stride, excite in rows:
            for step in (stride, 1):
                width = inputs * expansion
                layers.append(InvertedResidual(inputs, outputs, width, step, kernel, relu, excite))
                inputs = outputs
        return nn.Sequential(*layers, conv_bn(inputs, 256, 1), Classifier(256))

    return seeded(build)
