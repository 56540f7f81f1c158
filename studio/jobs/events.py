"""What a job tells while it runs: plain numbers, never tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from studio.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of `phase` are finished (`total` 0: not known yet)."""

    phase: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True)
class TensorRanges:
    """Minimum and maximum of every observed tensor over all batches so far, in graph order."""

    batch: int
    names: tuple[str, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


@dataclass(frozen=True)
class Warned:
    """Something the user should know that did not stop the work."""

    message: str


@dataclass(frozen=True)
class TrainingStep:
    """A step of training: `step` of `total` done, the loss of its batch, the learning rate of the
    weights, and the seconds a step took lately."""

    step: int
    total: int
    epoch: int
    loss: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """What the simulation reached after `step` steps: the metric by name, higher is better."""

    step: int
    epoch: int
    metric: str
    value: float
    best: bool


Event = Progress | TensorRanges | Warned | TrainingStep | TrainingResult
Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """An `Emit` that drops everything."""


class CancelToken:
    """Set by whoever wants the job to stop or wait; checked by the job at every batch."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._going = threading.Event()
        self._going.set()

    def cancel(self) -> None:
        self._event.set()
        self._going.set()

    def pause(self) -> None:
        """Let `check` wait until `resume` or `cancel`."""
        if not self._event.is_set():
            self._going.clear()

    def resume(self) -> None:
        self._going.set()

    @property
    def paused(self) -> bool:
        return not self._going.is_set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `CancelledError` once `cancel` was called; wait while paused."""
        self._going.wait()
        if self._event.is_set():
            raise CancelledError
