"""Samples that are run one by one where tensors are large, side by side where they are small."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from studio.analysis.deviation import DeviationMeter
from studio.analysis.network_parts import Network
from studio.errors import ModelError
from studio.runtime.session import Session

TOGETHER_BYTES = 2 * 2**20
"""Bytes of the widest tensor of a stage for all samples that run together: what a core caches."""

MOST_TOGETHER = 16
"""Samples beyond which a batch brings nothing more."""

SAME_DB = 30.0
"""SQNR from which outputs of samples run together are those of samples run one by one: float
kernels sum in another order, and simulated rounding makes whole steps of that."""


@dataclass
class Part:
    """Some samples: labels, outputs of the float network, those of the network that is run on them
    as far as they are known, and its values in front of the stage it has come to."""

    samples: int
    labels: np.ndarray | None
    expected: list[np.ndarray]
    outputs: list[np.ndarray]
    values: dict[str, np.ndarray]


class SideBySide:
    """Merges parts in front of stages of `network` where that is faster and gives the same.

    Whether samples lie along the first axis of everything is tried, on the first parts.
    """

    def __init__(self, network: Network, stages: Sequence[Session], parts: Sequence[Part]) -> None:
        self._stages = stages
        self._outputs = network.outputs
        widths = [4 * network.widest(stage) for stage in range(len(stages))]
        self._room = []
        for stage in range(len(stages)):
            width = max(widths[stage:])
            room = TOGETHER_BYTES / width if math.isfinite(width) and width else 1
            self._room.append(int(min(max(room, 1), MOST_TOGETHER)))
        self._possible = len(parts) > 1 and all(_along_first_axis(part) for part in parts[:2])
        self._possible = self._possible and not any(session.fixed_batch for session in stages[:1])
        self._possible = self._possible and self._same(parts[:2])

    def merged(self, stage: int, parts: list[Part]) -> list[Part]:
        """`parts`, which are in front of `stage`, as few as are run at once there."""
        room = self._room[stage]
        if not self._possible or room < 2:
            return parts
        result: list[Part] = []
        waiting: list[Part] = []
        for part in parts:
            if waiting and sum(each.samples for each in waiting) + part.samples > room:
                result.append(_joined(waiting))
                waiting = []
            waiting.append(part)
        return [*result, _joined(waiting)] if waiting else result

    def blocks(self, parts: list[Part]) -> Iterator[list[Part]]:
        """As many parts at a time as some stage runs at once."""
        most = max(self._room) if self._possible else 1
        block: list[Part] = []
        for part in parts:
            if block and sum(each.samples for each in block) + part.samples > most:
                yield block
                block = []
            block.append(part)
        if block:
            yield block

    def _same(self, parts: Sequence[Part]) -> bool:
        """True if the network gives for the parts together what it gives for each."""
        together = _joined(parts)
        values = dict(together.values)
        try:
            for session in self._stages:
                values.update(session.run({name: values[name] for name in session.inputs}))
        except ModelError:  # a Reshape to a size that was written down, for one
            return False
        meter = DeviationMeter()
        meter.add(together.outputs, [values[name] for name in self._outputs])
        return meter.result().sqnr_db >= SAME_DB


def _along_first_axis(part: Part) -> bool:
    arrays = (*part.values.values(), *part.expected, *part.outputs)
    return all(array.ndim > 0 and len(array) == part.samples for array in arrays)


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    labels = [part.labels for part in parts if part.labels is not None]
    first = parts[0]
    return Part(
        sum(part.samples for part in parts),
        np.concatenate(labels) if len(labels) == len(parts) else None,
        [_along([part.expected[i] for part in parts]) for i in range(len(first.expected))],
        [_along([part.outputs[i] for part in parts]) for i in range(len(first.outputs))],
        {name: _along([part.values[name] for part in parts]) for name in first.values},
    )


def _along(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays, axis=0)
