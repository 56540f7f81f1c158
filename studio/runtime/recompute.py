"""Gradients with less memory: a plan in segments, whose insides are computed again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from studio.runtime.steps import Plan, Step, run_steps


@dataclass(frozen=True)
class Segment:
    """Steps that are taken together, the slots they read from outside, and those read later."""

    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    gives: tuple[int, ...]


def run_again(plan: Plan, values: Mapping[str, Any], device: torch.device) -> list[Any]:
    """What `plan.run` gives. For the gradient only what passes from segment to segment is kept;
    each segment is run again when its gradient is due."""
    slots = plan.filled(values)

    def run(segment: Segment, *given: Any) -> tuple[Any, ...]:
        inner: list[Any] = [None] * plan.size
        for slot, value in zip(segment.reads, given, strict=True):
            inner[slot] = value
        run_steps(segment.steps, inner, device)
        return tuple(inner[slot] for slot in segment.gives)

    for segment in segments(plan):
        given = [slots[slot] for slot in segment.reads]
        # A segment is run to its end: to stop early torch raises what looks like a failing step.
        with set_checkpoint_early_stop(False):
            found = checkpoint(run, segment, *given, use_reentrant=False)
        for step in segment.steps:
            for slot in step.free:
                slots[slot] = None
        for slot, value in zip(segment.gives, found, strict=True):
            slots[slot] = value
        del given, found
    return [slots[slot] for _, slot in plan.results]


def segments(plan: Plan) -> list[Segment]:
    """About sqrt(n) segments of the n steps, cut near equal lengths where the fewest values
    pass."""
    steps = plan.steps
    passing = _passing(plan)
    count = max(round(math.sqrt(len(steps))), 1)
    cuts = [0]
    for number in range(1, count):
        middle = number * len(steps) // count
        near = max(len(steps) // (2 * count) - 1, 0)
        places = range(max(middle - near, cuts[-1] + 1), min(middle + near + 1, len(steps)))
        if places:
            cuts.append(min(places, key=lambda place: (passing[place], abs(place - middle))))
    cuts.append(len(steps))
    return [_segment(plan, start, end) for start, end in pairwise(cuts)]


def _passing(plan: Plan) -> list[int]:
    """How many computed values are alive before each step."""
    alive: set[int] = set()
    counts = []
    for step in plan.steps:
        counts.append(len(alive))
        alive |= {slot for _, slot, _, _ in step.outputs}
        alive -= set(step.free)
    return counts


def _segment(plan: Plan, start: int, end: int) -> Segment:
    steps = plan.steps[start:end]
    made: set[int] = set()
    reads: dict[int, None] = {}
    for step in steps:
        reads |= dict.fromkeys(slot for slot in step.inputs if slot >= 0 and slot not in made)
        made |= {slot for _, slot, _, _ in step.outputs}
    later = {slot for step in plan.steps[end:] for slot in step.inputs}
    later |= {slot for _, slot in plan.results}
    return Segment(steps, tuple(reads), tuple(sorted(made & later)))
