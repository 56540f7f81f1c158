"""Networks on sound, with the names of their published weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class TinyCrepe(nn.Module):
    """Kim et al. 2018, "CREPE: A Convolutional Representation for Pitch Estimation", as torchcrepe
    has it: (N, 1024) samples at 16 kHz -> (N, 360) pitch bins."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 128, 16, 16, 16, 32, 64)
        for index in range(6):
            kernel, stride = ((512, 1), (4, 1)) if index == 0 else ((64, 1), (1, 1))
            conv = nn.Conv2d(sizes[index], sizes[index + 1], kernel, stride)
            self.add_module(f"conv{index + 1}", conv)
            norm = nn.BatchNorm2d(sizes[index + 1], eps=0.0010000000474974513)
            self.add_module(f"conv{index + 1}_BN", norm)
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames[:, None, :, None]
        for number in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = F.relu(self.get_submodule(f"conv{number}")(x))
            x = F.max_pool2d(self.get_submodule(f"conv{number}_BN")(x), (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256)))


class SileroVad(nn.Module):
    """Silero VAD for 16 kHz (structure as in silero_vad/tinygrad_model.py): samples (N, 576) and
    states (2, N, 128) -> (N, 1) probability of speech and the next states."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(
        self, samples: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stft_conv(F.pad(samples[:, None], (0, 64), mode="reflect"))
        x = (x[:, :129].square() + x[:, 129:].square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(conv(x))
        hidden, cell = self.lstm_cell(x.squeeze(-1), (state[0], state[1]))
        y = torch.sigmoid(self.final_conv(F.relu(hidden[:, :, None])))
        return y.squeeze(1).mean(1, keepdim=True), torch.stack([hidden, cell])
