"""DCGAN's generator (Radford et al., 2016), CycleGAN's ResNet generator (Zhu et al., 2017), fast
style transfer (Johnson et al., 2016) and a VAE (Kingma and Welling, 2014)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from blocks import conv_bn
from seeding import seeded
from torch import Tensor, nn


def dcgan() -> nn.Module:
    """An image of 32x32 from 64 numbers."""

    def up(inputs: int, outputs: int, stride: int, padding: int) -> list[nn.Module]:
        return [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]

    return seeded(
        lambda: nn.Sequential(
            *up(64, 64, 1, 0),
            *up(64, 48, 2, 1),
            *up(48, 32, 2, 1),
            nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
    )


class ReflectedResidual(nn.Module):
    def __init__(self, width: int, affine: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, affine=affine),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def cyclegan() -> nn.Module:
    def norm(width: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(width), nn.ReLU(True)]

    return seeded(
        lambda: nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, 16, 7),
            *norm(16),
            nn.Conv2d(16, 32, 3, 2, 1),
            *norm(32),
            nn.Conv2d(32, 48, 3, 2, 1),
            *norm(48),
            ReflectedResidual(48, affine=False),
            ReflectedResidual(48, affine=False),
            nn.ConvTranspose2d(48, 32, 3, 2, 1, output_padding=1),
            *norm(32),
            nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1),
            *norm(16),
            nn.ReflectionPad2d(3),
            nn.Conv2d(16, 3, 7),
            nn.Tanh(),
        )
    )


class Enlarge(nn.Module):
    """Nearest-neighbour enlargement, then a convolution on the reflected image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pad, self.conv = nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pad(F.interpolate(x, mode="nearest", scale_factor=2)))


def style_transfer() -> nn.Module:
    def norm(width: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(width, affine=True), nn.ReLU()]

    return seeded(
        lambda: nn.Sequential(
            nn.ReflectionPad2d(4),
            nn.Conv2d(3, 16, 9),
            *norm(16),
            nn.ReflectionPad2d(1),
            nn.Conv2d(16, 32, 3, 2),
            *norm(32),
            ReflectedResidual(32, affine=True),
            ReflectedResidual(32, affine=True),
            Enlarge(32, 16),
            *norm(16),
            nn.ReflectionPad2d(4),
            nn.Conv2d(16, 3, 9),
        )
    )


class VAE(nn.Module):
    """Image, mean and log variance; in eval mode the mean is decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            conv_bn(3, 16, 3, 2), conv_bn(16, 32, 3, 2), conv_bn(32, 48, 3, 2), nn.Flatten()
        )
        self.mean, self.log_variance = nn.Linear(48 * 16, 24), nn.Linear(48 * 16, 24)
        self.grow = nn.Linear(24, 48 * 16)
        self.decode = nn.Sequential(
            nn.Unflatten(1, (48, 4, 4)),
            nn.ConvTranspose2d(48, 32, 4, 2, 1),
            nn.ELU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.ELU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.encode(x)
        mean, log_variance = self.mean(y), self.log_variance(y)
        code = mean
        if self.training:
            code = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        return self.decode(F.elu(self.grow(code))), mean, log_variance


def vae() -> nn.Module:
    return seeded(VAE)
