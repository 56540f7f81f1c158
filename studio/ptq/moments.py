"""What a layer reads, in the quantized and in the float network, summed up once.

With rows x of the quantized network and x + d of the float one, whatever fits a weight to them
needs no more than the means of x, d, x^T x, x^T d and d^T d.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from studio.ptq.gram import Gram
from studio.ptq.products import Product
from studio.ptq.walk import Walk

KEPT = 2**23
"""Numbers of a layer's rows that are kept: 32 MiB for each of the two networks ..."""

ENOUGH = 32
"""... but at least so many rows for each input."""


@dataclass(frozen=True)
class Moments:
    """Sums over `count` rows: x, d (groups, inputs) and x^T x, x^T d, d^T d (groups, inputs,
    inputs), float64."""

    count: int
    x: Tensor
    d: Tensor
    xx: Tensor
    xd: Tensor
    dd: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.x + other.x,
            self.d + other.d,
            self.xx + other.xx,
            self.xd + other.xd,
            self.dd + other.dd,
        )

    def gram(self, *, centred: bool) -> Gram:
        """The squared error as a form of the weight, `centred` with the best bias."""
        parts = [part / self.count for part in (self.xx, self.xd, self.dd)]
        if centred:
            x, d = self.x / self.count, self.d / self.count
            for part, left, right in zip(parts, (x, x, d), (x, d, d), strict=True):
                part -= left[:, :, None] * right[:, None]
        return Gram(*parts)

    def shift(self, made: Tensor, wanted: Tensor) -> Tensor:
        """What the bias has to make up for where `made` (groups, outputs, inputs) takes the place
        of `wanted`: (groups, outputs)."""
        x, d = self.x / self.count, self.d / self.count
        wanted = wanted.double()
        return ((wanted - made.double()) @ x[..., None] + wanted @ d[..., None])[..., 0]


@dataclass(frozen=True)
class Rows:
    """What outputs of a layer are made of, batch by batch: (rows, groups, inputs) float32 in the
    quantized and in the float network."""

    rounded: tuple[Tensor, ...]
    exact: tuple[Tensor, ...]

    def moments(self) -> Moments:
        parts = [
            _sums(x.transpose(0, 1), (exact - x).transpose(0, 1))
            for x, exact in zip(self.rounded, self.exact, strict=True)
        ]
        return reduce(operator.add, parts)


def rows_of(walk: Walk, product: Product, positions: int) -> Rows:
    """About `positions` outputs of the layer, fewer of many groups, drawn at random from all
    batches."""
    groups, _, inputs = product.index.shape
    count = min(positions, max(KEPT // (groups * inputs), ENOUGH * inputs))
    share = math.ceil(count / len(walk.batches))
    rounded, exact = [], []
    for seed, (wanted, read) in enumerate(walk.sources(product)):
        with torch.inference_mode():
            made = product.rows(read, share, seed), product.rows(wanted, share, seed)
        # Nothing can be learned with tensors of inference mode.
        rounded.append(made[0].clone())
        exact.append(made[1].clone())
    return Rows(tuple(rounded), tuple(exact))


def _sums(x: Tensor, d: Tensor) -> Moments:
    """Of (groups, rows, inputs); in float32, as rows are few."""
    turned = x.transpose(1, 2)
    return Moments(
        x.shape[1],
        x.sum(1).double(),
        d.sum(1).double(),
        (turned @ x).double(),
        (turned @ d).double(),
        (d.transpose(1, 2) @ d).double(),
    )
