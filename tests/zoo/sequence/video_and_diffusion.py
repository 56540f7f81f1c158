"""Video in three dimensions, and denoisers of diffusion models."""

from __future__ import annotations

import math

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class C3D(nn.Module):
    """Tran et al. 2014, "Learning Spatiotemporal Features with 3D Convolutional Networks".
    (N, 3, 8 frames, 32, 32) -> (N, 10)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()

        def conv(channels: int, out: int) -> list[nn.Module]:
            return [nn.Conv3d(channels, out, 3, padding=1), nn.ReLU()]

        self.features = nn.Sequential(
            *conv(3, width),
            nn.MaxPool3d((1, 2, 2)),
            *conv(width, 2 * width),
            nn.MaxPool3d(2),
            *conv(2 * width, 4 * width),
            *conv(4 * width, 4 * width),
            nn.MaxPool3d(2, padding=(0, 1, 1)),
        )
        self.head = nn.Sequential(
            nn.Linear(4 * width * 2 * 5 * 5, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10)
        )

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(clip).flatten(1))


class Conv2Plus1D(nn.Sequential):
    """A spatial convolution, then one over time."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        middle = (channels * out * 27) // (channels * 9 + 3 * out)
        space = nn.Conv3d(channels, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        time = nn.Conv3d(middle, out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
        super().__init__(space, nn.BatchNorm3d(middle), nn.ReLU(), time)


class VideoBlock(nn.Module):
    """A residual block of two (2+1)D convolutions."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(Conv2Plus1D(channels, out, stride), nn.BatchNorm3d(out))
        self.conv2 = nn.Sequential(Conv2Plus1D(out, out), nn.BatchNorm3d(out))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class R2Plus1D(nn.Module):
    """Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions".
    (N, 3, 8 frames, 32, 32) -> (N, 10)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(VideoBlock(width, width, 1), VideoBlock(width, 2 * width, 2))
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.blocks(self.stem(clip))).flatten(1))


def time_embedding(steps: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoids (N, width) of the diffusion steps (N,)."""
    rate = torch.exp(
        torch.arange(width // 2, device=steps.device) * (-math.log(10000) / (width // 2))
    )
    angle = steps[:, None].float() * rate
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class NoiseBlock(nn.Module):
    """Group norm, SiLU, convolution, twice; the step shifts the middle; residual."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.time = nn.Linear(time, 2 * out)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        y = self.norm2(y) * (1 + scale) + shift
        return self.shortcut(x) + self.conv2(F.silu(y))


class SpatialAttention(nn.Module):
    """Self-attention over the pixels of a small map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)
        query, key, value = self.qkv(self.norm(flat)).chunk(3, dim=1)
        scale = query.shape[1] ** -0.25
        weights = torch.einsum("bct,bcs->bts", query * scale, key * scale).softmax(-1)
        mixed = torch.einsum("bts,bcs->bct", weights, value)
        return (flat + self.out(mixed)).unflatten(2, x.shape[2:])


class CrossAttention(nn.Module):
    """Pixels look at a condition (N, tokens, 16), as Stable Diffusion's U-Net does at a text."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key, self.value = (nn.Linear(16, channels, bias=False) for _ in range(2))
        self.out = nn.Linear(channels, channels)
        self.ff_norm = nn.LayerNorm(channels)
        self.geglu, self.down = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(self.norm(tokens))),
            split(self.key(condition)),
            split(self.value(condition)),
        )
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        wide, gate = self.geglu(self.ff_norm(tokens)).chunk(2, dim=-1)
        tokens = tokens + self.down(wide * F.gelu(gate))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class DiffusionUNet(nn.Module):
    """Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with Rombach et al. 2022's cross
    attention. (noisy (N, 3, 32, 32), step (N,) int64, condition (N, 6, 16)) -> (N, 3, 32, 32)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, time = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.down2 = NoiseBlock(width, width, time), NoiseBlock(width, 2 * width, time)
        self.smaller = nn.ModuleList(
            nn.Conv2d(size, size, 3, stride=2, padding=1) for size in (width, 2 * width)
        )
        self.middle1 = NoiseBlock(2 * width, 2 * width, time)
        self.attention, self.cross = SpatialAttention(2 * width), CrossAttention(2 * width)
        self.middle2 = NoiseBlock(2 * width, 2 * width, time)
        self.larger = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(2))
        self.up2 = NoiseBlock(4 * width, 2 * width, time)
        self.up1 = NoiseBlock(3 * width, width, time)
        self.norm, self.last = nn.GroupNorm(4, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(
        self, noisy: torch.Tensor, step: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        time = self.time(time_embedding(step, self.width))
        high = self.down1(self.first(noisy), time)
        low = self.down2(self.smaller[0](high), time)
        x = self.middle1(self.smaller[1](low), time)
        x = self.middle2(self.cross(self.attention(x), condition), time)
        x = self.larger[0](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.up2(torch.cat([x, low], dim=1), time)
        x = self.larger[1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.up1(torch.cat([x, high], dim=1), time)
        return self.last(F.silu(self.norm(x)))


class DiTBlock(nn.Module):
    """Attention and feed-forward, shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        parts = self.modulation(condition)[:, None].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        y = self.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(y, y, y, need_weights=False)[0]
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """Peebles and Xie 2022, "Scalable Diffusion Models with Transformers".
    (noisy (N, 4, 8, 8), step (N,) int64, class (N,) int64) -> (N, 4, 8, 8)."""

    def __init__(self, width: int = 48, heads: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Conv2d(4, width, 2, 2)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.last = nn.Linear(width, 16)

    def forward(self, noisy: torch.Tensor, step: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        x = self.patches(noisy).flatten(2).transpose(1, 2) + self.places
        condition = self.time(time_embedding(step, self.width)) + self.classes(label)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        x = self.last(self.norm(x) * (1 + scale) + shift)
        x = x.unflatten(2, (2, 2, 4)).unflatten(1, (4, 4))
        return torch.einsum("nhwpqc->nchpwq", x).reshape(noisy.shape)


def c3d() -> nn.Module:
    return seeded(C3D)


def r2plus1d() -> nn.Module:
    return seeded(R2Plus1D)


def diffusion_unet() -> nn.Module:
    return seeded(DiffusionUNet)


def dit() -> nn.Module:
    return seeded(DiT)
