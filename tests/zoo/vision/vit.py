"""ViT (Dosovitskiy et al., 2021) and DeiT with its distillation token (Touvron et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from seeding import seeded
from torch import Tensor, nn


class Attention(nn.Module):
    """Written out, one projection for query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class FusedAttention(Attention):
    """By torch's own scaled_dot_product_attention."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width, eps=1e-6), attention
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, extra: int, fused: bool) -> None:
        super().__init__()
        width, patches = 96, 64
        kind = FusedAttention if fused else Attention
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.extra = nn.Parameter(torch.randn(1, extra, width) * 0.5)
        self.positions = nn.Parameter(torch.randn(1, patches + extra, width) * 0.5)
        self.blocks = nn.Sequential(*(Block(width, kind(width, 4)) for _ in range(3)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(extra))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(x.shape[0], -1, -1), tokens], dim=1)
        tokens = self.norm(self.blocks(tokens + self.positions))
        return sum(head(tokens[:, i]) for i, head in enumerate(self.heads)) / len(self.heads)


def vit() -> nn.Module:
    return seeded(lambda: ViT(1, fused=False))


def deit() -> nn.Module:
    return seeded(lambda: ViT(2, fused=True))
