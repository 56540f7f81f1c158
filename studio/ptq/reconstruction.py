"""Block reconstruction: the roundings of all layers of a block are learned together, so that the
block's output is right. (Li et al. 2021, "BRECQ", arXiv 2102.05426.)

Each block starts from what AdaRound finds for its layers one by one. Scales of activations are
learned along, and activations are left float at random, element by element, while learning
(Wei et al. 2022, "QDrop", arXiv 2203.05740, section 4.3), the input of the block too; without that
it is BRECQ. What is learned is kept if it serves the block better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.adaround import fit_layer, for_samples, roundable, unscaled
from studio.ptq.blocks import blocks_of
from studio.ptq.gptq import Steps
from studio.ptq.options import ReconstructionOptions
from studio.ptq.products import Product
from studio.ptq.soft_rounding import SoftRounding, beta_at, undecided
from studio.ptq.walk import Values, Walk, constant
from studio.quant.learned import LearnedScale
from studio.runtime.executor import Executor, Quantizer
from studio.sim.plan import Layer
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import quantizers
from studio.techniques.technique import Outcome, Row, Samples


def reconstruct(
    model: QuantizedModel,
    samples: Samples,
    options: ReconstructionOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with its weights rounded, and its activation scales fitted, block by block.

    Raises DataError without samples, CancelledError.
    """
    walk = Walk(model, samples, options.samples, cancel)
    options = for_samples(options, samples)
    blocks = blocks_of(model.graph, model.plan)
    rows: list[Row] = []
    done = 0
    for index, layers in enumerate(blocks):
        emit(Progress("Block reconstruction", index, len(blocks), layers[-1].name))
        block = _Block(walk, layers)
        products: list[Product] = []
        for layer in layers:
            cancel.check()
            product = roundable(walk.model, layer)
            made: dict[str, Tensor] = {}
            if isinstance(product, Product):
                fit = fit_layer(walk, product, options, cancel)
                made = fit.constants
                constants = {name: tensor.numpy() for name, tensor in made.items()}
                found = {product.weight: fit.product.encoding}
                block.model = block.model.changed(constants=constants, encodings=found)
                products.append(fit.product)
            elif product:
                rows.append(Row(layer.name, f"{layer.title}; left: {product}"))
            walk.advance(layer, made)
        if products:
            before, after = block.learn(products, options, cancel)
            what = f"{layers[0].name} to here, {len(products)} weights"
            rows.append(Row(layers[-1].name, what, before, after))
            done += len(products)
            walk.again(block.start, block.model, layers)
    emit(Progress("Block reconstruction", len(blocks), len(blocks)))
    gained = [row.after - row.before for row in rows if row.after is not None and row.before]
    summary = "no weight can be rounded so"
    if done:
        mean = sum(gained) / max(len(gained), 1)
        summary = (
            f"{done} layers in {len(gained)} blocks, {mean:+.1f} dB SQNR of the blocks' outputs "
            "over AdaRound on average"
        )
    return Outcome(walk.model, summary, "SQNR of the block's output, dB", tuple(rows))


class _Block:
    """`layers` from what they read in the walk (`start`), float and quantized, to what they give in
    the float network. `model` is that of the walk with what was found so far."""

    def __init__(self, walk: Walk, layers: tuple[Layer, ...]) -> None:
        self.model = walk.model
        self.nodes = [node for layer in layers for node in layer.nodes]
        self.start = [(dict(exact), dict(rounded)) for exact, rounded in walk.batches]
        self.made = [name for layer in layers if layer.nodes for name in layer.outputs]
        read = {name for layer in layers for name in layer.inputs}
        self.reads = sorted(read - {*self.made})
        leaving = {value.name for value in walk.model.graph.outputs}
        others = [layer for layer in walk.model.plan.layers if layer not in layers]
        later = {name for layer in others for name in layer.inputs}
        self.gives = [name for name in self.made if name in later or name in leaving]
        wanted = []
        for exact, _ in self.start:
            feed = {name: exact[name] for name in self.reads}
            with torch.inference_mode():
                wanted.append(walk.network.run_nodes(self.nodes, feed, self.gives))
        self.wanted = wanted

    def learn(
        self, products: Sequence[Product], options: ReconstructionOptions, cancel: CancelToken
    ) -> tuple[float, float]:
        """SQNR of the block's output in dB as it is, and after learning the roundings of
        `products`; `model` takes up what was learned if that is better."""
        learning = _Learning(self, products, options)
        before = learning.noise()
        learning.run(cancel)
        after = learning.noise()
        if after < before:
            self.model = learning.result()
        signal = sum(float(x.square().sum()) for part in self.wanted for x in part.values())
        return _decibel(signal, before), _decibel(signal, min(after, before))


def _decibel(signal: float, noise: float) -> float:
    return 10 * math.log10(max(signal, 1e-30) / max(noise, 1e-30))


