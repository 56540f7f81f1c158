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


Event = Progress | TensorRanges | Warned
Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """An `Emit` that drops everything."""


class CancelToken:
    """Set by whoever wants the job to stop; checked by the job at every batch."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `CancelledError` once `cancel` was called."""
        if self._event.is_set():
            raise CancelledError
