"""How a training went, as plain numbers: what its curves are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.jobs.events import Event, TensorRanges, TrainingResult, TrainingStep

MOST_POINTS, MOST_RANGES = 2000, 60
"""Points of curves, and snapshots of ranges, that are kept of a training of any length."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingHistory:
    """Curves of one training of `total` steps.

    `losses`, `rates` and `seconds` (of a step) belong to `steps`; each loss is the mean over
    `merged` steps. `minimum` and `maximum` have a row for each of `range_steps` and a column for
    each of `names`, the tensors whose range is learned.
    """

    total: int
    merged: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    seconds: tuple[float, ...]
    results: tuple[TrainingResult, ...]
    names: tuple[str, ...]
    range_steps: tuple[int, ...]
    minimum: tuple[tuple[float, ...], ...]
    maximum: tuple[tuple[float, ...], ...]

    @property
    def best(self) -> TrainingResult | None:
        """The best result; the latest of equally good ones is not better."""
        return next((result for result in reversed(self.results) if result.best), None)

    @property
    def epochs(self) -> int:
        """Epochs planned; 0 until the first is over."""
        if not self.results:
            return 0
        last = self.results[-1]
        return round(self.total * (last.epoch + 1) / last.step)

    def drift(self) -> Array:
        """Width of the learned ranges in percent of the first one, (snapshots, tensors)."""
        low, high = (np.array(rows, np.float64) for rows in (self.minimum, self.maximum))
        width = (high - low).reshape(len(self.range_steps), len(self.names))
        start = np.maximum(width[:1], np.finfo(np.float64).tiny)
        return 100.0 * width / start


class Recorder:
    """Makes a `TrainingHistory` of the events of a job, as they come."""

    def __init__(self) -> None:
        self._total, self._merged = 0, 1
        self._waiting: list[TrainingStep] = []
        self._points: list[tuple[int, float, float, float]] = []
        self._results: list[TrainingResult] = []
        self._names: tuple[str, ...] = ()
        self._ranges: list[tuple[int, tuple[float, ...], tuple[float, ...]]] = []
        self._every, self._seen = 1, 0
        self.last: TrainingStep | None = None

    def add(self, event: Event) -> None:
        """Take up one event; those of other work are not kept."""
        if isinstance(event, TrainingStep):
            self._add_step(event)
        elif isinstance(event, TrainingResult):
            self._results.append(event)
        elif isinstance(event, TensorRanges):
            self._add_ranges(event)

    def history(self) -> TrainingHistory | None:
        """What has happened so far; None before the first step."""
        if self.last is None:
            return None
        points = self._points or [_merged(self._waiting)]
        steps, losses, rates, seconds = zip(*points, strict=True)
        return TrainingHistory(
            self._total,
            self._merged,
            steps,
            losses,
            rates,
            seconds,
            tuple(self._results),
            self._names,
            tuple(row[0] for row in self._ranges),
            tuple(row[1] for row in self._ranges),
            tuple(row[2] for row in self._ranges),
        )

    def _add_step(self, event: TrainingStep) -> None:
        self.last, self._total = event, event.total
        self._waiting.append(event)
        if len(self._waiting) < self._merged:
            return
        self._points.append(_merged(self._waiting))
        self._waiting = []
        if len(self._points) == 2 * MOST_POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [(new[0], (old[1] + new[1]) / 2, *new[2:]) for old, new in pairs]
            self._merged *= 2

    def _add_ranges(self, event: TensorRanges) -> None:
        if event.names != self._names:  # another phase
            self._names, self._ranges, self._every, self._seen = event.names, [], 1, 0
        if not event.names:
            return
        row = (event.batch, event.minimum, event.maximum)
        if self._seen % self._every and len(self._ranges) > 1:
            self._ranges[-1] = row  # the newest is always there
        else:
            self._ranges.append(row)
        self._seen += 1
        if len(self._ranges) == 2 * MOST_RANGES:
            self._ranges = self._ranges[::2]
            self._every *= 2


def _merged(steps: Sequence[TrainingStep]) -> tuple[int, float, float, float]:
    last = steps[-1]
    return last.step, sum(s.loss for s in steps) / len(steps), last.rate, last.seconds


def smoothed(values: Sequence[float], share: float) -> Array:
    """Exponential moving average in which the past has weight `share` (0: as it is), without the
    pull towards 0 of the first ones. (n,) -> (n,)."""
    result, past, weight = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        past = share * past + (1 - share) * value
        weight = share * weight + (1 - share)
        result[index] = past / weight
    return result
