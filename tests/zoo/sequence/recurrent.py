"""Recurrent networks: text lines, language models, translation, video and time series."""

from __future__ import annotations

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class CRNN(nn.Module):
    """Shi et al. 2015, "An End-to-End Trainable Neural Network for Image-based Sequence
    Recognition". (N, 1, 32, W) -> (W/4 + 1 steps, N, 37)."""

    def __init__(self, width: int = 12, hidden: int = 32, characters: int = 37) -> None:
        super().__init__()
        sizes = [1, width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = []
        for index in range(7):
            kernel, pad = (2, 0) if index == 6 else (3, 1)
            layers.append(nn.Conv2d(sizes[index], sizes[index + 1], kernel, padding=pad))
            if index in (2, 4, 6):
                layers.append(nn.BatchNorm2d(sizes[index + 1]))
            layers.append(nn.ReLU())
            if index in (0, 1):
                layers.append(nn.MaxPool2d(2, 2))
            elif index in (3, 5):
                layers.append(nn.MaxPool2d((2, 2), (2, 1), (0, 1)))
        self.conv = nn.Sequential(*layers)
        self.rnn1 = nn.LSTM(8 * width, hidden, bidirectional=True)
        self.middle = nn.Linear(2 * hidden, hidden)
        self.rnn2 = nn.LSTM(hidden, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, characters)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv(image).squeeze(2).permute(2, 0, 1)
        x = self.middle(self.rnn1(x)[0])
        return self.head(self.rnn2(x)[0])


class LanguageModel(nn.Module):
    """Next-word scores of recurrent layers. (N, T) words below 200 -> (N, T, 200)."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], width: int = 48, tied: bool = False):
        super().__init__()
        self.embedding = nn.Embedding(200, width)
        self.rnn = kind(width, width, num_layers=2, batch_first=True, dropout=0.5)
        self.head = nn.Linear(width, 200)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.embedding(words))[0])


class StepwiseLanguageModel(nn.Module):
    """One step of an LSTM language model that is run by its caller: (words (N, 1), hidden, cell
    (2, N, 32)) -> (scores (N, 1, 200), hidden, cell), as models are deployed on devices."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, width)
        self.rnn = nn.LSTM(width, width, num_layers=2)
        self.head = nn.Linear(width, 200)

    def forward(
        self, words: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, (hidden, cell) = self.rnn(self.embedding(words).transpose(0, 1), (hidden, cell))
        return self.head(x).transpose(0, 1), hidden, cell


class Translator(nn.Module):
    """Bahdanau et al. 2014, "Neural Machine Translation by Jointly Learning to Align and
    Translate": bidirectional encoder, additive attention, a decoder fed with the target words.
    ((N, 9), (N, 7)) words below 100 -> (N, 7, 100)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(100, width), nn.Embedding(100, width)
        self.encoder = nn.GRU(width, width, bidirectional=True, batch_first=True)
        self.start = nn.Linear(width, width)
        self.key, self.query = nn.Linear(2 * width, width), nn.Linear(width, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)
        self.cell = nn.GRUCell(3 * width, width)
        self.head = nn.Linear(4 * width, 100)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        encoded, last = self.encoder(self.source(source))
        keys, words = self.key(encoded), self.target(target)
        state, scores = torch.tanh(self.start(last[1])), []
        for step in range(words.shape[1]):
            energy = self.energy(torch.tanh(keys + self.query(state)[:, None]))
            context = (energy.softmax(dim=1) * encoded).sum(dim=1)
            state = self.cell(torch.cat([words[:, step], context], dim=1), state)
            scores.append(self.head(torch.cat([state, context, words[:, step]], dim=1)))
        return torch.stack(scores, dim=1)


class ConvLSTM(nn.Module):
    """Shi et al. 2015, "Convolutional LSTM Network" (with peepholes), then the next frame.
    (N, 4 frames, 1, 16, 16) -> (N, 1, 16, 16)."""

    def __init__(self, width: int = 12, size: int = 16) -> None:
        super().__init__()
        self.width = width
        self.gates = nn.Conv2d(1 + width, 4 * width, 3, padding=1)
        self.peephole = nn.Parameter(torch.randn(3, width, size, size) * 0.1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        hidden = frames.new_zeros(frames.shape[0], self.width, *frames.shape[3:])
        cell = torch.zeros_like(hidden)
        for frame in frames.unbind(1):
            gates = self.gates(torch.cat([frame, hidden], dim=1))
            i, f, o, g = gates.chunk(4, dim=1)
            i = torch.sigmoid(i + self.peephole[0] * cell)
            f = torch.sigmoid(f + self.peephole[1] * cell)
            cell = f * cell + i * torch.tanh(g)
            hidden = torch.sigmoid(o + self.peephole[2] * cell) * torch.tanh(cell)
        return torch.sigmoid(self.head(hidden))


class TemporalBlock(nn.Module):
    """Two causal, weight-normalised, dilated convolutions with a residual."""

    def __init__(self, channels: int, out: int, dilation: int, kernel: int = 3) -> None:
        super().__init__()
        self.pad = (kernel - 1) * dilation
        norm = nn.utils.parametrizations.weight_norm
        self.conv1 = norm(nn.Conv1d(channels, out, kernel, padding=self.pad, dilation=dilation))
        self.conv2 = norm(nn.Conv1d(out, out, kernel, padding=self.pad, dilation=dilation))
        self.residual = nn.Conv1d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.conv1(x)[:, :, : -self.pad])
        y = F.relu(self.conv2(y)[:, :, : -self.pad])
        return F.relu(y + self.residual(x))


class TCN(nn.Module):
    """Bai et al. 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks".
    (N, 1, T) -> (N, 10), like sequential MNIST."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            TemporalBlock(1, width, 1),
            TemporalBlock(width, width, 2),
            TemporalBlock(width, width, 4),
        )
        self.head = nn.Linear(width, 10)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.head(self.blocks(series)[:, :, -1]), dim=1)