class _Learning:
    """Roundings of a block's weights and scales of its activations, and learning them."""

    def __init__(
        self, block: _Block, products: Sequence[Product], options: ReconstructionOptions
    ) -> None:
        self._block, self._options = block, options
        self._generator = torch.Generator().manual_seed(options.seed)
        model = block.model
        self._softs: list[tuple[Product, Tensor, SoftRounding]] = []
        for product in products:
            weight = constant(model, product.weight)
            matrix = product.matrix(weight)
            self._softs.append((product, weight, SoftRounding(Steps.of(product), matrix, matrix)))
        self._scales = self._learned_scales() if options.activations else {}
        self._dropping = 0.0
        hooks = quantizers(model.graph, model.plan, model.encodings)
        for name in block.made:
            row = model.plan.tensors[name]
            if name in hooks:
                learned = self._scales.get(row.tied_to or name)
                hooks[name] = partial(self._rounded, learned or hooks[name])
        readers = {
            name: row.read_by
            for name, row in model.plan.tensors.items()
            if row.read_by is not None and name in hooks
        }
        self._executor = Executor(model.graph, quantize=hooks, quantize_for=readers)

    def _learned_scales(self) -> dict[str, LearnedScale]:
        model, found = self._block.model, {}
        for name in self._block.made:
            row = model.plan.tensors[name]
            encoding = model.encodings.get(name)
            if row.observed and encoding is not None and not unscaled(encoding):
                shape = model.graph.value(name).shape
                found[name] = LearnedScale(encoding, None if shape is None else len(shape))
        return found

    def _rounded(self, quantizer: Quantizer, x: Tensor) -> Tensor:
        """`x` rounded, but for the values that are left float while learning."""
        rounded = quantizer(x)
        if not self._dropping:
            return rounded
        left = torch.rand(x.shape, generator=self._generator) < self._dropping
        return torch.where(left, x, rounded)

    def _out(self, batch: int, weights: Mapping[str, Tensor]) -> tuple[Values, Values]:
        """What the block gives for a batch, and what it is to give."""
        exact, rounded = self._block.start[batch]
        reads = {}
        for name in self._block.reads:
            value = rounded[name].clone()  # nothing can be learned with tensors of inference mode
            if self._dropping and value.is_floating_point():
                left = torch.rand(value.shape, generator=self._generator) < self._dropping
                value = torch.where(left, exact[name], value)
            reads[name] = value
        block = self._block
        made = self._executor.run_nodes(block.nodes, {**reads, **weights}, block.gives)
        return made, block.wanted[batch]

    def _weights(self, *, decided: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The weights by name, and how far up each is rounded."""
        weights, shares = {}, []
        for product, weight, soft in self._softs:
            share = soft.share()
            matrix = soft.decided() if decided else soft.matrix(share)
            weights[product.weight] = product.restored(matrix, weight)
            shares.append(share)
        return weights, shares

    def noise(self) -> float:
        """Squared error of the block's output on all batches, all weights on their grids."""
        self._dropping = 0.0
        with torch.no_grad():
            weights, _ = self._weights(decided=True)
            total = 0.0
            for batch in range(len(self._block.start)):
                made, wanted = self._out(batch, weights)
                total += float(_error(made, wanted))
        return total

    def run(self, cancel: CancelToken) -> None:
        """All steps of learning, each on one batch."""
        options = self._options
        groups: list[dict[str, Any]] = [
            {"params": [soft.v for _, _, soft in self._softs], "lr": options.learning_rate}
        ]
        for quantizer in self._scales.values():
            for parameter, unit in quantizer.units():
                groups.append({"params": [parameter], "lr": options.range_learning_rate * unit})
        optimizer = torch.optim.Adam(groups)
        count = len(self._block.start)
        unit = max(self.noise() / count, 1e-30)
        numbers = sum(soft.v.numel() for _, _, soft in self._softs)
        self._dropping = options.drop
        for step in range(options.steps):
            cancel.check()
            batch = int(torch.randint(count, (), generator=self._generator))
            weights, shares = self._weights(decided=False)
            loss = _error(*self._out(batch, weights)) / unit
            if step >= options.warm_start * options.steps:
                beta = beta_at(step, options, options.steps)
                open_ = sum(undecided(share, beta) for share in shares) / numbers
                loss = loss + options.regularization * open_
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def result(self) -> QuantizedModel:
        """The model of the block with what was learned."""
        with torch.no_grad():
            weights, _ = self._weights(decided=True)
        constants = {name: weight.contiguous().numpy() for name, weight in weights.items()}
        encodings = {name: item.encoding() for name, item in self._scales.items()}
        return self._block.model.changed(constants=constants, encodings=encodings)


def _error(made: Values, wanted: Values) -> Tensor:
    parts = [(made[name] - value).square().sum() for name, value in wanted.items()]
    return torch.stack(parts).sum()
