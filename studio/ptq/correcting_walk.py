"""Correcting the mean and spread of layers' outputs one after the other, as the model goes by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studio.jobs.events import CancelToken
from studio.ptq.walk import Values, Walk
from studio.ptq.weighted import Weighted
from studio.runtime.executor import Executor
from studio.sim.plan import Layer
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import quantizers
from studio.techniques.technique import Samples


@dataclass(frozen=True)
class OutputMoments:
    """Mean and standard deviation of every channel that a layer gives, behind its bias and before
    its activation and rounding, float64 (channels,): in float, and with rounded weights and all
    that comes before rounded and corrected."""

    mean: np.ndarray
    deviation: np.ndarray
    rounded_mean: np.ndarray
    rounded_deviation: np.ndarray


@dataclass(frozen=True)
class Correction:
    """The layer's outputs become `factor` times what they were, plus `shift`; (channels,) each."""

    factor: np.ndarray
    shift: np.ndarray


class CorrectingWalk(Walk):
    """A walk on which layers with a constant weight are corrected before the next ones read them.

    Raises DataError without samples.
    """

    def __init__(
        self, model: QuantizedModel, samples: Samples, count: int, cancel: CancelToken
    ) -> None:
        super().__init__(model, samples, count, cancel)
        every = quantizers(model.graph, model.plan, model.encodings)
        constants = {n: item for n, item in every.items() if n in model.graph.initializers}
        self._weights_rounded = Executor(model.graph, quantize=constants)
        self._rounds = every
        self._made: list[Tensor] = []

    def measure(self, layer: Layer, weighted: Weighted) -> OutputMoments:
        """What the first node of `layer`, which is `weighted`, gives; `correct` has to follow."""
        made = weighted.node.outputs[0].name or ""
        sums, rounded_sums = _Moments(weighted.axis), _Moments(weighted.axis)
        for exact, rounded in self.batches:
            self._cancel.check()
            with torch.inference_mode():
                read = {name: exact[name] for name in layer.inputs}
                found = self.network.run_nodes(layer.nodes, read, [made, *layer.outputs])
                seen = self._all_seen(layer, rounded)
                y = self._weights_rounded.run_nodes(layer.nodes[:1], seen, [made])[made]
            sums.add(found[made])
            rounded_sums.add(y)
            exact.update({name: found[name] for name in layer.outputs})
            self._made.append(y)
        return OutputMoments(*sums.result(), *rounded_sums.result())

    def correct(self, layer: Layer, weighted: Weighted, correction: Correction) -> None:
        """Correct what was measured, and go on behind the layer."""
        made = weighted.node.outputs[0].name or ""
        for (exact, rounded), y in zip(self.batches, self._made, strict=True):
            self._cancel.check()
            with torch.inference_mode():
                shape = [1] * y.ndim
                shape[weighted.axis] = -1
                factor, shift = (
                    torch.from_numpy(numbers).to(y.dtype).view(shape)
                    for numbers in (correction.factor, correction.shift)
                )
                rounded.update(self._behind(layer, rounded, made, y * factor + shift))
            self._let_go(layer, exact, rounded)
        self._made = []

    def _behind(self, layer: Layer, rounded: Values, made: str, y: Tensor) -> Values:
        """What the layer gives in the simulation, of what its first node made."""
        if len(layer.nodes) > 1:
            seen = {**self._all_seen(layer, rounded), made: y}
            return self._simulated.run_nodes(layer.nodes[1:], seen, layer.outputs)
        everywhere = self.model.plan.tensors[made].read_by is None
        return {made: self._rounds[made](y) if made in self._rounds and everywhere else y}

    def _all_seen(self, layer: Layer, rounded: Values) -> Values:
        return {name: self._seen(layer, name, rounded) for name in layer.inputs}

    def _let_go(self, layer: Layer, exact: Values, rounded: Values) -> None:
        place = self._place[layer.name]
        for values in (exact, rounded):
            for name in [name for name in values if self._last.get(name, -1) <= place]:
                del values[name]


class _Moments:
    """Sums over all but the channels."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, y: Tensor) -> None:
        others = [axis for axis in range(y.ndim) if axis != self.axis % y.ndim]
        count = y.numel() // max(y.shape[self.axis], 1)
        if not count:
            return
        new = [y.sum(others, dtype=torch.float64), y.square().sum(others, dtype=torch.float64)]
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.sums else new
        self.count += count

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        mean, square = (total.numpy() / self.count for total in self.sums)
        return mean, np.sqrt(np.maximum(square - mean**2, 0.0))
