"""PyTorch nets whose weights go back under their own names; a user would open this file."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _numbers(module: nn.Module) -> nn.Module:
    """Batch normalization that does something, the same at every call."""
    generator = torch.Generator().manual_seed(1)

    def drawn(tensor: Tensor, low: float, high: float) -> None:
        values = torch.rand(tensor.shape, generator=generator) * (high - low) + low
        with torch.no_grad():
            tensor.copy_(values)

    for layer in module.modules():
        for name in ("weight", "bias"):
            values = getattr(layer, name, None)
            if isinstance(values, nn.Parameter):
                drawn(values, -0.3, 0.3)
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            drawn(layer.running_mean, -1, 1)
            drawn(layer.running_var, 0.5, 2)
            if layer.affine:
                drawn(layer.weight, 0.5, 1.5)
    return module.eval()


def conv_bn_relu() -> nn.Module:
    """A convolution without bias, its batch normalization, and a linear layer."""
    return _numbers(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    )


class Everything(nn.Module):
    """Every place that batch normalization can go to, and weights that the graph transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(8)
        self.plain = nn.Conv2d(8, 8, 1, groups=2, bias=False)
        self.plain_norm = nn.BatchNorm2d(8, affine=False)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(8)
        self.alone = nn.BatchNorm2d(8)
        self.before = nn.BatchNorm2d(8)
        self.after = nn.Conv2d(8, 6, 1)
        self.token = nn.Linear(6, 6, bias=False)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 5)
        self.head_norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first_norm(self.first(x)))
        x = x + self.plain_norm(self.plain(x))
        x = torch.relu(self.up_norm(self.up(x)))
        x = torch.relu(self.alone(x))
        x = self.after(self.before(torch.tanh(x)))
        x = self.norm(self.token(x.flatten(2).transpose(1, 2)))
        return self.head_norm(self.head(x.mean(1)))


def everything() -> nn.Module:
    return _numbers(Everything())


class Merged(nn.Module):
    """A gain that preparation multiplies into the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.gain = nn.Parameter(torch.tensor([0.5, 2.0, 1.5, 0.7]).reshape(1, 4, 1, 1))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(x) * self.gain)).mean((2, 3))


def merged() -> nn.Module:
    return _numbers(Merged())


class Shared(nn.Module):
    """One batch normalization behind two convolutions, of which one is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 1)
        self.two = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.one(x)))
        x = torch.relu(self.norm(self.two(x)))
        return self.two(x).mean((2, 3))


def shared() -> nn.Module:
    return _numbers(Shared())
