"""GoogLeNet (Szegedy et al., 2015) and Inception v3 (Szegedy et al., 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import Classifier, conv_bn
from seeding import seeded
from torch import Tensor, nn


class Branches(nn.Module):
    """Several paths beside each other, their channels joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class PooledProjection(nn.Module):
    """A functional average pool, then 1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv_bn(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))


def _plain(inputs: int, outputs: int, kernel: int, **options: int) -> nn.Sequential:
    padding = kernel // 2
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.ReLU(inplace=True))


def _googlenet_block(inputs: int, width: int) -> nn.Module:
    return Branches(
        _plain(inputs, width, 1),
        nn.Sequential(_plain(inputs, width, 1), _plain(width, 2 * width, 3)),
        nn.Sequential(_plain(inputs, width // 2, 1), _plain(width // 2, width // 2, 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), _plain(inputs, width // 2, 1)),
    )


def googlenet() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 7, 2, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(5, alpha=1e-2, beta=0.75, k=1.0),
            _plain(32, 32, 1),
            _plain(32, 48, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _googlenet_block(48, 16),
            _googlenet_block(64, 24),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _googlenet_block(96, 32),
            Classifier(128, dropout=0.4),
        )
    )


def _block_a(inputs: int, pooled: int) -> nn.Module:
    return Branches(
        conv_bn(inputs, 16, 1),
        nn.Sequential(conv_bn(inputs, 12, 1), conv_bn(12, 16, 5)),
        nn.Sequential(conv_bn(inputs, 16, 1), conv_bn(16, 24, 3), conv_bn(24, 24, 3)),
        PooledProjection(inputs, pooled),
    )


def _block_c(inputs: int, width: int) -> nn.Module:
    """Factorised 7x7: 1x7 and 7x1."""
    return Branches(
        conv_bn(inputs, 32, 1),
        nn.Sequential(
            conv_bn(inputs, width, 1), conv_bn(width, width, (1, 7)), conv_bn(width, 32, (7, 1))
        ),
        nn.Sequential(
            conv_bn(inputs, width, 1),
            conv_bn(width, width, (7, 1)),
            conv_bn(width, width, (1, 7)),
            conv_bn(width, width, (7, 1)),
            conv_bn(width, 32, (1, 7)),
        ),
        PooledProjection(inputs, 32),
    )


def _block_e(inputs: int) -> nn.Module:
    """The 3x3 split into a 1x3 and a 3x1 beside each other."""
    return Branches(
        conv_bn(inputs, 32, 1),
        nn.Sequential(
            conv_bn(inputs, 32, 1),
            Branches(conv_bn(32, 32, (1, 3)), conv_bn(32, 32, (3, 1))),
        ),
        PooledProjection(inputs, 32),
    )


def v3() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            conv_bn(3, 16, 3, 2, padding=0),
            conv_bn(16, 16, 3, padding=0),
            conv_bn(16, 32, 3),
            nn.MaxPool2d(3, 2),
            _block_a(32, 8),
            Branches(
                conv_bn(64, 32, 3, 2, padding=0),
                nn.Sequential(conv_bn(64, 16, 1), conv_bn(16, 32, 3, 2, padding=0)),
                nn.MaxPool2d(3, 2),
            ),
            _block_c(128, 24),
            _block_e(128),
            Classifier(128, dropout=0.5),
        )
    )