class BasisBlock(nn.Module):
    """Fully connected layers, then coefficients of a trend (polynomials) or a season (Fourier)."""

    def __init__(self, past: int, future: int, seasonal: bool, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in (past, width, width):
            layers += [nn.Linear(size, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        bases = []
        for start, length in ((-past, past), (0, future)):
            t = torch.arange(start, start + length) / future
            if seasonal:
                angles = 2 * torch.pi * torch.arange(1, 4)[:, None] * t
                bases.append(torch.cat([angles.cos(), angles.sin()]))
            else:
                bases.append(torch.stack([t**power for power in range(3)]))
        self.register_buffer("backcast", bases[0])
        self.register_buffer("forecast", bases[1])
        self.theta_back = nn.Linear(width, len(bases[0]), bias=False)
        self.theta_fore = nn.Linear(width, len(bases[1]), bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layers(x)
        return self.theta_back(hidden) @ self.backcast, self.theta_fore(hidden) @ self.forecast


class NBeats(nn.Module):
    """Oreshkin et al. 2019, "N-BEATS" (interpretable): (N, 30 past values) -> (N, 10 to come)."""

    def __init__(self, past: int = 30, future: int = 10) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            BasisBlock(past, future, season) for season in (False, False, True, True)
        )

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        total = 0
        for block in self.blocks:
            back, forecast = block(series)
            series, total = series - back, total + forecast
        return total


def crnn() -> nn.Module:
    return seeded(CRNN)


def lstm_language_model() -> nn.Module:
    return seeded(lambda: LanguageModel(nn.LSTM))


def gru_language_model() -> nn.Module:
    return seeded(lambda: LanguageModel(nn.GRU, tied=True))


def lstm_step() -> nn.Module:
    return seeded(StepwiseLanguageModel)


def seq2seq_attention() -> nn.Module:
    return seeded(Translator)


def conv_lstm() -> nn.Module:
    return seeded(ConvLSTM)


def tcn() -> nn.Module:
    return seeded(TCN)


def n_beats() -> nn.Module:
    return seeded(NBeats)
