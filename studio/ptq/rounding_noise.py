"""How much error rounding is expected to make, for any scaling of the channels between layers.

A number rounded to steps of d has an error of variance d^2 / 12, independent of all others. In the
units of the float network and per sample and position, with s the numbers that the channels of a
link are divided by (what a layer reads is x / s_in, its weight w s_in / s_out):

    of a weight at output o:      s_out[o]^2 d_w^2 / 12  K sum_i E[x_i^2] / s_in[i]^2
    of an activation at input i:  s[i]^2 d_a^2 / 12

K is the number of positions of the kernel. An error of a channel that is read by a linked layer
counts with what that layer makes of it, sum_o w_oi^2, relative to the power of that layer's output;
an error of other outputs relative to the power of the layer's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studio.ptq.channel_statistics import ChannelStatistics
from studio.ptq.links import Link
from studio.ptq.weighted import Weighted
from studio.quant.grid import FloatGrid
from studio.sim.plan import Plan


@dataclass(frozen=True)
class _Layer:
    """largest: (groups, outputs, inputs), of the kernel. gain: (inputs,), sum of w^2 that read it.
    steps: of the weight's grid over its range, 0 where it stays float."""

    layer: Weighted
    largest: np.ndarray
    gain: np.ndarray
    kernel: int
    power: float
    read: ChannelStatistics
    steps: int
    per_channel: bool


class RoundingNoise:
    """The expected error of linked layers as a function of the links' scales."""

    def __init__(
        self,
        links: Sequence[Link],
        matrices: Mapping[str, np.ndarray],
        statistics: Mapping[str, ChannelStatistics],
        plan: Plan,
    ) -> None:
        """`matrices`: weight of each linked layer (`Weighted.matrix`); `statistics`: of all that
        linked layers read and give."""
        self.links = links
        self._before = {link.second.name: index for index, link in enumerate(links)}
        self._behind = {link.first.name: index for index, link in enumerate(links)}
        self._layers: dict[str, _Layer] = {}
        for layer in (*(link.first for link in links), *(link.second for link in links)):
            matrix = matrices[layer.name]
            spec = plan.tensors[layer.weight].spec
            self._layers[layer.name] = _Layer(
                layer,
                np.abs(matrix).max(axis=3),
                np.square(matrix).sum(axis=(1, 3)).reshape(-1),
                matrix.shape[3],
                max(float(statistics[layer.output.name or ""].square.sum()), 1e-30),
                statistics[layer.source],
                0 if spec is None else _steps(spec.grid),
                spec is not None and spec.axis is not None,
            )
        rows = [plan.tensors[link.second.source].spec for link in links]
        self._activation_steps = [0 if spec is None else _steps(spec.grid) for spec in rows]

    def ranges(self, index: int, scales: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Of every channel of a link: the largest weight that gives it, the largest that reads it,
        and the largest value it takes; each with the scales of all other links applied."""
        link = self.links[index]
        first, second = self._layers[link.first.name], self._layers[link.second.name]
        gives = self._scaled(first, scales, without=index).max(axis=2).reshape(-1)
        reads = self._scaled(second, scales, without=index).max(axis=1).reshape(-1)
        values = np.maximum(np.abs(second.read.minimum), np.abs(second.read.maximum))
        shape = (link.channels, link.repeat)
        return gives, reads.reshape(shape).max(axis=1), values.reshape(shape).max(axis=1)

    def of_link(self, index: int, scales: Sequence[np.ndarray]) -> float:
        """All noise that depends on the scales of a link."""
        link = self.links[index]
        noise = self._of_weight(link.first.name, scales) + self._of_weight(link.second.name, scales)
        steps = self._activation_steps[index]
        if not steps:
            return noise
        second = self._layers[link.second.name]
        scale = link.spread(scales[index])
        high = max(float((second.read.maximum / scale).max()), 0.0)
        low = min(float((second.read.minimum / scale).min()), 0.0)
        step = (high - low) / steps
        return noise + step**2 / 12 * float((scale**2 * second.gain).sum()) / second.power

    def total(self, scales: Sequence[np.ndarray]) -> float:
        """Of all links, weights that two of them share counted once."""
        both = self._before.keys() & self._behind.keys()
        twice = sum(self._of_weight(name, scales) for name in both)
        return sum(self.of_link(index, scales) for index in range(len(self.links))) - twice

    def _scaled(
        self, item: _Layer, scales: Sequence[np.ndarray], without: int | None = None
    ) -> np.ndarray:
        largest, layer = item.largest, item.layer
        before, behind = self._before.get(layer.name), self._behind.get(layer.name)
        if before is not None and before != without:
            numbers = self.links[before].spread(scales[before])
            largest = largest * numbers.reshape(layer.groups, 1, -1)
        if behind is not None and behind != without:
            largest = largest / scales[behind].reshape(layer.groups, -1, 1)
        return largest

    def _of_weight(self, name: str, scales: Sequence[np.ndarray]) -> float:
        item = self._layers[name]
        if not item.steps:
            return 0.0
        layer, largest = item.layer, self._scaled(item, scales)
        before, behind = self._before.get(name), self._behind.get(name)
        read = item.read.square
        if before is not None:
            read = read / self.links[before].spread(scales[before]) ** 2
        energy = item.kernel * read.reshape(layer.groups, -1).sum(axis=1)
        reach = largest.max(axis=2)  # (groups, outputs)
        step = 2 * (reach if item.per_channel else reach.max()) / item.steps
        noise = (step**2 / 12 * energy[:, None] * np.ones_like(reach)).reshape(-1)
        if behind is None:
            return float(noise.sum()) / item.power
        link = self.links[behind]
        second = self._layers[link.second.name]
        gain = second.gain.reshape(link.channels, link.repeat).sum(axis=1)
        return float((noise * scales[behind] ** 2 * gain).sum()) / second.power


def _steps(grid: object) -> int:
    """Steps of a grid over its range; 0 for floating-point numbers, whose error is relative."""
    return 0 if isinstance(grid, FloatGrid) else 2 ** int(grid.bits) - 1  # type: ignore[attr-defined]
