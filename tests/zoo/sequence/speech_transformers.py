"""Speech encoders with attention: Conformer, Whisper, wav2vec 2.0."""

from __future__ import annotations

import math

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class RelativeAttention(nn.Module):
    """Self-attention with Transformer-XL's relative positions (Dai et al. 2019, section 3.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.position = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.randn(heads, self.size) * 0.1)
        self.position_bias = nn.Parameter(torch.randn(heads, self.size) * 0.1)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.reshape(batch, time, self.heads, self.size)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        relative = self.position(positions).reshape(1, -1, self.heads, self.size)
        content = torch.einsum("bihd,bjhd->bhij", query + self.content_bias, key)
        place = torch.einsum("bihd,zjhd->bhij", query + self.position_bias, relative)
        # the shift that lines relative distances up with absolute positions
        place = F.pad(place, (1, 0)).reshape(batch, self.heads, -1, time)[:, :, 1:]
        place = place.reshape(batch, self.heads, time, 2 * time - 1)[..., :time]
        weights = ((content + place) / math.sqrt(self.size)).softmax(-1)
        mixed = torch.einsum("bhij,bjhd->bihd", weights, value)
        return self.out(mixed.reshape(batch, time, width))


def relative_positions(time: int, width: int) -> torch.Tensor:
    """Sinusoids (2 * time - 1, width) of the distances time - 1 down to 1 - time."""
    distance = torch.arange(time - 1, -time, -1, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([(distance * rate).sin(), (distance * rate).cos()], dim=-1).flatten(1)


class FeedForward(nn.Sequential):
    """Norm, wide, Swish, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )


class ConvolutionModule(nn.Module):
    """Pointwise, GLU, depthwise, batch norm, Swish, pointwise."""

    def __init__(self, width: int, kernel: int = 15) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.last = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.glu(self.first(self.norm(x).transpose(1, 2)), dim=1)
        y = F.silu(self.batch_norm(self.depthwise(y)))
        return self.last(y).transpose(1, 2)


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.after = FeedForward(width), FeedForward(width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = RelativeAttention(width, heads)
        self.convolution = ConvolutionModule(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.attention(self.attention_norm(x), positions)
        x = x + self.convolution(x)
        return self.norm(x + 0.5 * self.after(x))


class Conformer(nn.Module):
    """Gulati et al. 2020, "Conformer": an encoder. (N, 64 frames, 40 mel bands) -> (N, 15, 48)."""

    def __init__(self, width: int = 48, heads: int = 4, blocks: int = 2, frames: int = 64) -> None:
        super().__init__()
        self.subsample = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU()
        )
        self.project = nn.Linear(16 * 9, width)
        time = ((frames - 1) // 2 - 1) // 2
        self.register_buffer("positions", relative_positions(time, width))
        self.blocks = nn.ModuleList(ConformerBlock(width, heads) for _ in range(blocks))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.subsample(features[:, None])
        x = self.project(x.transpose(1, 2).flatten(2))
        for block in self.blocks:
            x = block(x, self.positions)
        return x


class WhisperBlock(nn.Module):
    """Pre-norm attention (no bias in the keys) and a GELU feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        scale = (width // self.heads) ** -0.25

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(batch, time, self.heads, -1).permute(0, 2, 1, 3)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        similar = (query * scale) @ (key * scale).transpose(-1, -2)
        mixed = (similar.softmax(dim=-1) @ value).permute(0, 2, 1, 3).flatten(2)
        return self.out(mixed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.norm(x))


class WhisperEncoder(nn.Module):
    """Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".
    (N, 80 mel bands, 200 frames) -> (N, 100, 64)."""

    def __init__(self, width: int = 64, heads: int = 4, blocks: int = 2, frames: int = 200) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        rate = torch.exp(torch.arange(width // 2) * (-math.log(10000.0) / (width // 2 - 1)))
        angle = torch.arange(frames // 2)[:, None] * rate
        self.register_buffer("positions", torch.cat([angle.sin(), angle.cos()], dim=1))
        self.blocks = nn.ModuleList(WhisperBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel))))
        x = x.permute(0, 2, 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Wav2Vec2(nn.Module):
    """Baevski et al. 2020, "wav2vec 2.0": feature encoder (group norm in the first layer),
    weight-normalised convolutional positions, post-norm Transformer. (N, 8000 samples) ->
    (N, 24, 32)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
        self.convs = nn.ModuleList(
            nn.Conv1d(width if index else 1, width, kernel, stride, bias=False)
            for index, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
        )
        self.group_norm = nn.GroupNorm(width, width)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)
        self.positions = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(width, width, 16, padding=8, groups=4), dim=2
        )
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        x = wave[:, None]
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = F.gelu(x if index else self.group_norm(x))
        x = self.project(self.norm(x.transpose(1, 2)))
        places = self.positions(x.transpose(1, 2))[:, :, :-1]
        return self.encoder(x + F.gelu(places).transpose(1, 2))


def conformer() -> nn.Module:
    return seeded(Conformer)


def whisper_encoder() -> nn.Module:
    return seeded(WhisperEncoder)


def wav2vec2() -> nn.Module:
    return seeded(Wav2Vec2)
