"""Mean, spread and range of every channel of tensors, in float, over samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from studio.errors import DataError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one tensor, float64 arrays (channels,) each over all samples and positions."""

    mean: np.ndarray
    square: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation."""
        return np.sqrt(np.maximum(self.square - self.mean**2, 0.0))


class _Sums:
    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.count = 0
        self.parts: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> None:
        import torch

        values = torch.from_numpy(array)
        others = [axis for axis in range(values.ndim) if axis != self.axis % values.ndim]
        count = values.numel() // values.shape[self.axis]
        if not count:
            return
        if others:
            mean = values.mean(others, dtype=torch.float64)
            square = values.square().mean(others, dtype=torch.float64)
            found = [mean, square, values.amin(others), values.amax(others)]
        else:
            found = [values, values.square(), values, values]
        new = [item.double().numpy() for item in found]
        if not self.parts:
            self.parts, self.count = [item.copy() for item in new], count
            return
        share = count / (self.count + count)
        self.parts[0] += share * (new[0] - self.parts[0])
        self.parts[1] += share * (new[1] - self.parts[1])
        np.minimum(self.parts[2], new[2], out=self.parts[2])
        np.maximum(self.parts[3], new[3], out=self.parts[3])
        self.count += count


def channel_statistics(
    graph: ModelGraph,
    axes: Mapping[str, int],
    batches: Iterable[Mapping[str, np.ndarray]],
    total: int,
    phase: str,
    emit: Emit,
    cancel: CancelToken,
) -> dict[str, ChannelStatistics]:
    """Statistics of the tensors `axes` (name -> axis of channels) of the float `graph`.

    Raises DataError if there is no sample.
    """
    from studio.runtime.budget import BudgetedReader, samples
    from studio.runtime.session import float_session

    fed = {value.name for value in graph.inputs}
    names = [name for name in axes if name not in fed]
    reader = BudgetedReader(float_session(graph, names), names)
    sums = {name: _Sums(axis) for name, axis in axes.items()}
    done = 0
    for batch in batches:
        for name in sums:
            if name in fed:
                sums[name].add(batch[name])
        for _, values in reader.read(batch):
            cancel.check()
            for name, array in values.items():
                sums[name].add(array)
        done += samples(batch)
        emit(Progress(phase, done, total, f"{done} of {total} samples"))
    if not done or any(not item.parts for item in sums.values()):
        raise DataError("There is no sample to measure channels on.", "Choose other data.")
    return {name: ChannelStatistics(*item.parts) for name, item in sums.items()}
