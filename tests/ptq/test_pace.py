"""Work within a given time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from studio.errors import CancelledError
from studio.jobs.events import CancelToken, Progress, silent
from studio.ptq.deadline import Deadline, TimeUpError
from studio.ptq.pace import within_time
from studio.techniques.technique import Options, Outcome, Technique

LAYERS = 20


class Clock:
    """Time that passes by sleeping alone, whatever the machine does."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    result = Clock()
    monkeypatch.setattr(time, "monotonic", result.monotonic)
    monkeypatch.setattr(time, "sleep", result.sleep)
    return result


class Steps(Options):
    iterations: int = 1000


class NoSteps(Options):
    pass


def slow(seconds: float, seen: list[int], options: type[Options] = Steps) -> Technique:
    """A technique of 20 layers that takes `seconds` with its default options."""

    def run(model: Any, samples: Any, given: Any, emit: Any, cancel: Any) -> Outcome:
        steps = getattr(given, "iterations", 1000)
        seen.append(steps)
        for layer in range(LAYERS):
            emit(Progress("Slow", layer, LAYERS))
            time.sleep(seconds * steps / 1000 / LAYERS)
            cancel.check()
        return Outcome(model, "done")

    return Technique("slow", "Slow", "", options, lambda: run)


def run(technique: Technique, deadline: Deadline) -> Outcome | None:
    return within_time(technique, None, None, silent, deadline)  # type: ignore[arg-type]


def test_what_fits_runs_with_its_defaults() -> None:
    seen: list[int] = []
    assert run(slow(4.0, seen), Deadline(CancelToken(), 5.0)) is not None
    assert seen == [1000]


def test_what_takes_too_long_gets_fewer_steps(clock: Clock) -> None:
    seen: list[int] = []
    assert run(slow(40.0, seen), Deadline(CancelToken(), 20.0)) is not None
    assert len(seen) == 2
    # 15 % of the work were done, and the step after that: 8 of 40 seconds are gone.
    assert seen[1] == int(1000 * 0.8 * (20 - 8) / 40)
    assert clock.now < 20.0


def test_what_would_get_too_few_steps_or_has_none_is_left(clock: Clock) -> None:
    seen: list[int] = []
    assert run(slow(100.0, seen), Deadline(CancelToken(), 25.0)) is None
    assert run(slow(30.0, seen, NoSteps), Deadline(CancelToken(), 10.0)) is None
    assert seen == [1000, 1000]
    assert clock.now < 25.0 + 10.0


def test_what_does_not_end_though_it_seemed_to(clock: Clock) -> None:
    """The end of the time is nothing that fewer steps would mend."""

    def stuck(model: Any, samples: Any, given: Any, emit: Any, cancel: Any) -> Outcome:
        while True:
            clock.sleep(1.0)
            cancel.check()

    with pytest.raises(TimeUpError):
        run(Technique("stuck", "", "", Steps, lambda: stuck), Deadline(CancelToken(), 5.0))


def test_the_time_is_up(clock: Clock) -> None:
    deadline = Deadline(CancelToken(), 5.0)
    clock.sleep(4.9)
    deadline.check()
    assert not deadline.cancelled
    clock.sleep(0.2)
    assert deadline.cancelled
    with pytest.raises(TimeUpError):
        deadline.check()


def test_a_cancel_is_no_end_of_time() -> None:
    outer = CancelToken()
    deadline = Deadline(outer, 60)
    outer.cancel()
    assert deadline.cancelled
    with pytest.raises(CancelledError) as caught:
        deadline.check()
    assert not isinstance(caught.value, TimeUpError)


def test_a_pause_does_not_count(clock: Clock) -> None:
    class Paused(CancelToken):
        def check(self) -> None:  # as it waits until it is resumed
            clock.sleep(100.0)
            self.resume()

    outer = Paused()
    deadline = Deadline(outer, 3.0)
    outer.pause()
    assert deadline.paused
    deadline.check()
    assert deadline.left == pytest.approx(3.0)
