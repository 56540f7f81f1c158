"""MLP-Mixer (Tolstikhin et al., 2021), PoolFormer (Yu et al., 2022) and CoAtNet
(Dai et al., 2021)."""

from __future__ import annotations

import torch
from blocks import Classifier, conv_bn
from mobilenet import InvertedResidual
from seeding import seeded
from torch import Tensor, nn


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(
            nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens)
        )
        self.channels = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 96, 8, 8)
        self.blocks = nn.Sequential(*(MixerBlock(64, 96) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(96), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(dim=1))


def mixer() -> nn.Module:
    return seeded(Mixer)


class PoolBlock(nn.Module):
    """Average pooling (less the token itself) in attention's place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1)
        )
        self.scale1 = nn.Parameter(torch.rand(width))
        self.scale2 = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.scale1[:, None, None] * (self.pool(y) - y)
        return x + self.scale2[:, None, None] * self.mlp(self.norm2(x))


def poolformer() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 7, 4, 2),
            PoolBlock(32),
            PoolBlock(32),
            nn.Conv2d(32, 64, 3, 2, 1),
            PoolBlock(64),
            PoolBlock(64),
            nn.GroupNorm(1, 64),
            Classifier(64, dropout=0.0),
        )
    )


class RelativeAttention(nn.Module):
    """Transformer block over all positions; the bias depends on how far apart they are."""

    def __init__(self, width: int, side: int, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = heads
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(heads, (2 * side - 1) ** 2))
        at = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        apart = at[:, None] - at[None] + side - 1
        self.register_buffer("index", (apart[..., 0] * (2 * side - 1) + apart[..., 1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        _, width, height, columns = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        y = self.norm(tokens)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        size = height * columns
        bias = torch.gather(self.table, 1, self.index.expand(self.heads, -1))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / (width // self.heads) ** 0.5
        scores = scores + bias.view(1, self.heads, size, size)
        mixed = torch.einsum("bhij,bhjd->bihd", scores.softmax(-1), v).flatten(2)
        return (tokens + self.out(mixed)).transpose(1, 2).unflatten(2, (height, columns))


def coatnet() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            conv_bn(3, 24, 3, 2, act=nn.GELU),
            InvertedResidual(24, 32, 96, 2, act=nn.GELU, excite=True),
            InvertedResidual(32, 64, 128, 2, act=nn.GELU, excite=True),
            RelativeAttention(64, 8),
            RelativeAttention(64, 8),
            Classifier(64, dropout=0.0),
        )
    )
