"""U-Net (Ronneberger et al., 2015) and SegNet (Badrinarayanan et al., 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import conv_bn
from seeding import seeded
from torch import Tensor, nn


def double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(inputs, outputs), conv_bn(outputs, outputs))


class UNet(nn.Module):
    """Transposed convolutions up; each skip padded to fit."""

    def __init__(self) -> None:
        super().__init__()
        widths = [12, 24, 48]
        self.first = double(3, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), double(a, b))
            for a, b in zip(widths, [*widths[1:], 96], strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths))
        self.merge = nn.ModuleList(double(2 * w, w) for w in reversed(widths))
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.first(x)]
        for layer in self.down:
            skips.append(layer(skips[-1]))
        y = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            y, skip = up(y), skips.pop()
            rows, columns = skip.size(2) - y.size(2), skip.size(3) - y.size(3)
            y = F.pad(y, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            y = merge(torch.cat([skip, y], dim=1))
        return self.last(y)


class SegNet(nn.Module):
    """Max pooling remembers where each maximum was; unpooling puts it back there."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.ModuleList([double(3, 16), double(16, 32), double(32, 48)])
        self.decode = nn.ModuleList(
            [conv_bn(48, 32), conv_bn(32, 16), nn.Conv2d(16, 4, 3, padding=1)]
        )
        self.pool = nn.MaxPool2d(2, 2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        places: list[Tensor] = []
        for layer in self.encode:
            x, place = self.pool(layer(x))
            places.append(place)
        for layer in self.decode:
            x = layer(self.unpool(x, places.pop()))
        return x


def unet() -> nn.Module:
    return seeded(UNet)


def segnet() -> nn.Module:
    return seeded(SegNet)
