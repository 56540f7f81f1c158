"""Running a technique within a given time: with fewer steps, if it would take too long."""

from __future__ import annotations

import time
from dataclasses import dataclass

from studio.jobs.events import Emit, Event, Progress
from studio.ptq.deadline import Deadline, TimeUpError
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Options, Outcome, Samples, Technique

STEPS = ("steps", "iterations")
"""Options that say how many steps a block or a layer gets, of techniques that have them."""

FEWEST_STEPS = 100
"""With fewer steps a technique is not worth its time."""

BELIEVED = 0.15
"""Share of a technique's work after which its pace is believed."""

MARGIN = 0.8
"""Share of the time left that a technique made to fit is given."""


@dataclass
class _Pace:
    """Passes events on, and stops the work once it is plain that it would not end in time."""

    emit: Emit
    deadline: Deadline
    begin: float
    needed: float = 0.0
    phase: str = ""

    def __call__(self, event: Event) -> None:
        self.emit(event)
        if not isinstance(event, Progress) or not event.total or self.needed:
            return
        now = time.monotonic()
        if event.phase != self.phase:
            self.phase, self.begin = event.phase, now
        share = event.done / event.total
        if share >= BELIEVED:
            needed = (now - self.begin) * (1.0 / share - 1.0)
            if needed > self.deadline.left:
                self.needed = needed / (1.0 - share)
                self.deadline.stop()


def within_time(
    technique: Technique,
    model: QuantizedModel,
    samples: Samples,
    emit: Emit,
    deadline: Deadline,
) -> Outcome | None:
    """What `technique` makes of `model` with its default options; None if that would take longer
    than is left, and fewer steps do not help. Raises TimeUpError when the time is up, and what the
    technique raises."""
    options = technique.options()
    outcome, needed = _tried(technique, options, model, samples, emit, deadline)
    if outcome is not None:
        return outcome
    steps = next((name for name in STEPS if getattr(options, name, 0)), None)
    fewer = int(getattr(options, steps or "", 0) * MARGIN * deadline.left / needed)
    if steps is None or fewer < FEWEST_STEPS:
        return None
    options = options.model_copy(update={steps: fewer})
    outcome, _ = _tried(technique, options, model, samples, emit, deadline)
    return outcome


def _tried(
    technique: Technique,
    options: Options,
    model: QuantizedModel,
    samples: Samples,
    emit: Emit,
    deadline: Deadline,
) -> tuple[Outcome | None, float]:
    """The outcome, or None and the seconds that it would take in all."""
    inner = Deadline(deadline, deadline.left)
    pace = _Pace(emit, inner, time.monotonic())
    try:
        return technique.load()(model, samples, options, pace, inner), 0.0
    except TimeUpError:
        deadline.check()
        return None, max(pace.needed, 1e-9)
