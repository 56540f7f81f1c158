"""AdaRound: each weight is rounded up or down so that its layer's output is right.

(Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv
2004.10568.) Layers come in execution order; each reads what the layers before it, already rounded,
give, and is to give what the float layer gives in the float network (section 4.1, "asymmetric
reconstruction"), behind its activation (eq. 25).

The rounding problem of a layer (eq. 20) is solved twice: first as the quadratic form that it is,
by GPTQ's columns and coordinate descent, which takes milliseconds; then as in the paper, with the
activation function in it, by learning from there, which is kept where it is better. Before that
the range of each channel is searched. What is asked of weights is damped, more so where there are
few samples, or they would be fitted to those alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.behind import Behind, behind
from studio.ptq.descent import descend
from studio.ptq.gptq import Steps, inverse_factor, round_columns
from studio.ptq.gram import Gram, damped, sqnr
from studio.ptq.moments import Rows, rows_of
from studio.ptq.options import AdaRoundOptions, RoundingOptions
from studio.ptq.products import Product, product_of
from studio.ptq.sequential_mse import Search
from studio.ptq.soft_rounding import SoftRounding, beta_at, undecided
from studio.ptq.walk import Walk, constant
from studio.quant.encoding import Encoding
from studio.quant.fake_quantize import FakeQuantizer
from studio.quant.grid import FloatGrid
from studio.sim.plan import Layer
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Row, Samples

Chosen = TypeVar("Chosen", bound=RoundingOptions)

SWEEPS = 3
"""Of coordinate descent; later ones move next to nothing."""

CANDIDATES = 20
"""Shares of the full range that are tried for each channel."""

PART = 2048
"""Rows that are worked on at once."""


def adaround(
    model: QuantizedModel,
    samples: Samples,
    options: AdaRoundOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with the weights of Conv, ConvTranspose, Gemm and MatMul rounded by AdaRound, and
    their ranges and biases fitted to that where the options say so.

    Raises DataError without samples, CancelledError.
    """
    walk = Walk(model, samples, options.samples, cancel)
    options = for_samples(options, samples)
    layers = model.plan.layers
    constants: dict[str, np.ndarray] = {}
    encodings: dict[str, Encoding] = {}
    rows: list[Row] = []
    for index, layer in enumerate(layers):
        cancel.check()
        emit(Progress("AdaRound", index, len(layers), layer.name))
        product = roundable(model, layer)
        made: dict[str, Tensor] = {}
        if isinstance(product, Product):
            fit = fit_layer(walk, product, options, cancel)
            made = fit.constants
            encodings[product.weight] = fit.product.encoding
            rows.append(Row(layer.name, layer.title, fit.before, fit.after))
        elif product:
            rows.append(Row(layer.name, f"{layer.title}; left: {product}"))
        constants.update({name: tensor.numpy() for name, tensor in made.items()})
        walk.advance(layer, made)
    emit(Progress("AdaRound", len(layers), len(layers)))
    gained = [row.after - row.before for row in rows if row.after is not None and row.before]
    summary = "no weight can be rounded so"
    if encodings:
        mean = sum(gained) / max(len(gained), 1)
        summary = (
            f"{len(encodings)} layers rounded, {mean:+.1f} dB SQNR of their outputs on average"
        )
    return Outcome(
        model.changed(constants=constants, encodings=encodings),
        summary,
        "SQNR of the layer's output, dB",
        tuple(rows),
    )


FEW = 64
"""Samples that the option `damping` is meant for."""


def for_samples(options: Chosen, samples: Samples) -> Chosen:
    """The options with the damping that suits the number of samples: what is known beforehand
    weighs the less the more is seen."""
    count = min(options.samples, len(samples.training))
    return options.model_copy(update={"damping": options.damping * FEW / count})


def unscaled(encoding: Encoding) -> bool:
    """True for float16 and bfloat16, which have no scale to round at."""
    return isinstance(encoding.grid, FloatGrid) and not encoding.grid.scaled


def roundable(model: QuantizedModel, layer: Layer) -> Product | str:
    """The product of `layer` whose weight can be rounded so, or why not ("" if it has none)."""
    product = product_of(model, layer)
    if isinstance(product, Product) and unscaled(product.encoding):
        return f"{product.encoding.grid} has no scale"
    return product


@dataclass(frozen=True)
class Fit:
    """New constants of a layer, the weight among them on the grid of the encoding that `product`
    now has; SQNR in dB of the layer's output with nearest rounding at the old one, and now."""

    constants: dict[str, Tensor]
    product: Product
    before: float
    after: float


def fit_layer(walk: Walk, product: Product, options: RoundingOptions, cancel: CancelToken) -> Fit:
    """The rounding of one layer from what it reads now."""
    model = walk.model
    weight = constant(model, product.weight)
    wanted = product.matrix(weight)
    finish = behind(model.graph, product, walk.network)
    own_bias = options.biases and finish.own_bias
    rows = rows_of(walk, product, options.positions)
    whole = rows.moments()
    gram = whole.gram(centred=own_bias)
    nearest = product.matrix(FakeQuantizer(product.encoding, weight.ndim)(weight))
    before = sqnr(gram.signal(wanted), whole.gram(centred=False).loss(nearest, wanted))
    damping = options.damping
    if options.ranges:
        # As if all rows were as long in every direction, too: few samples know too few of them.
        search = Search(product, weight, CANDIDATES)
        if search.encodings.count > 1:
            _, encoding, _ = search.run(Gram(damped(gram.own, damping)), cancel)
            product = replace(product, encoding=encoding)
    steps = Steps.of(product)
    aim = gram.aim(wanted, damping).float()
    inverse = inverse_factor(gram.own, damping, by_activation=True)
    form = damped(gram.own, damping).float()
    decided = round_columns(aim, inverse, steps, cancel)
    decided = descend(decided, aim, form, steps, SWEEPS, cancel)
    shift = whole.shift(decided, wanted).float() if own_bias else None
    if options.iterations:
        learning = _Learning(rows, wanted, finish, options)
        decided, shift = learning.better(decided, shift, steps, cancel)
    constants = {product.weight: product.restored(decided, weight).contiguous()}
    if shift is not None:
        constants |= finish.moved_bias(shift)
    after = sqnr(gram.signal(wanted), gram.loss(decided, wanted))
    return Fit(constants, product, before, after)


