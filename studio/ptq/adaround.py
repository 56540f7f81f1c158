"""AdaRound: each weight is rounded up or down so that its layer's output is right.

(Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv
2004.10568.) Layers come in execution order; each reads what the layers before it, already rounded,
give, and is to give what the float layer gives in the float network (section 4.1, "asymmetric
reconstruction"), behind its activation (eq. 25).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studio.errors import DataError
from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.layer_rows import Rows, is_product, take_rows, weight_matrix
from studio.ptq.options import AdaRoundOptions
from studio.quant.encoding import Encoding
from studio.quant.grid import Grid
from studio.runtime.executor import Executor
from studio.sim.plan import Layer, Role
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import simulating_executor
from studio.techniques.technique import Outcome, Row, Samples

ZETA, GAMMA = 1.1, -0.1
"""Stretch of the sigmoid (eq. 23)."""


def adaround(
    model: QuantizedModel,
    samples: Samples,
    options: AdaRoundOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with the weights of Conv, Gemm and MatMul rounded by AdaRound at their encodings.

    Other weights keep the nearest rounding. Raises DataError without samples, CancelledError.
    """
    walk = _Walk(model, samples, options)
    layers = [layer for layer in model.plan.layers if layer.nodes]
    constants: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for index, layer in enumerate(layers):
        cancel.check()
        emit(Progress("AdaRound", index, len(layers), layer.name))
        name = _weight(model, layer)
        if name is not None:
            fitted, row = _fit(walk, layer, name, options, cancel)
            constants[name] = fitted
            rows.append(row)
        walk.advance(layer, constants)
    emit(Progress("AdaRound", len(layers), len(layers)))
    gained = [(row.after or 0.0) - (row.before or 0.0) for row in rows]
    mean = sum(gained) / max(len(gained), 1)
    encodings = {name: model.encodings[name] for name in constants}
    summary = f"{len(rows)} layers rounded, {mean:+.1f} dB SQNR of their outputs on average"
    return Outcome(
        model.changed(constants=constants, encodings=encodings),
        summary,
        "SQNR of the layer's output, dB",
        tuple(rows),
    )


def _weight(model: QuantizedModel, layer: Layer) -> str | None:
    """The weight of `layer` that can be rounded so."""
    if not layer.weights or not is_product(model.graph, layer):
        return None
    row = model.plan.tensors[layer.weights[0]]
    if row.role is not Role.WEIGHT or row.layer != layer.name or row.name not in model.encodings:
        return None
    return row.name if isinstance(model.encodings[row.name].grid, Grid) else None


class _Walk:
    """All tensors that are still needed, in float and simulated, as the layers go by."""

    def __init__(self, model: QuantizedModel, samples: Samples, options: AdaRoundOptions) -> None:
        self.model = model
        self.generator = torch.Generator().manual_seed(options.seed)
        self._float = Executor(model.graph)
        self._simulated = simulating_executor(model.graph, model.plan, model.encodings)
        data = samples.training.subset(options.samples)
        size = samples.batch_size or 8
        batches = [batch.inputs for batch in data.batches(size)]
        if not batches:
            raise DataError("There is no sample to fit on.", "Choose a folder with images.")
        self._exact = [_tensors(batch) for batch in batches]
        names = list(batches[0])
        with torch.inference_mode():
            self._rounded = [self._simulated.run(batch, names) for batch in self._exact]
        layers = model.plan.layers
        self._last = {name: i for i, layer in enumerate(layers) for name in layer.inputs}
        self._place = {layer.name: i for i, layer in enumerate(layers)}

    def rows(self, layer: Layer, weight: Tensor, count: int) -> Rows:
        """What `layer` reads in the simulation, and gives in float."""
        head = self.model.graph.node(layer.nodes[0])
        source = head.inputs[0]
        assert source is not None
        share = -(-count // len(self._exact))
        parts = []
        for exact, rounded in zip(self._exact, self._rounded, strict=True):
            with torch.inference_mode():
                wanted = self._float.run_nodes(layer.nodes, _read(layer, exact), [layer.output])[
                    layer.output
                ]
                x = rounded[source.name or ""]
                parts.append(take_rows(head, x, wanted, weight, share, self.generator))
        inputs = torch.cat([part.inputs for part in parts]).clone()
        return Rows(inputs, torch.cat([part.targets for part in parts]).clone())

    def advance(self, layer: Layer, constants: Mapping[str, np.ndarray]) -> None:
        """Compute what `layer` gives, and let go what nobody needs any more."""
        weights = {
            name: torch.tensor(constants[name]) for name in layer.weights if name in constants
        }
        place = self._place[layer.name]
        for exact, rounded in zip(self._exact, self._rounded, strict=True):
            with torch.inference_mode():
                made = self._float.run_nodes(layer.nodes, _read(layer, exact), layer.outputs)
                seen = {**_read(layer, rounded), **weights}
                found = self._simulated.run_nodes(layer.nodes, seen, layer.outputs)
            exact.update(made)
            rounded.update(found)
            for values in (exact, rounded):
                for name in [name for name in values if self._last.get(name, -1) <= place]:
                    del values[name]


def _read(layer: Layer, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[name] for name in layer.inputs}


@dataclass(frozen=True)
class _Rounding:
    """Roundings of a weight: `low` the integers below (float32), `scale`, both of its shape."""

    encoding: Encoding
    low: Tensor
    scale: Tensor
    ends: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, weight: np.ndarray, encoding: Encoding) -> _Rounding:
        grid = encoding.grid
        assert isinstance(grid, Grid)
        scale = torch.tensor(np.array(encoding.spread(encoding.scale, weight.shape)))
        zero = torch.tensor(np.array(encoding.spread(encoding.zero_point, weight.shape))).float()
        low = torch.floor(torch.tensor(weight) / scale)
        return cls(encoding, low, scale, (grid.qmin - zero, grid.qmax - zero))

    def rounded(self, up: Tensor) -> Tensor:
        """Real numbers of the weight rounded up by the share `up`."""
        steps = torch.minimum(torch.maximum(self.low + up, self.ends[0]), self.ends[1])
        return steps * self.scale


