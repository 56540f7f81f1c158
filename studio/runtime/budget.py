"""Reading many inner tensors of a network within a memory budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from studio.runtime.session import Session

PART_BYTES = 32 * 2**20
"""Bytes of inner tensors a part of a batch is cut to: fresh memory is slower than the network."""

GROUP_BYTES = 1024 * 2**20
"""Bytes of inner tensors of one sample that are read together."""

Batch = Mapping[str, np.ndarray]


class BudgetedReader:
    """Runs a session so that what is read at once stays small.

    Sizes are learned from the first sample. A batch is cut into parts; where even one sample does
    not fit, the tensors are read in groups. A batch of a model whose batch size is fixed stays
    whole; there the sizes are known from the shapes.
    """

    def __init__(
        self,
        session: Session,
        names: Sequence[str],
        part_bytes: int = PART_BYTES,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self._session = session
        self._names = list(names)
        self._part_bytes = part_bytes
        self._group_bytes = group_bytes
        self._bytes: dict[str, float] = {}
        if session.fixed_batch:
            for name, shape in session.output_shapes().items():
                if name in names:
                    self._bytes[name] = 4 * math.prod(shape) / session.fixed_batch

    def read(self, batch: Batch) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """(part of `batch`, some of its tensors), until every tensor of every sample came.

        The tensors are gone when the next ones are asked for.
        """
        for part in self._parts(batch):
            for names in self._groups(samples(part)):
                values = self._session.run(part, names)
                for name, array in values.items():
                    self._bytes[name] = array.nbytes / samples(part)
                yield part, values
                # The reader's loop still holds the dictionary while the next run needs its memory.
                values.clear()

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        size = samples(batch)
        if self._session.fixed_batch or any(
            array.ndim == 0 or len(array) != size for array in batch.values()
        ):
            yield batch
            return
        start = 0
        while start < size:
            per_sample = sum(self._bytes.values())
            step = max(1, int(self._part_bytes / per_sample)) if per_sample else 1
            yield {name: array[start : start + step] for name, array in batch.items()}
            start += step

    def _groups(self, count: int) -> Iterator[list[str]]:
        group: list[str] = []
        size = 0.0
        for name in self._names:
            needed = count * self._bytes.get(name, 0.0)
            if group and size + needed > self._group_bytes:
                yield group
                group, size = [], 0.0
            group.append(name)
            size += needed
        if group:
            yield group


def samples(batch: Batch) -> int:
    """Number of samples in a batch of inputs (1 if they are single numbers)."""
    return next((len(array) for array in batch.values() if array.ndim), 1)
