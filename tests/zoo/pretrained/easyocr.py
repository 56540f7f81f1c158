"""The two networks of EasyOCR, with the names of their published weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class _Base(nn.Module):
    """VGG-16 with batch norm in slices numbered as in torchvision, then two dilated layers."""

    def __init__(self) -> None:
        super().__init__()
        plan = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
        layers: list[nn.Module] = []
        channels = 3
        for out in plan:
            if not out:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        ends = (0, 12, 19, 29, 39)
        for number in range(4):
            part = nn.Sequential()
            for index in range(ends[number], ends[number + 1]):
                part.add_module(str(index), layers[index])
            self.add_module(f"slice{number + 1}", part)
        self.slice5 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.Conv2d(1024, 1024, 1),
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        values = []
        for number in range(1, 6):
            x = self.get_submodule(f"slice{number}")(x)
            values.append(x)
        return values


class _Up(nn.Module):
    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Craft(nn.Module):
    """Baek et al. 2019, "Character Region Awareness for Text Detection".
    (N, 3, H, W) -> (N, H/2, W/2, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.basenet = _Base()
        self.upconv1, self.upconv2 = _Up(1536, 512, 256), _Up(768, 256, 128)
        self.upconv3, self.upconv4 = _Up(384, 128, 64), _Up(192, 64, 32)
        layers: list[nn.Module] = []
        for channels, out, kernel in ((32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1)):
            layers += [nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.ReLU()]
        self.conv_cls = nn.Sequential(*layers, nn.Conv2d(16, 2, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        *skips, x = self.basenet(image)
        x = self.upconv1(torch.cat([x, skips[3]], dim=1))
        for up, skip in (
            (self.upconv2, skips[2]),
            (self.upconv3, skips[1]),
            (self.upconv4, skips[0]),
        ):
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, skip], dim=1))
        return self.conv_cls(x).permute(0, 2, 3, 1)


class _Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def conv(channels: int, out: int, bias: bool = True) -> nn.Conv2d:
            return nn.Conv2d(channels, out, 3, padding=1, bias=bias)

        self.ConvNet = nn.Sequential(
            conv(1, 32), nn.ReLU(), nn.MaxPool2d(2, 2),
            conv(32, 64), nn.ReLU(), nn.MaxPool2d(2, 2),
            conv(64, 128), nn.ReLU(),
            conv(128, 128), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
            conv(128, 256, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
            conv(256, 256, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
            nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(256, 256, 2), nn.ReLU(),
        )  # fmt: skip


class _BiLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(256, 256, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(512, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.rnn(x)[0])


class EnglishText(nn.Module):
    """The second generation's recogniser (after Shi et al. 2015): (N, 1, 64, W) -> (N, W/4 - 1, 97)
    character scores."""

    def __init__(self) -> None:
        super().__init__()
        self.FeatureExtraction = _Features()
        self.AdaptiveAvgPool = nn.AdaptiveAvgPool2d((None, 1))
        self.SequenceModeling = nn.Sequential(_BiLSTM(), _BiLSTM())
        self.Prediction = nn.Linear(256, 97)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.FeatureExtraction.ConvNet(image)
        x = self.AdaptiveAvgPool(x.permute(0, 3, 1, 2)).squeeze(3)
        return self.Prediction(self.SequenceModeling(x))