def rectified_sigmoid(v: Tensor) -> Tensor:
    """h(V), from 0 to 1 (eq. 23)."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def initial(weight: Tensor, rounding: _Rounding) -> Tensor:
    """V for which h(V) is the weight's own fraction."""
    fraction = weight / rounding.scale - rounding.low
    return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)


def beta_at(step: int, options: AdaRoundOptions) -> float:
    """The exponent of the regularizer (eq. 24), annealed along a cosine after the warm start."""
    begin = options.warm_start * options.iterations
    passed = (step - begin) / (options.iterations - begin)
    span = options.beta_start - options.beta_end
    return options.beta_end + 0.5 * span * (1 + math.cos(math.pi * passed))


def _fit(
    walk: _Walk, layer: Layer, name: str, options: AdaRoundOptions, cancel: CancelToken
) -> tuple[np.ndarray, Row]:
    """The rounded weight, and how much nearer the layer's output has come."""
    graph = walk.model.graph
    head = graph.node(layer.nodes[0])
    array = graph.constant(name)
    weight = torch.tensor(array)
    rounding = _Rounding.of(array, walk.model.encodings[name])
    rows = walk.rows(layer, weight, options.positions)
    finish = _behind(walk.model, layer)

    def output(matrix: Tensor, inputs: Tensor) -> Tensor:
        return finish(torch.einsum("rgi,goi->rgo", inputs, weight_matrix(head, matrix)))

    def sqnr(matrix: Tensor) -> float:
        with torch.no_grad():
            noise = (output(matrix, rows.inputs) - rows.targets).square().sum()
            signal = rows.targets.square().sum()
        return 10 * math.log10(max(float(signal), 1e-30) / max(float(noise), 1e-30))

    nearest = torch.tensor(walk.model.encodings[name].quantize_dequantize(array))
    v = initial(weight, rounding).requires_grad_()
    optimizer = torch.optim.Adam([v], options.learning_rate)
    for step in range(options.iterations):
        if step % 50 == 0:
            cancel.check()
        picked = torch.randint(len(rows), (options.rows,), generator=walk.generator)
        h = rectified_sigmoid(v)
        error = output(rounding.rounded(h), rows.inputs[picked]) - rows.targets[picked]
        loss = error.square().sum((1, 2)).mean()
        if step >= options.warm_start * options.iterations:
            beta = beta_at(step, options)
            loss = loss + options.regularization * (1 - (2 * h - 1).abs().pow(beta)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        fitted = rounding.rounded((rectified_sigmoid(v) >= 0.5).float())
    before, after = sqnr(nearest), sqnr(fitted)
    if after < before:  # few positions can mislead
        fitted, after = nearest, before
    return fitted.numpy().copy(), Row(layer.name, layer.title, before, after)


def _behind(model: QuantizedModel, layer: Layer) -> Callable[[Tensor], Tensor]:
    """What happens to a product (rows, groups, outputs of a group): bias and activations."""
    graph = model.graph
    others = [graph.node(name) for name in layer.nodes[1:]]
    biases = [] if layer.bias is None else [torch.tensor(graph.constant(layer.bias)).reshape(-1)]
    activations = [node for node in others if node.op_type != "Add"]
    executor = Executor(graph)

    def finish(x: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1)
        for bias in biases:
            flat = flat + bias
        for node in activations:
            source = node.inputs[0]
            assert source is not None
            made = node.outputs[0].name or ""
            flat = executor.run_nodes([node.name or ""], {source.name or "": flat}, [made])[made]
        return flat.reshape(x.shape)

    return finish


def _tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in inputs.items()}
