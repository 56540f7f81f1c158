"""EfficientNet-B0 (Tan and Le, 2019), with TensorFlow's padding that depends on the image size, and
EfficientNet-Lite0 (without squeeze-and-excitation and SiLU)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from blocks import Activation, Classifier, SqueezeExcite, conv_bn
from seeding import seeded
from torch import Tensor, nn

ROWS = [(1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 64, 3, 2, 1), (6, 96, 5, 1, 1)]


class SameConv2d(nn.Conv2d):
    """Pads as TensorFlow does: the output has ceil(size / stride) positions, more at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for axis in (3, 2):
            size, kernel, stride = x.shape[axis], self.kernel_size[axis - 2], self.stride[axis - 2]
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def same_conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: Activation
) -> nn.Sequential:
    return nn.Sequential(
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
        act(),
    )


def zero_padded(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: Activation
) -> nn.Sequential:
    """The same padding for even images, as a layer of its own."""
    if stride == 1:
        return conv_bn(inputs, outputs, kernel, groups=groups, act=act)
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return nn.Sequential(
        nn.ZeroPad2d((before, after, before, after)),
        conv_bn(inputs, outputs, kernel, stride, groups=groups, act=act, padding=0),
    )


class MBConv(nn.Module):
    """Mobile inverted bottleneck."""

    def __init__(
        self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int, lite: bool
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        act: Activation = nn.ReLU6 if lite else nn.SiLU
        padded = zero_padded if lite else same_conv_bn
        width = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn(inputs, width, 1, act=act))
        layers.append(padded(width, width, kernel, stride, width, act))
        if not lite:
            layers.append(SqueezeExcite(width, max(inputs // 4, 1), act=nn.SiLU))
        layers.append(conv_bn(width, outputs, 1, act=None))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _build(lite: bool) -> nn.Module:
    act: Activation = nn.ReLU6 if lite else nn.SiLU
    layers: list[nn.Module] = [(zero_padded if lite else same_conv_bn)(3, 16, 3, 2, 1, act)]
    inputs = 16
    for expansion, outputs, kernel, stride, repeats in ROWS:
        for index in range(repeats):
            step = stride if index == 0 else 1
            layers.append(MBConv(inputs, outputs, expansion, kernel, step, lite))
            inputs = outputs
    return nn.Sequential(*layers, conv_bn(inputs, 256, 1, act=act), Classifier(256))


def b0() -> nn.Module:
    return seeded(lambda: _build(lite=False))


def lite0() -> nn.Module:
    return seeded(lambda: _build(lite=True))
