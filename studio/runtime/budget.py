"""Reading many inner tensors of a network within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from studio.runtime.session import Session

MEMORY_BUDGET = 512 * 2**20
"""Bytes of inner tensors held at once."""

Batch = Mapping[str, np.ndarray]


class BudgetedReader:
    """Runs a session so that what is read at once fits `MEMORY_BUDGET`.

    Sizes are learned from the first sample. A batch is cut into parts; where even one sample does
    not fit, the tensors are read in groups.
    """

    def __init__(self, session: Session, names: Sequence[str], budget: int = MEMORY_BUDGET) -> None:
        self._session = session
        self._names = list(names)
        self._budget = budget
        self._bytes: dict[str, float] = {}

    def read(self, batch: Batch) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """(part of `batch`, some of its tensors), until every tensor of every sample came."""
        for part in self._parts(batch):
            for names in self._groups():
                values = self._session.run(part, names)
                for name, array in values.items():
                    self._bytes[name] = array.nbytes / samples(part)
                yield part, values
                del values

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        size = samples(batch)
        if any(len(array) != size for array in batch.values()):
            yield batch
            return
        start = 0
        while start < size:
            per_sample = sum(self._bytes.values())
            step = max(1, int(self._budget / per_sample)) if per_sample else 1
            yield {name: array[start : start + step] for name, array in batch.items()}
            start += step

    def _groups(self) -> Iterator[list[str]]:
        group: list[str] = []
        size = 0.0
        for name in self._names:
            needed = self._bytes.get(name, 0.0)
            if group and size + needed > self._budget:
                yield group
                group, size = [], 0.0
            group.append(name)
            size += needed
        if group:
            yield group


def samples(batch: Batch) -> int:
    """Number of samples in a batch of inputs."""
    return len(next(iter(batch.values())))
