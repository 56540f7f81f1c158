"""Roundings that can be learned: each weight between the grid's number below it and the one above.

(Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv
2004.10568, section 3.3.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from studio.ptq.gptq import Steps
from studio.ptq.options import RoundingOptions

ZETA, GAMMA = 1.1, -0.1
"""Stretch of the sigmoid (eq. 23)."""

_INSIDE = 0.02
"""How far from a decision a rounding starts at least."""


def rectified_sigmoid(v: Tensor) -> Tensor:
    """h(V), from 0 to 1 (eq. 23)."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def beta_at(step: int, options: RoundingOptions, total: int) -> float:
    """The exponent of the regularizer (eq. 24) at `step` of `total`, annealed along a cosine after
    the warm start."""
    begin = options.warm_start * total
    passed = (step - begin) / (total - begin)
    span = options.beta_start - options.beta_end
    return options.beta_end + 0.5 * span * (1 + math.cos(math.pi * passed))


class SoftRounding:
    """A weight's matrix (groups, outputs, inputs), float32, between roundings: `v` is learned.

    Starts where `decided` is rounded, a matrix on the grid of `steps`, at the distance that
    `wanted`, the same with fractions, has from it.
    """

    def __init__(self, steps: Steps, decided: Tensor, wanted: Tensor) -> None:
        self.steps = steps
        near = (decided / steps.scale).round()
        rest = (wanted / steps.scale - near).clamp(-0.5, 0.5)
        self.floor = torch.where(rest > 0, near, near - 1)
        share = torch.where(rest > 0, rest, rest + 1).clamp(_INSIDE, 1 - _INSIDE)
        # Half a step away counts as decided.
        share = torch.where(rest > 0, share.clamp(max=0.49), share.clamp(min=0.51))
        self.v = -torch.log((ZETA - GAMMA) / (share - GAMMA) - 1)
        self.v.requires_grad_()

    def share(self) -> Tensor:
        """h(V), with the gradient to `v`."""
        return rectified_sigmoid(self.v)

    def matrix(self, share: Tensor) -> Tensor:
        """The weight rounded up by the `share`."""
        steps = torch.minimum(torch.maximum(self.floor + share, self.steps.low), self.steps.high)
        return steps * self.steps.scale

    @torch.no_grad()
    def decided(self) -> Tensor:
        """The weight as it is rounded now, on the grid."""
        return self.matrix((self.share() >= 0.5).float())


def undecided(share: Tensor, beta: float) -> Tensor:
    """The regularizer: 1 for what lies in the middle, 0 for what is decided, summed (eq. 24)."""
    return (1 - (2 * share - 1).abs().pow(beta)).sum()
