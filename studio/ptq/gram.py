"""The squared error at a layer's output as a quadratic form of its weight: data are read once.

With rows x of what the layer reads, ||x V - x W||^2 summed over the rows is (V - W) G (V - W)^T for
each output, G the sum of x^T x. Where the float network reads x + d instead, terms of d are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.ptq.options import Inputs
from studio.ptq.products import Product
from studio.ptq.walk import Walk


@dataclass(frozen=True)
class Gram:
    """own: sum of x^T x. cross: of x^T d, and apart: of d^T d, None where d is zero. All (groups,
    inputs, inputs), float64, the mean over the rows."""

    own: Tensor
    cross: Tensor | None = None
    apart: Tensor | None = None

    def loss(self, matrix: Tensor, wanted: Tensor) -> Tensor:
        """Squared error of each output, (groups, outputs), for the weight `matrix` in the place of
        the float weight `wanted`, both (groups, outputs, inputs). float64."""
        wanted = wanted.double()
        change = matrix.double() - wanted
        loss = _form(change, self.own, change)
        if self.cross is not None and self.apart is not None:
            loss = loss - 2 * _form(change, self.cross, wanted) + _form(wanted, self.apart, wanted)
        return loss.clamp(min=0)

    def signal(self, wanted: Tensor) -> Tensor:
        """Square of what the float layer gives, (groups, outputs)."""
        wanted = wanted.double()
        signal = _form(wanted, self.own, wanted)
        if self.cross is not None and self.apart is not None:
            signal = signal + 2 * _form(wanted, self.cross, wanted)
            signal = signal + _form(wanted, self.apart, wanted)
        return signal.clamp(min=0)

    def aim(self, wanted: Tensor, damping: float) -> Tensor:
        """The float weight that gives, on x, what `wanted` gives on x + d: least squares, damped by
        a share of the mean square of x. float64."""
        if self.cross is None:
            return wanted.double()
        moved = wanted.double() @ self.cross.transpose(1, 2)
        change = torch.linalg.solve(damped(self.own, damping), moved.transpose(1, 2))
        return wanted.double() + change.transpose(1, 2)


@dataclass(frozen=True)
class Grams:
    """Of all rows, and of both halves of the batches (None where there is but one batch)."""

    whole: Gram
    halves: tuple[Gram, Gram] | None

    def aim(self, wanted: Tensor, damping: float) -> Tensor:
        """`Gram.aim` with as much more damping as serves the half it was not fitted on best: few
        samples tell noise from what can be made up for no more. `wanted` itself, if none does."""
        if self.halves is None or self.whole.cross is None:
            return self.whole.aim(wanted, damping)
        first, second = self.halves
        least = float((first.loss(wanted, wanted) + second.loss(wanted, wanted)).sum())
        best: float | None = None
        for more in _MORE_DAMPING:
            share = more * damping
            loss = second.loss(first.aim(wanted, share), wanted)
            loss = loss + first.loss(second.aim(wanted, share), wanted)
            if float(loss.sum()) < least:
                best, least = share, float(loss.sum())
        return wanted.double() if best is None else self.whole.aim(wanted, best)


def damped(own: Tensor, share: float) -> Tensor:
    """`own` with `share` of the mean of its diagonal added to the diagonal."""
    diagonal = own.diagonal(dim1=1, dim2=2)
    added = share * diagonal.mean(1, keepdim=True).clamp(min=1e-30)
    return own + torch.diag_embed(added.expand_as(diagonal))


def _form(left: Tensor, form: Tensor, right: Tensor) -> Tensor:
    return ((left @ form) * right).sum(2)


_MORE_DAMPING = (1.0, 10.0, 100.0)


def gram_of(walk: Walk, product: Product, inputs: Inputs, positions: int) -> Gram:
    """Of all batches, see `grams_of`."""
    return grams_of(walk, product, inputs, positions, halves=False).whole


def grams_of(
    walk: Walk, product: Product, inputs: Inputs, positions: int, *, halves: bool = True
) -> Grams:
    """Of about `positions` outputs of the layer, and enough of them to tell its inputs apart, drawn
    at random from all batches; the same at every call."""
    positions = max(positions, 4 * product.index.shape[2])
    share = math.ceil(positions / len(walk.batches))
    parts = 2 if halves and inputs is Inputs.BOTH and len(walk.batches) > 1 else 1
    sums: list[list[Tensor]] = [[] for _ in range(parts)]
    counts = [0] * parts
    for seed, (exact, rounded) in enumerate(walk.sources(product)):
        with torch.inference_mode():
            rows = product.rows(exact if inputs is Inputs.FLOAT else rounded, share, seed)
            x = rows.transpose(0, 1)
            found = [_product(x, x)]
            if inputs is Inputs.BOTH:
                apart = product.rows(exact, share, seed).transpose(0, 1) - x
                found += [_product(x, apart), _product(apart, apart)]
            half = seed % parts
            counts[half] += len(rows)
            if not sums[half]:
                sums[half] = [part.double() for part in found]
            else:
                for total, part in zip(sums[half], found, strict=True):
                    total += part
    with torch.inference_mode():
        whole = [sum(group[1:], group[0]) / sum(counts) for group in zip(*sums, strict=True)]
        if parts == 1:
            return Grams(Gram(*whole), None)
        first, second = (
            Gram(*(total / count for total in group))
            for group, count in zip(sums, counts, strict=True)
        )
        return Grams(Gram(*whole), (first, second))


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x^T y of (groups, rows, inputs), in float32: the sum of few rows."""
    return x.transpose(1, 2) @ y


def sqnr(signal: Tensor, noise: Tensor) -> float:
    """Of the layer's output, in dB."""
    return 10 * math.log10(max(float(signal.sum()), 1e-30) / max(float(noise.sum()), 1e-30))
