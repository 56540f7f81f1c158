"""The figures an evaluation produces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Distance:
    """How far a tensor is from its float original.

    sqnr_db: 10 log10(sum x^2 / sum (x - y)^2), inf if equal. cosine: of the flattened tensors.
    """

    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 in percent of the labelled samples."""

    top1: float
    top5: float


@dataclass(frozen=True)
class LayerQuality:
    """A layer's output in the quantized network against the same output in the float network."""

    layer: str
    tensor: str
    distance: Distance


@dataclass(frozen=True)
class OutputQuality:
    """One output of the quantized network against the same output of the float network.

    agreement: percent of samples with the same top-1 class, None if it is no class score.
    """

    output: str
    distance: Distance
    agreement: float | None


@dataclass(frozen=True)
class Evaluation:
    """The simulated model against the float model on the same samples.

    float_accuracy, accuracy: of the first output, None without labels. agreement, output: of the
    first output (`outputs` has all), see `OutputQuality`. `synthetic`: measured on random data,
    says nothing about real accuracy.
    """

    data: str
    samples: int
    synthetic: bool
    float_accuracy: Accuracy | None
    accuracy: Accuracy | None
    agreement: float | None
    output: Distance
    layers: tuple[LayerQuality, ...]
    outputs: tuple[OutputQuality, ...] = ()


class DistanceMeter:
    """Adds up what `Distance` needs over batches, in float64."""

    def __init__(self) -> None:
        self._signal = self._noise = self._other = self._dot = 0.0
        self._other_shape = False

    def add(self, reference: npt.NDArray, other: npt.NDArray) -> None:
        """`reference` is the float original; another shape (of found boxes, say) is no match."""
        if reference.shape != other.shape:
            self._other_shape = True
            return
        x = np.ascontiguousarray(reference, dtype=np.float32).ravel()
        y = np.ascontiguousarray(other, dtype=np.float32).ravel()
        difference = x - y
        self._signal += float(np.dot(x, x))
        self._other += float(np.dot(y, y))
        self._dot += float(np.dot(x, y))
        self._noise += float(np.dot(difference, difference))

    def result(self) -> Distance:
        """The distance over everything added; -inf dB and 0 if a shape was another one."""
        if self._other_shape:
            return Distance(-math.inf, 0.0)
        if self._noise == 0.0:
            return Distance(math.inf, 1.0)
        sqnr = 10 * math.log10(self._signal / self._noise) if self._signal else -math.inf
        norm = math.sqrt(self._signal) * math.sqrt(self._other)
        return Distance(sqnr, self._dot / norm if norm else 0.0)
