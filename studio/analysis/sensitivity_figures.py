"""The figures a sensitivity analysis produces."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST = 4.0
"""Factor from which outlier channels are listed: the median channel has two bits less than the
widest."""


def relative_error(sqnr_db: float) -> float:
    """Root mean square of the error in percent of the signal's: 40 dB is 1 %, 20 dB 10 %."""
    return min(100 * 10 ** (-sqnr_db / 20), 1e3)


@dataclass(frozen=True)
class Deviation:
    """Outputs against those of the float network, over all samples.

    noise: sum (x - y)^2 / sum x^2 of each output, mean over the outputs; 0 if equal, inf if an
    output has another shape or is not finite where it should be. mse: mean (x - y)^2 over all
    elements of all outputs. kl: mean Kullback-Leibler divergence of the class probabilities from
    the float ones in nats, agreement: percent of samples with the same best class; both None where
    the first output is no vector of class scores. top1: accuracy in percent, None without labels.
    """

    noise: float
    mse: float
    kl: float | None = None
    agreement: float | None = None
    top1: float | None = None

    @property
    def sqnr_db(self) -> float:
        """-10 log10 of the noise: inf if equal."""
        if self.noise == 0.0:
            return math.inf
        return -math.inf if math.isinf(self.noise) else -10 * math.log10(self.noise)


@dataclass(frozen=True)
class Outlier:
    """A tensor with one scale whose channels reach differently far.

    factor: the largest absolute value of channel `channel`, the widest, over that of the median
    channel. beyond: how many of its `channels` reach more than `LEAST` times as far as the median.
    lost_bits: log2 of the factor. advice: what helps.
    """

    tensor: str
    layer: str
    weight: bool
    channel: int
    channels: int
    beyond: int
    factor: float
    advice: str

    @property
    def lost_bits(self) -> float:
        return math.log2(self.factor)


@dataclass(frozen=True)
class Error:
    """A rounded tensor against itself in float: 10 log10(sum x^2 / sum (x - y)^2), inf if equal,
    and mean (x - y)^2."""

    sqnr_db: float
    mse: float


@dataclass(frozen=True)
class LayerSensitivity:
    """What the quantization of one layer does.

    alone: outputs with this layer quantized and all others in float. left: outputs with this layer
    in float and all others quantized; both None if not measured. weight: its weights, all together;
    output: what it gives out from its float inputs, its weights and the result rounded; both None
    where nothing is rounded.
    """

    layer: str
    alone: Deviation | None
    left: Deviation | None
    weight: Error | None
    output: Error | None


@dataclass(frozen=True)
class Sensitivity:
    """All against the float network, on the same samples.

    weights, activations: with those alone quantized (a bias counts as a weight). both: everything.
    float_top1: percent, None without labels. layers: in execution order, those with anything
    quantized. outliers: the worst first. `synthetic`: measured on random data, says nothing about
    real accuracy.
    """

    data: str
    samples: int
    synthetic: bool
    float_top1: float | None
    weights: Deviation
    activations: Deviation
    both: Deviation
    layers: tuple[LayerSensitivity, ...]
    outliers: tuple[Outlier, ...] = ()

    @property
    def by_layer(self) -> dict[str, LayerSensitivity]:
        return {layer.layer: layer for layer in self.layers}

    def gain_db(self, layer: LayerSensitivity) -> float | None:
        """What leaving `layer` in float brings: SQNR of the outputs then, above that of the whole
        network quantized. None if it was not measured."""
        if layer.left is None:
            return None
        gain = layer.left.sqnr_db - self.both.sqnr_db
        return 0.0 if math.isnan(gain) else gain
