"""GhostNet (Han et al., 2020): half of the features are cheap copies of the other half."""

from __future__ import annotations

import torch
from blocks import Classifier, SqueezeExcite, conv_bn, relu
from seeding import seeded
from torch import Tensor, nn


class Ghost(nn.Module):
    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__()
        half = (outputs + 1) // 2
        self.outputs = outputs
        self.primary = conv_bn(inputs, half, 1, act=relu if act else None)
        self.cheap = conv_bn(half, half, 3, groups=half, act=relu if act else None)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.outputs]


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, excite: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [Ghost(inputs, inner)]
        if stride > 1:
            layers.append(conv_bn(inner, inner, 3, stride, groups=inner, act=None))
        if excite:
            layers.append(SqueezeExcite(inner, inner // 4, gate=nn.Hardsigmoid))
        self.layers = nn.Sequential(*layers, Ghost(inner, outputs, act=False))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv_bn(inputs, inputs, 3, stride, groups=inputs, act=None),
                conv_bn(inputs, outputs, 1, act=None),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


def ghostnet() -> nn.Module:
    rows = [
        (16, 16, 16, 1, False),
        (16, 48, 25, 2, False),  # an odd width: the last copy is cut off
        (25, 72, 40, 2, True),
        (40, 120, 40, 1, True),
        (40, 184, 80, 2, False),
    ]
    return seeded(
        lambda: nn.Sequential(
            conv_bn(3, 16, 3, 2),
            *(Bottleneck(*row) for row in rows),
            conv_bn(80, 256, 1),
            Classifier(256),
        )
    )
