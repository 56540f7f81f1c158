"""Parts that many of the architectures share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    act: Activation | None = relu,
    padding: int | tuple[int, int] | None = None,
) -> nn.Sequential:
    """Convolution (same size at stride 1), batch norm and activation."""
    if padding is None:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2 * dilation, sides[1] // 2 * dilation)
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole image shows (Hu et al., 2018)."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        act: Activation = relu,
        gate: Activation = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.act(self.reduce(scale))))


class Classifier(nn.Module):
    """Mean over the positions, then class scores."""

    def __init__(self, channels: int, classes: int = 10, dropout: float = 0.2) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(torch.flatten(self.pool(x), 1)))


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """`x` enlarged to the size of `reference`, bilinear."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)
