"""Sequential MSE: for each channel or block the shrunken range that leaves the least error at the
layer's output.

Layers come in execution order, each reads what the earlier ones, already quantized, give. (AIMET's
Sequential MSE.) The error of a candidate is a quadratic form (`gram`), so the data are read once a
layer. Blocks of one output are chosen in turn, each given the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.gram import Gram, gram_of, sqnr
from studio.ptq.options import SequentialMseOptions
from studio.ptq.products import Product, product_of
from studio.ptq.walk import Walk, constant
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer, fake_quantize
from studio.quant.grid import FloatGrid
from studio.quant.layout import Layout
from studio.quant.rounding import bounds
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Row, Samples

_AT_ONCE = 2**24
"""Factors of candidates rounded at once: 64 MiB."""

_SWEEPS = 2
"""Times all blocks are chosen: the first is chosen again once the last is known."""


def sequential_mse(
    model: QuantizedModel,
    samples: Samples,
    options: SequentialMseOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with the ranges of the weights of Conv, ConvTranspose, Gemm and MatMul chosen anew.

    Never worse at a layer's output than the ranges it had. Raises DataError without samples,
    CancelledError.
    """
    walk = Walk(model, samples, options.samples, cancel)
    layers = model.plan.layers
    found: dict[str, Encoding] = {}
    rows: list[Row] = []
    for index, layer in enumerate(layers):
        cancel.check()
        emit(Progress("Sequential MSE", index, len(layers), layer.name))
        product = product_of(model, layer)
        rounded: Mapping[str, Tensor] = {}
        if isinstance(product, Product):
            gram = gram_of(walk, product, options.inputs, options.positions)
            weight = constant(model, product.weight)
            search = Search(product, weight, options.candidates)
            if search.encodings.count > 1:
                before, encoding, after = search.run(gram, cancel)
                quantized = FakeQuantizer(encoding, weight.ndim)(weight)
                rounded = {product.weight: quantized}
                found[product.weight] = encoding
                rows.append(Row(layer.name, layer.title, before, after))
            else:
                what = f"{layer.title}; left: {encoding_kind(product.encoding)} has no range"
                rows.append(Row(layer.name, what))
        elif product:
            rows.append(Row(layer.name, f"{layer.title}; left: {product}"))
        walk.advance(layer, rounded)
    emit(Progress("Sequential MSE", len(layers), len(layers)))
    gained = [row.after - row.before for row in rows if row.after is not None and row.before]
    summary = "no weight has a range to choose"
    if found:
        mean = sum(gained) / max(len(gained), 1)
        summary = f"{len(found)} layers, {mean:+.1f} dB SQNR of their outputs on average"
    return Outcome(
        model.changed(encodings=found), summary, "SQNR of the layer's output, dB", tuple(rows)
    )


def encoding_kind(encoding: Encoding) -> str:
    """The numbers of an encoding, for people."""
    return str(encoding.grid)


@dataclass(frozen=True)
class Candidates:
    """Encodings to choose from, for each scale by itself: `scale` float32 and `zero_point` int64
    (candidates, scales), of which the first is the one there is; `integers` of low-power blocks."""

    scale: np.ndarray
    zero_point: np.ndarray
    integers: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.scale)


def candidates(encoding: Encoding, weight: Tensor, count: int) -> Candidates:
    """The `encoding` there is, and those of 1/count, 2/count, ... 1 of the range of `weight`; of
    low-power blocks all integers."""
    grid = encoding.grid
    scales, zeros = [encoding.scale], [encoding.zero_point]
    integers = None
    if encoding.integer_scale is not None:
        assert not isinstance(grid, FloatGrid)
        every = np.arange(1, 2**grid.bits + 1)
        integers = [encoding.integer_scale]
        for integer in every:
            integers.append(np.full_like(encoding.integer_scale, integer))
            factor = encoding.channel_scale * np.float32(integer)
            scales.append(np.broadcast_to(factor, encoding.scale.shape))
            zeros.append(encoding.zero_point)
    elif not (isinstance(grid, FloatGrid) and not grid.scaled):
        layout = Layout(encoding.axis, encoding.block_size, weight.ndim)
        low, high = (end.double().numpy() for end in layout.ranges(weight))
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        for part in range(1, count + 1):
            share = part / count
            made = encoding_from_range(
                low * share, high * share, grid, encoding.axis, encoding.block_size
            )
            scales.append(made.scale)
            zeros.append(made.zero_point)

    def flat(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.asarray(array).reshape(-1) for array in arrays])

    return Candidates(flat(scales), flat(zeros), None if integers is None else flat(integers))


