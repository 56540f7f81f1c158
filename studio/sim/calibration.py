"""Calibration: run data through the float graph and remember each observed tensor's statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from studio.errors import DataError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress, TensorRanges
from studio.quant.statistics import Histogram, TensorStatistics

COUNTED_PER_SAMPLE = 8192
"""Elements of a tensor counted in its histogram for each sample; the range always covers all."""

COUNTED_AT_ONCE = 2**16
"""Elements that wait to be counted together: many small counts cost more than the network."""


class _Observation:
    """Range and histogram of one tensor, growing."""

    def __init__(self) -> None:
        self.minimum = math.inf
        self.maximum = -math.inf
        self._histogram = Histogram()
        self._waiting: list[np.ndarray] = []

    def add(self, name: str, array: np.ndarray) -> None:
        import torch

        if not array.size:
            return
        low, high = (float(value) for value in torch.aminmax(torch.from_numpy(array)))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(
                f"The tensor {name} takes values that are not finite (NaN or infinite).",
                "Check the preprocessing (mean, std, scale) and the model's weights.",
            )
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._waiting.append(_sampled(array).copy())
        if sum(part.size for part in self._waiting) >= COUNTED_AT_ONCE:
            self._count()

    def _count(self) -> None:
        if self._waiting:
            values = np.concatenate(self._waiting)
            self._histogram.add(values, self.minimum, self.maximum)
            self._waiting.clear()

    @property
    def seen(self) -> bool:
        """True once the tensor had any element."""
        return self.minimum <= self.maximum

    def result(self) -> TensorStatistics:
        self._count()
        counts, low, high = self._histogram.statistics()
        return TensorStatistics(self.minimum, self.maximum, counts, low, high)


def _sampled(array: np.ndarray) -> np.ndarray:
    """About `COUNTED_PER_SAMPLE` elements for each sample, spread over the whole array (all, if
    there are fewer): cache lines of 16 numbers, since fetching single ones costs as much."""
    flat = array.reshape(-1)
    lines = array.size // 16
    # An odd step does not fall into step with the rows of an image.
    step = lines * 16 // (COUNTED_PER_SAMPLE * (len(array) if array.ndim else 1)) | 1
    if step == 1:
        return flat
    return flat[: lines * 16].reshape(lines, 16)[::step].reshape(-1)


def collect_statistics(
    graph: ModelGraph,
    tensors: Sequence[str],
    batches: Iterable[Mapping[str, np.ndarray]],
    total: int,
    *,
    emit: Emit,
    cancel: CancelToken,
) -> dict[str, TensorStatistics]:
    """Statistics of `tensors` (float32) over `batches` of inputs (`total` samples in all).

    Emits `Progress` in samples and the ranges so far after every batch. Raises DataError for values
    that are not finite, for a tensor that is always empty or when there was no batch,
    CancelledError when cancelled.
    """
    from studio.runtime.budget import BudgetedReader, samples
    from studio.runtime.session import float_session

    inputs = [value.name or "" for value in graph.inputs if value.name in set(tensors)]
    inner = [name for name in tensors if name not in inputs]
    reader = BudgetedReader(float_session(graph, inner), inner)
    observed = {name: _Observation() for name in tensors}
    done = 0
    for index, batch in enumerate(batches):
        cancel.check()
        for name in inputs:
            observed[name].add(name, batch[name])
        for _, values in reader.read(batch):
            for name, array in values.items():
                observed[name].add(name, array)
            cancel.check()
        done += samples(batch)
        emit(Progress("Calibrating", done, total, f"{done} of {total} samples"))
        emit(_ranges(index, observed))
    if not done:
        raise DataError(
            "There is no sample to calibrate on.", "Choose a folder with images or arrays."
        )
    for name, observation in observed.items():
        if not observation.seen:
            raise DataError(
                f"The tensor {name} is empty for every sample.",
                "Calibrate on data for which it is not, or switch its layer's activations off.",
            )
    return {name: observation.result() for name, observation in observed.items()}


def _ranges(batch: int, observed: Mapping[str, _Observation]) -> TensorRanges:
    seen = {name: observation for name, observation in observed.items() if observation.seen}
    return TensorRanges(
        batch,
        tuple(seen),
        tuple(observation.minimum for observation in seen.values()),
        tuple(observation.maximum for observation in seen.values()),
    )
