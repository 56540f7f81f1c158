"""Speech recognition, keyword spotting and speaker recognition."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class DeepSpeech2(nn.Module):
    """Amodei et al. 2015, "Deep Speech 2": spectrogram convolutions, bidirectional GRUs with batch
    norm between them, character scores at every step. (N, 1, 64 frequencies, T) -> (N, T/2, 29)."""

    def __init__(self, width: int = 48, layers: int = 2, characters: int = 29) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, (21, 11), stride=(2, 2), padding=(10, 5), bias=False),
            nn.BatchNorm2d(8),
            nn.Hardtanh(0, 20),
            nn.Conv2d(8, 8, (11, 11), stride=(2, 1), padding=(5, 5), bias=False),
            nn.BatchNorm2d(8),
            nn.Hardtanh(0, 20),
        )
        sizes = [8 * 16] + [width] * (layers - 1)
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes)
        self.rnns = nn.ModuleList(
            nn.GRU(size, width, bidirectional=True, batch_first=True) for size in sizes
        )
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, characters, bias=False)

    def forward(self, spectrogram: torch.Tensor) -> torch.Tensor:
        x = self.conv(spectrogram).flatten(1, 2)
        for norm, rnn in zip(self.norms, self.rnns, strict=True):
            x, _ = rnn(norm(x).transpose(1, 2))
            x = (x[..., : x.shape[-1] // 2] + x[..., x.shape[-1] // 2 :]).transpose(1, 2)
        return F.log_softmax(self.head(self.norm(x).transpose(1, 2)), dim=-1)


class Separable(nn.Module):
    """A time-channel separable convolution with batch norm."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        pad = dilation * (kernel - 1) // 2
        self.depthwise = nn.Conv1d(
            channels, channels, kernel, stride, pad, dilation, groups=channels, bias=False
        )
        self.pointwise = nn.Conv1d(channels, out, 1, bias=False)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.pointwise(self.depthwise(x)))


class QuartzBlock(nn.Module):
    """R separable convolutions and a residual through a pointwise one."""

    def __init__(self, channels: int, out: int, kernel: int, repeat: int = 3) -> None:
        super().__init__()
        sizes = [channels] + [out] * (repeat - 1)
        self.convs = nn.ModuleList(Separable(size, out, kernel) for size in sizes)
        self.residual = nn.Sequential(nn.Conv1d(channels, out, 1, bias=False), nn.BatchNorm1d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index, conv in enumerate(self.convs):
            y = conv(F.relu(y) if index else y)
        return F.relu(y + self.residual(x))


class QuartzNet(nn.Module):
    """Kriman et al. 2019, "QuartzNet". (N, 64 mel bands, T) -> (N, T/2, 29)."""

    def __init__(self, characters: int = 29) -> None:
        super().__init__()
        self.first = Separable(64, 64, 33, stride=2)
        self.blocks = nn.Sequential(QuartzBlock(64, 64, 33), QuartzBlock(64, 96, 39))
        self.last = Separable(96, 96, 27, dilation=2)
        self.wide = nn.Sequential(nn.Conv1d(96, 128, 1, bias=False), nn.BatchNorm1d(128), nn.ReLU())
        self.head = nn.Conv1d(128, characters, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.first(features)))
        x = self.head(self.wide(F.relu(self.last(x))))
        return x.transpose(1, 2).log_softmax(-1)


class JasperBlock(nn.Module):
    """R dense convolutions; the residuals of all blocks before are added (dense residual)."""

    def __init__(self, before: list[int], out: int, kernel: int, repeat: int = 2) -> None:
        super().__init__()
        sizes = [before[-1]] + [out] * (repeat - 1)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(size, out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm1d(out)
            )
            for size in sizes
        )
        self.residuals = nn.ModuleList(
            nn.Sequential(nn.Conv1d(size, out, 1, bias=False), nn.BatchNorm1d(out))
            for size in before
        )

    def forward(self, before: list[torch.Tensor]) -> torch.Tensor:
        y = before[-1]
        for index, conv in enumerate(self.convs):
            y = conv(F.relu(y) if index else y)
        for residual, x in zip(self.residuals, before, strict=True):
            y = y + residual(x)
        return F.relu(y)