class Search:
    """The best of the `candidates` of each scale of a product's weight."""

    def __init__(self, product: Product, weight: Tensor, count: int) -> None:
        self.product = product
        self.encodings = candidates(product.encoding, weight, count)
        self._wanted = product.matrix(weight)
        self._nearest = product.matrix(FakeQuantizer(product.encoding, weight.ndim)(weight))
        self._owner = product.owner()
        self._scale = torch.from_numpy(self.encodings.scale)
        self._zero = torch.from_numpy(self.encodings.zero_point).float()

    def run(self, gram: Gram, cancel: CancelToken) -> tuple[float, Encoding, float]:
        """SQNR of the layer's output as it is, the encoding found, and what it brings; in dB."""
        signal = gram.signal(self._wanted)
        before = gram.loss(self._nearest, self._wanted)
        blocks = self._blocks()
        own = gram.own.float()
        slope = torch.zeros_like(self._wanted)
        if gram.cross is not None:
            slope = (self._wanted.double() @ gram.cross.transpose(1, 2)).float()
        change = self._nearest - self._wanted
        chosen = torch.zeros(self._scale.shape[1], dtype=torch.long)
        for _ in range(_SWEEPS if len(blocks) > 1 else 1):
            for block in blocks:
                cancel.check()
                self._choose(block, change, own, slope, chosen)
        after = gram.loss(self._wanted + change, self._wanted)
        if after.sum() > before.sum():  # by less than float32 tells
            return sqnr(signal, before), self.product.encoding, sqnr(signal, before)
        return sqnr(signal, before), self._encoding(chosen.numpy()), sqnr(signal, after)

    def _blocks(self) -> list[slice]:
        """Runs of inputs over which no output changes its scale."""
        size = self._owner.shape[2]
        turns = (self._owner[..., 1:] != self._owner[..., :-1]).any(dim=0).any(dim=0)
        edges = [0, *(turns.nonzero().reshape(-1) + 1).tolist(), size]
        return [slice(a, b) for a, b in pairwise(edges)]

    def _choose(
        self, block: slice, change: Tensor, own: Tensor, slope: Tensor, chosen: Tensor
    ) -> None:
        """The best scales of a block of inputs, all else staying as it is; written to `chosen` and
        `change`."""
        owner = self._owner[..., block.start]  # (groups, outputs)
        within = own[:, block, block]
        others = change @ own[:, :, block] - change[..., block] @ within - slope[..., block]
        losses = torch.zeros(self._scale.shape, dtype=torch.float64)
        at_once = max(1, _AT_ONCE // max(others.numel(), 1))
        for start in range(0, len(self._scale), at_once):
            part = slice(start, start + at_once)
            moved = self._changes(block, owner, part)
            loss = (moved @ within + 2 * others).mul_(moved).sum(-1).double()
            losses[part].index_add_(1, owner.reshape(-1), loss.flatten(1))
        mine = torch.unique(owner)
        best = losses[:, mine].argmin(0)
        chosen[mine] = best
        picked = torch.zeros_like(chosen).index_copy_(0, mine, best)[owner]
        change[..., block] = self._rounded(
            block, self._of(self._scale, picked, owner), self._of(self._zero, picked, owner)
        )

    @staticmethod
    def _of(values: Tensor, candidate: Tensor, owner: Tensor) -> Tensor:
        return values[candidate, owner][..., None]

    def _changes(self, block: slice, owner: Tensor, part: slice) -> Tensor:
        """By how much each of some candidates moves the block: (candidates, groups, outputs,
        inputs)."""
        scale, zero = self._scale[part][:, owner], self._zero[part][:, owner]
        return self._rounded(block, scale[..., None], zero[..., None])

    def _rounded(self, block: slice, scale: Tensor, zero: Tensor) -> Tensor:
        wanted = self._wanted[..., block]
        grid = self.product.encoding.grid
        low, high = bounds(grid)
        values = wanted.expand(torch.broadcast_shapes(wanted.shape, scale.shape))
        return fake_quantize(values, scale, low - zero, high - zero, grid) - wanted

    def _encoding(self, chosen: np.ndarray) -> Encoding:
        encoding = self.product.encoding
        places = np.arange(chosen.size)

        def taken(values: np.ndarray) -> np.ndarray:
            return values[chosen, places].reshape(encoding.scale.shape)

        integers = self.encodings.integers
        return replace(
            encoding,
            scale=taken(self.encodings.scale),
            zero_point=taken(self.encodings.zero_point),
            integer_scale=None if integers is None else taken(integers),
        )