class _Learning:
    """Rows of a layer, and what it has to give for them behind its activation: rounding is learned
    on those."""

    def __init__(
        self, rows: Rows, wanted: Tensor, finish: Behind, options: RoundingOptions
    ) -> None:
        self._finish, self._options, self._wanted = finish, options, wanted
        self._reads = torch.cat(rows.rounded)
        with torch.no_grad():
            self._gives = torch.cat([self._out(exact, wanted, None) for exact in rows.exact])

    def better(
        self, decided: Tensor, shift: Tensor | None, steps: Steps, cancel: CancelToken
    ) -> tuple[Tensor, Tensor | None]:
        """The matrix `decided`, a start on the grid of `steps`, and the `shift` of the bias (None:
        it stays), both learned; for each output only where that is better."""
        options = self._options
        power = self._reads.square().mean((0, 2))[:, None, None]
        damping = options.damping * power
        soft = SoftRounding(steps, decided, self._towards(decided, shift, damping, steps))
        optimizer = torch.optim.Adam([soft.v], options.learning_rate)
        generator = torch.Generator().manual_seed(options.seed)
        # What one step of one weight changes is the unit, so that the same options suit all layers.
        unit = (steps.scale.square() * power).mean()
        for step in range(options.iterations):
            if step % 20 == 0:
                cancel.check()
            picked = torch.randint(len(self._reads), (options.rows,), generator=generator)
            share = soft.share()
            matrix = soft.matrix(share)
            error = self._out(self._reads[picked], matrix, shift) - self._gives[picked]
            loss = error.square().sum((1, 2)).mean()
            loss = (loss + (damping * (matrix - self._wanted).square()).sum()) / unit
            if step >= options.warm_start * options.iterations:
                beta = beta_at(step, options, options.iterations)
                loss = loss + options.regularization * undecided(share, beta)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        learned = soft.decided()
        shifts = [self._fitted(matrix, shift) for matrix in (decided, learned)]
        losses = [
            self._loss(matrix, moved) + (damping * (matrix - self._wanted).square()).sum(2)
            for matrix, moved in zip((decided, learned), shifts, strict=True)
        ]
        better = losses[1] < losses[0]
        decided = torch.where(better[..., None], learned, decided)
        if shifts[0] is None or shifts[1] is None:
            return decided, None
        return decided, torch.where(better, shifts[1], shifts[0])

    def _out(self, rows: Tensor, matrix: Tensor, shift: Tensor | None) -> Tensor:
        """What the layer gives for `rows`, (rows, groups, outputs)."""
        return self._finish(torch.einsum("rgi,goi->rgo", rows, matrix), shift)

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._reads.split(PART), self._gives.split(PART), strict=True)

    def _loss(self, matrix: Tensor, shift: Tensor | None) -> Tensor:
        """Squared error of each output, (groups, outputs), the mean over all rows."""
        with torch.inference_mode():
            parts = [
                (self._out(reads, matrix, shift) - gives).square().sum(0)
                for reads, gives in self._parts()
            ]
        return torch.stack(parts).sum(0) / len(self._reads)

    def _towards(
        self, decided: Tensor, shift: Tensor | None, damping: Tensor, steps: Steps
    ) -> Tensor:
        """Where each weight of `decided` would move by itself, to the next number at most."""
        matrix = decided.clone().requires_grad_()
        slope, steepness = torch.zeros_like(decided), torch.zeros_like(decided)
        for reads, gives in self._parts():
            loss = (self._out(reads, matrix, shift) - gives).square().sum()
            slope += torch.autograd.grad(loss, matrix)[0]
            steepness += 2 * reads.square().sum(0)[:, None]
        slope = slope / len(self._reads) + 2 * damping * (decided - self._wanted)
        steepness = steepness / len(self._reads) + 2 * damping
        return decided - slope / steepness.clamp(min=1e-30)

    def _fitted(self, matrix: Tensor, shift: Tensor | None) -> Tensor | None:
        """The `shift` at which outputs are right on average (Gauss-Newton)."""
        if shift is None:
            return None
        for _ in range(2):
            slope, steepness = torch.zeros_like(shift), torch.zeros_like(shift)
            for reads, gives in self._parts():
                with torch.no_grad():
                    product = torch.einsum("rgi,goi->rgo", reads, matrix)
                product.requires_grad_()
                made = self._finish(product, shift)
                (gain,) = torch.autograd.grad(made.sum(), product)
                slope += (gain * (made.detach() - gives)).sum(0)
                steepness += gain.square().sum(0)
            shift = shift - slope / steepness.clamp(min=1e-3 * len(self._reads))
        return shift
