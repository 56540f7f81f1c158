"""Weights that are the same every time, and behave like trained ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes, in eval mode: weights that keep the signal's size from layer to layer
    (He et al., 2015), batch norms with statistics of their own. The global generator is left
    as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = build()
        for layer in module.modules():
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, math.sqrt(2 / fan_in))
            elif isinstance(layer, nn.Linear):
                layer.weight.normal_(0, math.sqrt(1 / layer.in_features))
            elif isinstance(layer, NORMS) and layer.weight is not None:
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.2)
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.7, 2.0)
    return module.eval()
