"""Swin Transformer (Liu et al., 2021): attention in windows, shifted by a cyclic roll."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import Tensor, nn

WINDOW = 4


class WindowAttention(nn.Module):
    """Attention among WINDOW x WINDOW tokens, with a bias for each relative position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * WINDOW - 1) ** 2, heads))
        at = torch.stack(
            torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
        ).flatten(1)
        apart = (at[:, :, None] - at[:, None]) + WINDOW - 1
        self.register_buffer("index", apart[0] * (2 * WINDOW - 1) + apart[1])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        count, tokens, width = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q * self.scale @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1)
        scores = scores + bias.unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(-1, windows, self.heads, tokens, tokens)
            scores = (scores + mask[None, :, None]).view(-1, self.heads, tokens, tokens)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(count, tokens, width)
        return self.proj(mixed)


def windows(x: Tensor) -> Tensor:
    """(batch, height, width, channels) as (batch * windows, WINDOW**2, channels)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, channels)


def unwindows(x: Tensor, height: int, width: int) -> Tensor:
    x = x.view(-1, height // WINDOW, width // WINDOW, WINDOW, WINDOW, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])


class Block(nn.Module):
    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        mask = None
        if shift:
            regions = torch.zeros(1, side, side, 1)
            cuts = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
            for index, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
                regions[:, rows, columns] = index
            numbers = windows(regions).squeeze(-1)
            apart = numbers.unsqueeze(1) - numbers.unsqueeze(2)
            mask = apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = unwindows(self.attention(windows(y), self.mask), height, width)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm0 = nn.Conv2d(3, 32, 4, 4), nn.LayerNorm(32)
        self.stages = nn.Sequential(
            Block(32, 2, 16, 0),
            Block(32, 2, 16, WINDOW // 2),
            PatchMerging(32),
            Block(64, 4, 8, 0),
            Block(64, 4, 8, WINDOW // 2),
        )
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.patches(x).permute(0, 2, 3, 1))
        x = self.norm(self.stages(x))
        return self.head(x.mean((1, 2)))


def swin() -> nn.Module:
    return seeded(Swin)
