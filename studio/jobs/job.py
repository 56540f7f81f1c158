"""One piece of work in one background thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

from studio.errors import CancelledError, StudioError
from studio.jobs.events import CancelToken, Emit, Event

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class JobState(Enum):
    """How far a job is; the last three are final."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(Generic[Result]):
    """Run `work(emit, cancel)` in a daemon thread.

    The owner polls: `take_events()` empties the queue of what happened since the last call,
    `state` says whether it ended, `result()` returns the value or raises the error. The worker
    never waits for the owner. An exception that is not a `StudioError` is logged with its
    traceback and turned into one.
    """

    def __init__(self, title: str, work: Callable[[Emit, CancelToken], Result]) -> None:
        self.title = title
        self.started = time.monotonic()
        self._work = work
        self._cancel = CancelToken()
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._state = JobState.RUNNING
        self._result: Result | None = None
        self._error: StudioError | None = None
        self._thread = threading.Thread(target=self._run, name=f"job: {title}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> JobState:
        return self._state

    @property
    def error(self) -> StudioError | None:
        """The error of a FAILED or CANCELLED job."""
        return self._error

    def cancel(self) -> None:
        """Ask the job to stop at its next batch."""
        self._cancel.cancel()

    def pause(self) -> None:
        """Ask the job to wait at its next batch, until `resume` or `cancel`."""
        self._cancel.pause()

    def resume(self) -> None:
        """Let a paused job go on."""
        self._cancel.resume()

    @property
    def paused(self) -> bool:
        return self._cancel.paused and self._state is JobState.RUNNING

    @property
    def cancelling(self) -> bool:
        """True from `cancel` on, unless the job ended otherwise before it noticed."""
        return self._cancel.cancelled and self._state in (JobState.RUNNING, JobState.CANCELLED)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the job ended or `timeout` seconds passed; True if it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def take_events(self) -> list[Event]:
        """All events since the last call, oldest first."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def result(self) -> Result:
        """The value of a DONE job; raises the error of a FAILED or CANCELLED one."""
        if self._error is not None:
            raise self._error
        if self._state is not JobState.DONE:
            raise RuntimeError(f"job {self.title!r} is still running")
        return self._result  # type: ignore[return-value]

    def _emit(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def _run(self) -> None:
        try:
            self._result = self._work(self._emit, self._cancel)
            self._state = JobState.DONE
        except CancelledError as error:
            self._error, self._state = error, JobState.CANCELLED
        except StudioError as error:
            log.info("%s failed: %s", self.title, error)
            self._error, self._state = error, JobState.FAILED
        except MemoryError:
            self._error = StudioError(
                f"{self.title} ran out of memory.", "Use a smaller batch size or fewer images."
            )
            self._state = JobState.FAILED
        except Exception as error:
            log.exception("%s failed", self.title)
            self._error = StudioError(
                f"{self.title} failed unexpectedly: {type(error).__name__}: {error}",
                "The log has the details; the document is as it was before.",
            )
            self._state = JobState.FAILED
