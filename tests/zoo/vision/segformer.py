"""SegFormer (Xie et al., 2021): overlapping patches, attention to reduced keys, Mix-FFN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import resize_like
from seeding import seeded
from torch import Tensor, nn


class EfficientAttention(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, columns: int) -> Tensor:
        batch, tokens, width = x.shape
        head = width // self.heads
        q = self.q(x).reshape(batch, tokens, self.heads, head).permute(0, 2, 1, 3)
        if self.reduction > 1:
            x = self.reduce(x.permute(0, 2, 1).reshape(batch, width, height, columns))
            x = self.norm(x.reshape(batch, width, -1).permute(0, 2, 1))
        k, v = self.kv(x).reshape(batch, -1, 2, self.heads, head).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) * head**-0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = EfficientAttention(width, heads, reduction)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.depthwise = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width)

    def forward(self, x: Tensor, height: int, columns: int) -> Tensor:
        x = x + self.attention(self.norm1(x), height, columns)
        y = self.fc1(self.norm2(x))
        batch, _, width = y.shape
        y = self.depthwise(y.transpose(1, 2).view(batch, width, height, columns))
        return x + self.fc2(F.gelu(y.flatten(2).transpose(1, 2)))


class SegFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        rows = [(3, 16, 7, 4, 1, 4), (16, 32, 3, 2, 2, 2), (32, 64, 3, 2, 4, 1)]
        self.patches, self.blocks, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.project = nn.ModuleList()
        for inputs, width, kernel, stride, heads, reduction in rows:
            self.patches.append(nn.Conv2d(inputs, width, kernel, stride, kernel // 2))
            self.blocks.append(Block(width, heads, reduction))
            self.norms.append(nn.LayerNorm(width))
            self.project.append(nn.Linear(width, 32))
        self.fuse = nn.Sequential(nn.Conv2d(96, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for patches, block, norm in zip(self.patches, self.blocks, self.norms, strict=True):
            x = patches(x)
            batch, width, height, columns = x.shape
            tokens = norm(block(x.flatten(2).transpose(1, 2), height, columns))
            x = tokens.transpose(1, 2).reshape(batch, width, height, columns)
            levels.append(x)
        parts = []
        for level, project in zip(levels, self.project, strict=True):
            y = project(level.flatten(2).transpose(1, 2)).permute(0, 2, 1)
            y = y.reshape(level.shape[0], -1, level.shape[2], level.shape[3])
            parts.append(resize_like(y, levels[0]))
        return self.head(self.fuse(torch.cat(parts[::-1], dim=1)))


def segformer() -> nn.Module:
    return seeded(SegFormer)