class Jasper(nn.Module):
    """Li et al. 2019, "Jasper". (N, 64 mel bands, T) -> (N, T/2, 29)."""

    def __init__(self, characters: int = 29) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(64, 48, 11, 2, 5, bias=False), nn.BatchNorm1d(48), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            [
                JasperBlock([48], 48, 11),
                JasperBlock([48, 48], 64, 13),
                JasperBlock([48, 48, 64], 64, 17),
            ]
        )
        self.head = nn.Conv1d(64, characters, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        values = [self.first(features)]
        for block in self.blocks:
            values.append(block(values))
        return self.head(values[-1]).log_softmax(1)


class DSCNN(nn.Module):
    """Zhang et al. 2017, "Hello Edge": a depthwise separable CNN for keywords.
    (N, 1, 49 frames, 10 coefficients) -> (N, 12)."""

    def __init__(self, width: int = 64, blocks: int = 4, keywords: int = 12) -> None:
        super().__init__()

        def block(first: int, kernel: tuple[int, int], stride: int, groups: int) -> nn.Sequential:
            pad = (kernel[0] // 2, kernel[1] // 2)
            conv = nn.Conv2d(first, width, kernel, stride, pad, groups=groups, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())

        self.first = block(1, (10, 4), 2, 1)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(block(width, (3, 3), 1, width), block(width, (1, 1), 1, 1))
                for _ in range(blocks)
            )
        )
        self.head = nn.Linear(width, keywords)

    def forward(self, coefficients: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.first(coefficients)).mean((2, 3)))


class Res2Conv(nn.Module):
    """Channels in groups; each group's convolution also sees the result of the one before."""

    def __init__(self, channels: int, dilation: int, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        width = channels // scale
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
            for _ in range(scale - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(scale - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *rest = x.chunk(self.scale, dim=1)
        parts, previous = [first], None
        for part, conv, norm in zip(rest, self.convs, self.norms, strict=True):
            previous = norm(F.relu(conv(part if previous is None else part + previous)))
            parts.append(previous)
        return torch.cat(parts, dim=1)


class SERes2Block(nn.Module):
    """1x1, Res2 convolution, 1x1, squeeze and excitation, residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()

        def pointwise() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv1d(channels, channels, 1), nn.ReLU(), nn.BatchNorm1d(channels)
            )

        self.before, self.after = pointwise(), pointwise()
        self.res2 = Res2Conv(channels, dilation)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool1d(1),
            nn.Conv1d(channels, 16, 1),
            nn.ReLU(),
            nn.Conv1d(16, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.after(self.res2(self.before(x)))
        return x + y * self.gate(y)


class ECAPATDNN(nn.Module):
    """Desplanques et al. 2020, "ECAPA-TDNN": speaker embeddings with attentive statistics pooling.
    (N, 40 mel bands, T) -> (N, 32)."""

    def __init__(self, channels: int = 64, embedding: int = 32) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(40, channels, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(channels)
        )
        self.blocks = nn.ModuleList(SERes2Block(channels, dilation) for dilation in (2, 3, 4))
        wide = 3 * channels
        self.aggregate = nn.Conv1d(wide, wide, 1)
        self.attention = nn.Sequential(
            nn.Conv1d(3 * wide, 32, 1),
            nn.ReLU(),
            nn.BatchNorm1d(32),
            nn.Tanh(),
            nn.Conv1d(32, wide, 1),
            nn.Softmax(dim=2),
        )
        self.norm = nn.BatchNorm1d(2 * wide)
        self.head = nn.Linear(2 * wide, embedding)
        self.head_norm = nn.BatchNorm1d(embedding)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.first(features)
        values = []
        for block in self.blocks:
            x = block(x)
            values.append(x)
        x = F.relu(self.aggregate(torch.cat(values, dim=1)))
        mean = x.mean(2, keepdim=True).expand_as(x)
        std = x.var(2, keepdim=True).clamp(min=1e-4).sqrt().expand_as(x)
        weights = self.attention(torch.cat([x, mean, std], dim=1))
        mean = (x * weights).sum(2)
        std = ((x * x * weights).sum(2) - mean * mean).clamp(min=1e-4).sqrt()
        return self.head_norm(self.head(self.norm(torch.cat([mean, std], dim=1))))


class XVector(nn.Module):
    """Snyder et al. 2018, "X-Vectors": a time-delay network with mean and deviation over time.
    (N, 24 coefficients, T) -> (N, 32)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, out, kernel, dilation in (
            (24, width, 5, 1),
            (width, width, 3, 2),
            (width, width, 3, 3),
            (width, width, 1, 1),
            (width, 150, 1, 1),
        ):
            conv = nn.Conv1d(channels, out, kernel, dilation=dilation)
            layers += [conv, nn.ReLU(), nn.BatchNorm1d(out)]
        self.frames = nn.Sequential(*layers)
        self.segment = nn.Sequential(
            nn.Linear(300, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 32)
        )

    def forward(self, coefficients: torch.Tensor) -> torch.Tensor:
        x = self.frames(coefficients)
        return self.segment(torch.cat([x.mean(-1), x.std(-1)], dim=1))


def deep_speech2() -> nn.Module:
    return seeded(DeepSpeech2)


def quartz_net() -> nn.Module:
    return seeded(QuartzNet)


def jasper() -> nn.Module:
    return seeded(Jasper)


def ds_cnn() -> nn.Module:
    return seeded(DSCNN)


def ecapa_tdnn() -> nn.Module:
    return seeded(ECAPATDNN)


def x_vector() -> nn.Module:
    return seeded(XVector)
