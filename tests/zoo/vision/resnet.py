"""ResNet with basic and bottleneck blocks (He et al., 2016), ResNeXt (Xie et al., 2017), Wide
ResNet (Zagoruyko and Komodakis, 2016) and SE-ResNet (Hu et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable

from blocks import Classifier, SqueezeExcite, conv_bn
from seeding import seeded
from torch import Tensor, nn


class Basic(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, excite: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            conv_bn(inputs, width, 3, stride),
            conv_bn(width, width, 3, act=None),
        ]
        if excite:
            layers.append(SqueezeExcite(width, width // 4))
        self.layers = nn.Sequential(*layers)
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else conv_bn(inputs, width, 1, stride, act=None)
        self.relu = nn.ReLU(inplace=True)
        self.outputs = width

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.layers(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """The 3x3 convolution `inner` channels wide, in `groups`; four times `width` comes out."""

    def __init__(self, inputs: int, width: int, stride: int, inner: int, groups: int) -> None:
        super().__init__()
        self.outputs = width * 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, self.outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.outputs)
        self.relu = nn.ReLU(inplace=True)  # one module, called three times
        same = stride == 1 and inputs == self.outputs
        self.downsample = None if same else conv_bn(inputs, self.outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def _build(block: Callable[[int, int, int], nn.Module], widths: list[int]) -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 16
    for index, width in enumerate(widths):
        for stride in (2 if index else 1, 1):
            layers.append(block(inputs, width, stride))
            inputs = layers[-1].outputs
    return nn.Sequential(*layers, Classifier(inputs, dropout=0.0))


def basic() -> nn.Module:
    return seeded(lambda: _build(Basic, [16, 32, 64]))


def bottleneck() -> nn.Module:
    return seeded(lambda: _build(lambda i, w, s: Bottleneck(i, w, s, w, 1), [16, 32, 64]))


def resnext() -> nn.Module:
    return seeded(lambda: _build(lambda i, w, s: Bottleneck(i, w, s, 2 * w, 8), [16, 32, 64]))


def se_resnet() -> nn.Module:
    return seeded(lambda: _build(lambda i, w, s: Basic(i, w, s, excite=True), [16, 32, 64]))


class PreActivated(nn.Module):
    """Batch norm and ReLU come first: no convolution stands before the norm."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(0.3)
        same = stride == 1 and inputs == width
        self.shortcut = None if same else nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(out)
        out = self.relu(self.bn2(self.conv1(out)))
        return self.conv2(self.dropout(out)) + kept


def wide() -> nn.Module:
    rows = [(16, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            *(PreActivated(*row) for row in rows),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            Classifier(128, dropout=0.0),
        )
    )
