"""GPTQ: weights rounded one input after the other, the error of each made up for by those that are
still free. (Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers", arXiv 2210.17323, algorithm 1.)

The ranges stay as they are, in any granularity. Layers come in execution order, each reads what the
earlier ones, already rounded, give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.gram import Grams, damped, grams_of, sqnr
from studio.ptq.options import GptqOptions
from studio.ptq.products import Product, product_of
from studio.ptq.walk import Walk, constant
from studio.quant.encoding import Encoding
from studio.quant.fake_quantize import FakeQuantizer, fake_quantize
from studio.quant.grid import FloatGrid, Grid
from studio.quant.rounding import bounds
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Row, Samples

COLUMNS = 128
"""Inputs rounded before what they leave is passed on to all later ones at once."""


def gptq(
    model: QuantizedModel,
    samples: Samples,
    options: GptqOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with the weights of Conv, ConvTranspose, Gemm and MatMul rounded by GPTQ at their
    encodings.

    An output channel that nearest rounding serves better keeps that. Raises DataError without
    samples, CancelledError.
    """
    walk = Walk(model, samples, options.samples, cancel)
    layers = model.plan.layers
    constants: dict[str, np.ndarray] = {}
    encodings: dict[str, Encoding] = {}
    rows: list[Row] = []
    for index, layer in enumerate(layers):
        cancel.check()
        emit(Progress("GPTQ", index, len(layers), layer.name))
        product = product_of(model, layer)
        if isinstance(product, Product) and _unscaled(product.encoding):
            product = f"{product.encoding.grid} has no scale"
        rounded: Mapping[str, Tensor] = {}
        if isinstance(product, Product):
            grams = grams_of(walk, product, options.inputs, options.positions)
            made = _round(product, constant(model, product.weight), grams, options, cancel)
            rounded = {product.weight: made.weight}
            constants[product.weight] = made.weight.numpy()
            encodings[product.weight] = product.encoding
            what = f"{layer.title}{_kept(made.kept, made.channels)}"
            rows.append(Row(layer.name, what, made.before, made.after))
        elif product:
            rows.append(Row(layer.name, f"{layer.title}; left: {product}"))
        walk.advance(layer, rounded)
    emit(Progress("GPTQ", len(layers), len(layers)))
    gained = [row.after - row.before for row in rows if row.after is not None and row.before]
    summary = "no weight can be rounded so"
    if constants:
        mean = sum(gained) / max(len(gained), 1)
        summary = (
            f"{len(constants)} layers rounded, {mean:+.1f} dB SQNR of their outputs on average"
        )
    return Outcome(
        model.changed(constants=constants, encodings=encodings),
        summary,
        "SQNR of the layer's output, dB",
        tuple(rows),
    )


def _unscaled(encoding: Encoding) -> bool:
    return isinstance(encoding.grid, FloatGrid) and not encoding.grid.scaled


def _kept(kept: int, channels: int) -> str:
    return f"; nearest kept for {kept} of {channels} channels" if kept else ""


@dataclass(frozen=True)
class _Rounded:
    """The weight on its grid, the SQNR of nearest rounding and its own, and how many of `channels`
    kept nearest rounding."""

    weight: Tensor
    before: float
    after: float
    kept: int
    channels: int


def _round(
    product: Product, weight: Tensor, grams: Grams, options: GptqOptions, cancel: CancelToken
) -> _Rounded:
    wanted = product.matrix(weight)
    nearest = product.matrix(FakeQuantizer(product.encoding, weight.ndim)(weight))
    steps = Steps.of(product)
    gram = grams.whole
    aim = grams.aim(wanted, options.damping)
    inverse = inverse_factor(gram.own, options.damping, options.by_activation)
    found = round_columns(aim.float(), inverse, steps, cancel)
    losses = gram.loss(nearest, wanted), gram.loss(found, wanted)
    worse = losses[1] > losses[0]
    found = torch.where(worse[..., None], nearest, found)
    signal = gram.signal(wanted)
    return _Rounded(
        product.restored(found, weight),
        sqnr(signal, losses[0]),
        sqnr(signal, torch.minimum(*losses)),
        int(worse.sum()),
        worse.numel(),
    )


@dataclass(frozen=True)
class Steps:
    """Scale and bounds (in scales) of every factor of a weight's matrix, float32, (groups, outputs,
    inputs)."""

    grid: Grid | FloatGrid
    scale: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, product: Product) -> Steps:
        encoding, owner = product.encoding, product.owner()
        zero = torch.tensor(encoding.zero_point).reshape(-1)[owner].float()
        low, high = bounds(encoding.grid)
        scale = torch.tensor(encoding.scale).reshape(-1)[owner]
        return cls(encoding.grid, scale, low - zero, high - zero)

    def nearest(self, column: int, values: Tensor) -> Tensor:
        """`values` of one input, (groups, outputs), on the grid."""
        scale, low, high = (part[..., column] for part in (self.scale, self.low, self.high))
        return fake_quantize(values, scale, low, high, self.grid)


@dataclass(frozen=True)
class InverseFactor:
    """Upper Cholesky factor of the inverse Hessian, (groups, inputs, inputs) float32, its inputs in
    the `order` in which they are rounded, (groups, inputs)."""

    upper: Tensor
    order: Tensor


def inverse_factor(own: Tensor, damping: float, by_activation: bool) -> InverseFactor:
    """Of the Hessian `own`, damped (more, where it is still not positive definite); the inputs in
    falling order of their squares, or as they come."""
    groups, size, _ = own.shape
    order = torch.arange(size).expand(groups, size)
    if by_activation:
        order = own.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    sorted_ = own.gather(1, order[..., None].expand_as(own))
    sorted_ = sorted_.gather(2, order[:, None].expand_as(own))
    while True:
        factor, failed = torch.linalg.cholesky_ex(damped(sorted_, damping))
        if not failed.any():
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not failed.any():
                return InverseFactor(upper.float(), order)
        damping = 10 * max(damping, 1e-6)


def round_columns(
    wanted: Tensor, inverse: InverseFactor, steps: Steps, cancel: CancelToken
) -> Tensor:
    """The matrix `wanted` (groups, outputs, inputs) on the grid of `steps`."""
    size = wanted.shape[2]
    order = inverse.order[:, None].expand_as(wanted)
    free = wanted.gather(2, order)
    steps = Steps(
        steps.grid, *(part.gather(2, order) for part in (steps.scale, steps.low, steps.high))
    )
    made = torch.empty_like(free)
    upper = inverse.upper
    for start in range(0, size, COLUMNS):
        cancel.check()
        end = min(start + COLUMNS, size)
        block = free[..., start:end].clone()
        errors = torch.empty_like(block)
        for column in range(start, end):
            at = column - start
            values = block[..., at]
            rounded = steps.nearest(column, values)
            made[..., column] = rounded
            error = (values - rounded) / upper[:, column, column, None]
            errors[..., at] = error
            block[..., at:] -= error[..., None] * upper[:, None, column, column:end]
        free[..., end:] -= errors @ upper[:, start:end, end:]
    return torch.empty_like(made).scatter_(2, order, made)
