"""BatchNormalization kept while training: weights are rounded as if it were folded, outputs are
normalized with the statistics of each batch.

The graph is the prepared one, where it is folded; this is put in place of what folding made: with
V the weight to train, g and b what the norm multiplies with and adds, m and v its statistics,

    training:  y = norm_batch(conv(x, round(f V)) / f),   f = g / sqrt(v + eps)
    folded:    y = conv(x, round(f V)) + b - f m

(Jacob et al. 2018, arXiv 1712.05877, section 3.2; Krishnamoorthi 2018, arXiv 1806.08342, section
3.2.2.) With a scale for each channel round(f V) is f round(V): the scale is that of V, and f goes
into it on folding, so that running statistics do not disturb the rounding (as AIMET folds to the
scale). Folding has scaled V already, so f starts at 1: the statistics are those of the folded
layer's own output, estimated anew, whatever other techniques did to the weights before.
"""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.graph.folded_norms import KeptNorm

MOMENTUM = 0.1
EPSILON = 1e-5
"""Relative to the mean variance of a layer's channels."""


class Mode(Enum):
    """START: as folded, the first statistics are taken. BATCH: those of each batch. FOLDED: fixed
    ones. ESTIMATE: as BATCH, the statistics are the mean over the batches."""

    START = "start"
    BATCH = "batch"
    FOLDED = "folded"
    ESTIMATE = "estimate"


class TrainedNorm(nn.Module):
    """`gamma`, `beta` (channels,) are trained; `mean`, `var` and `eps` describe the output of the
    layer before it, its weight as it is in `weights` and no bias."""

    mean: Tensor
    var: Tensor
    eps: Tensor

    def __init__(self, kept: KeptNorm, bias: Tensor) -> None:
        super().__init__()
        self.kept = kept
        self.mode = Mode.START
        self._seen = 0
        self.gamma = nn.Parameter(torch.ones_like(bias))
        self.beta = nn.Parameter(bias.detach().clone())
        self.register_buffer("mean", torch.zeros_like(bias))
        self.register_buffer("var", torch.ones_like(bias))
        self.register_buffer("eps", torch.zeros(()))

    def factor(self) -> Tensor:
        """What folding multiplies each output channel with, (channels,), positive."""
        if self.mode is Mode.START:
            return torch.ones_like(self.gamma)
        # A channel that is switched off has no scale to divide by.
        return (self.gamma.abs() * torch.rsqrt(self.var + self.eps)).clamp(min=1e-6)

    def folded(self, weight: Tensor) -> Tensor:
        """A weight, or one number for each of its channels in a tensor of its rank, folded."""
        shape = [1] * weight.ndim
        shape[self.kept.axis if weight.ndim > 1 else 0] = -1
        return weight * self.factor().view(shape)

    def folded_bias(self) -> Tensor:
        """The bias of the folded layer, (channels,)."""
        if self.mode is Mode.START:
            return self.beta
        return self.beta - self.factor() * self.mean

    @property
    def per_batch(self) -> bool:
        """True where the layer's own bias is left to the norm."""
        return self.mode is not Mode.FOLDED

    def forward(self, output: Tensor) -> Tensor:
        """`output` (batch, channels, ...) of the layer, normalized as the mode says."""
        if self.mode is Mode.FOLDED:
            return output
        shape = [1, -1] + [1] * (output.ndim - 2)
        if self.mode is Mode.START:
            self._take(output)
            return output + self.beta.view(shape)
        momentum = MOMENTUM
        if self.mode is Mode.ESTIMATE:
            self._seen += 1
            momentum = 1.0 / self._seen
        own = output / self.factor().view(shape)
        return F.batch_norm(
            own, self.mean, self.var, self.gamma.abs(), self.beta, True, momentum, float(self.eps)
        )

    @torch.no_grad()
    def _take(self, output: Tensor) -> None:
        self._seen += 1
        axes = [axis for axis in range(output.ndim) if axis != 1]
        var, mean = torch.var_mean(output, axes)
        self.mean.lerp_(mean, 1.0 / self._seen)
        self.var.lerp_(var, 1.0 / self._seen)

    @torch.no_grad()
    def enter(self, mode: Mode) -> None:
        """Behave as `mode` from now on; the start ends with a norm that changes nothing."""
        if self.mode is Mode.START and mode is not Mode.START:
            self.eps.copy_(EPSILON * self.var.mean().clamp(min=1e-12))
            self.gamma.copy_(torch.sqrt(self.var + self.eps))
            self.beta.add_(self.mean)
        self.mode = mode
        self._seen = 0
