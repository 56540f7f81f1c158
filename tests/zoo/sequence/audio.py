"""Waveforms: synthesis and source separation."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class WaveNet(nn.Module):
    """van den Oord et al. 2016, "WaveNet": causal dilated convolutions, gated units, skips.
    (N, T) values 0 to 255 -> (N, 256, T)."""

    def __init__(self, width: int = 24, skip: int = 32, layers: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.dilations = [2**index for index in range(layers)]
        self.gated = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 2, dilation=d) for d in self.dilations
        )
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in self.dilations)
        self.skip = nn.ModuleList(nn.Conv1d(width, skip, 1) for _ in self.dilations)
        self.end = nn.Sequential(
            nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 256, 1)
        )

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        x = self.embedding(samples).transpose(1, 2)
        total = 0
        for dilation, gated, residual, skip in zip(
            self.dilations, self.gated, self.residual, self.skip, strict=True
        ):
            signal, gate = gated(F.pad(x, (dilation, 0))).chunk(2, dim=1)
            y = torch.tanh(signal) * torch.sigmoid(gate)
            total = total + skip(y)
            x = x + residual(y)
        return self.end(total)


class SeparationBlock(nn.Module):
    """1x1, PReLU, global norm, depthwise, PReLU, global norm, then residual and skip."""

    def __init__(self, width: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, hidden, 1)
        self.prelu1, self.prelu2 = nn.PReLU(), nn.PReLU()
        self.norm1, self.norm2 = nn.GroupNorm(1, hidden, 1e-8), nn.GroupNorm(1, hidden, 1e-8)
        self.depthwise = nn.Conv1d(
            hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden
        )
        self.residual, self.skip = nn.Conv1d(hidden, width, 1), nn.Conv1d(hidden, width, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm1(self.prelu1(self.first(x)))
        y = self.norm2(self.prelu2(self.depthwise(y)))
        return x + self.residual(y), self.skip(y)


class ConvTasNet(nn.Module):
    """Luo and Mesgarani 2019, "Conv-TasNet": masks on a learned basis. (N, 1, T) -> (N, 2, T)."""

    def __init__(
        self, basis: int = 48, width: int = 24, hidden: int = 48, speakers: int = 2
    ) -> None:
        super().__init__()
        self.speakers = speakers
        self.encoder = nn.Conv1d(1, basis, 16, stride=8, bias=False)
        self.norm = nn.GroupNorm(1, basis, 1e-8)
        self.bottleneck = nn.Conv1d(basis, width, 1)
        self.blocks = nn.ModuleList(
            SeparationBlock(width, hidden, 2**index) for _ in range(2) for index in range(3)
        )
        self.masks = nn.Sequential(nn.PReLU(), nn.Conv1d(width, speakers * basis, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(basis, 1, 16, stride=8, bias=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        coded = F.relu(self.encoder(wave))
        x, total = self.bottleneck(self.norm(coded)), 0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        masks = self.masks(total).unflatten(1, (self.speakers, -1))
        masked = (coded[:, None] * masks).flatten(0, 1)
        return self.decoder(masked).unflatten(0, (-1, self.speakers)).flatten(2)


class Demucs(nn.Module):
    """Defossez et al. 2019, "Music Source Separation in the Waveform Domain": a U-Net of strided
    convolutions with GLU, an LSTM at the bottom. (N, 1, 1024) -> (N, 2, 1024)."""

    def __init__(self, width: int = 8, depth: int = 3, sources: int = 2) -> None:
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = 1
        for level in range(depth):
            out = width * 2**level
            self.down.append(
                nn.Sequential(
                    nn.Conv1d(channels, out, 8, stride=4, padding=2),
                    nn.ReLU(),
                    nn.Conv1d(out, 2 * out, 1),
                    nn.GLU(dim=1),
                )
            )
            up: list[nn.Module] = [
                nn.Conv1d(out, 2 * out, 3, padding=1),
                nn.GLU(dim=1),
                nn.ConvTranspose1d(out, channels if level else sources, 8, stride=4, padding=2),
            ]
            self.up.insert(0, nn.Sequential(*up, *([nn.ReLU()] if level else [])))
            channels = out
        self.lstm = nn.LSTM(channels, channels, 2, bidirectional=True)
        self.linear = nn.Linear(2 * channels, channels)

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        scale = mix.std(dim=-1, keepdim=True) + 1e-3
        x, skips = mix / scale, []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x, _ = self.lstm(x.permute(2, 0, 1))
        x = self.linear(x).permute(1, 2, 0)
        for layer in self.up:
            x = layer(x + skips.pop())
        return x * scale


class ResidualUnit(nn.Module):
    """Dilated convolutions, each with a residual (HiFi-GAN's ResBlock1)."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2)
            )
            for d in dilations
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class HiFiGAN(nn.Module):
    """Kong et al. 2020, "HiFi-GAN": the generator with weight norm as it is trained.
    (N, 40 mel bands, T) -> (N, 1, 32 T)."""

    def __init__(self, width: int = 64, rates: tuple[int, ...] = (8, 4)) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.first = norm(nn.Conv1d(40, width, 7, padding=3))
        self.up, self.units = nn.ModuleList(), nn.ModuleList()
        for rate in rates:
            conv = nn.ConvTranspose1d(width, width // 2, 2 * rate, rate, padding=rate // 2)
            self.up.append(norm(conv))
            width //= 2
            self.units.append(
                nn.ModuleList(ResidualUnit(width, kernel, (1, 3)) for kernel in (3, 7))
            )
        self.last = norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.first(mel)
        for up, units in zip(self.up, self.units, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            x = torch.stack([unit(x) for unit in units]).mean(0)
        return torch.tanh(self.last(F.leaky_relu(x)))


class CBHG(nn.Module):
    """Wang et al. 2017, "Tacotron": the text encoder, a bank of convolutions, highway layers and a
    bidirectional GRU. (N, T) characters below 40 -> (N, T, 64)."""

    def __init__(self, width: int = 32, bank: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 2 * width)
        self.prenet = nn.Sequential(
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Dropout(0.5),
        )

        def conv(channels: int, out: int, kernel: int) -> nn.Sequential:
            pad = nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0)
            return nn.Sequential(
                pad, nn.Conv1d(channels, out, kernel, bias=False), nn.ReLU(), nn.BatchNorm1d(out)
            )

        self.bank = nn.ModuleList(conv(width, width, size) for size in range(1, bank + 1))
        self.pool = nn.MaxPool1d(2, stride=1, padding=1)
        self.project1 = conv(bank * width, width, 3)
        self.project2 = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1, bias=False), nn.BatchNorm1d(width)
        )
        self.highways = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(2))
        self.rnn = nn.GRU(width, width, bidirectional=True, batch_first=True)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        x = self.prenet(self.embedding(characters)).transpose(1, 2)
        y = torch.cat([conv(x) for conv in self.bank], dim=1)
        y = self.pool(y)[:, :, : x.shape[2]]
        y = (x + self.project2(self.project1(y))).transpose(1, 2)
        for highway in self.highways:
            new, gate = highway(y).chunk(2, dim=-1)
            gate = gate.sigmoid()
            y = new.relu() * gate + y * (1 - gate)
        return self.rnn(y)[0]


def wave_net() -> nn.Module:
    return seeded(WaveNet)


def conv_tasnet() -> nn.Module:
    return seeded(ConvTasNet)


def demucs() -> nn.Module:
    return seeded(Demucs)


def hifi_gan() -> nn.Module:
    return seeded(HiFiGAN)


def tacotron_cbhg() -> nn.Module:
    return seeded(CBHG)
