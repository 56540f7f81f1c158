"""A cancel token that also ends work when its time is up."""

from __future__ import annotations

import time

from studio.errors import CancelledError
from studio.jobs.events import CancelToken


class TimeUpError(CancelledError):
    """The time that was given to a piece of work is over; nobody cancelled it."""


class Deadline(CancelToken):
    """`check` raises TimeUpError `seconds` after now, or as soon as `stop` was called, and all that
    the `outer` token raises. Time in which `outer` is paused does not count."""

    def __init__(self, outer: CancelToken, seconds: float) -> None:
        super().__init__()
        self._outer = outer
        self._until = time.monotonic() + seconds
        self._stopped = False

    @property
    def left(self) -> float:
        """Seconds; never below 0."""
        return max(0.0, self._until - time.monotonic())

    @property
    def paused(self) -> bool:
        return self._outer.paused

    @property
    def cancelled(self) -> bool:
        return self._outer.cancelled or self._stopped or self.left == 0.0

    def stop(self) -> None:
        """End the work at its next check."""
        self._stopped = True

    def check(self) -> None:
        begin = time.monotonic()
        paused = self._outer.paused
        self._outer.check()
        super().check()
        if paused:
            self._until += time.monotonic() - begin
        if self._stopped or self.left == 0.0:
            raise TimeUpError
