"""What a training tells while it runs."""

from __future__ import annotations

import time

from studio.jobs.events import Emit, Progress, TensorRanges, TrainingStep
from studio.qat.simulation import TrainedSimulation

RANGES_EVERY = 0.2
"""Seconds between the ranges that are told."""


class Teller:
    """Tells of the steps of a training of `total` steps in `epochs`."""

    def __init__(self, emit: Emit, total: int, epochs: int) -> None:
        self.emit, self.total, self.epochs = emit, total, epochs
        self._seconds = 0.0
        self._shown = time.monotonic()

    def step(self, step: int, epoch: int, loss: float, rate: float, seconds: float) -> None:
        """Tell that `step` steps are done, the last in so many seconds."""
        self._seconds = seconds if not self._seconds else 0.9 * self._seconds + 0.1 * seconds
        self.emit(TrainingStep(step, self.total, epoch, loss, rate, self._seconds))
        detail = f"epoch {epoch + 1} of {self.epochs}"
        self.emit(Progress("Training", step, self.total, detail))

    def ranges(self, step: int, simulation: TrainedSimulation, *, always: bool = True) -> None:
        """Tell the ranges that are learned; not `always`: if some time has passed since."""
        now = time.monotonic()
        if always or now - self._shown > RANGES_EVERY:
            self._shown = now
            self.emit(_ranges(step, simulation))


def _ranges(step: int, simulation: TrainedSimulation) -> TensorRanges:
    learned = {name: quantizer.encoding() for name, quantizer in simulation.learned()}
    single = {name: item for name, item in learned.items() if item.axis is None}
    return TensorRanges(
        step,
        tuple(single),
        tuple(float(item.minimum) for item in single.values()),
        tuple(float(item.maximum) for item in single.values()),
    )
