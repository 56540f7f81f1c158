"""Samples for a model whose batch size is fixed: whole batches only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from studio.data.dataset import Batch, Cancel, Dataset
from studio.errors import DataError


class WholeBatches:
    """`source` without the samples that do not fill a batch of `size`; `warnings` say how many.

    Raises DataError if there is no full batch.
    """

    def __init__(self, source: Dataset, size: int) -> None:
        self._source = source
        self._size = size
        self._dropped = ""
        if len(source) < size:
            raise self._too_few(len(source))
        self._note(len(source) % size)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def has_labels(self) -> bool:
        return self._source.has_labels

    @property
    def synthetic(self) -> bool:
        return self._source.synthetic

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self._source.warnings, *([self._dropped] if self._dropped else []))

    def __len__(self) -> int:
        return len(self._source) // self._size * self._size

    def subset(self, count: int) -> WholeBatches:
        """The most whole batches that `count` samples fill, and at least one."""
        whole = max(min(count, len(self)) // self._size, 1) * self._size
        if whole == len(self):
            return self
        return WholeBatches(self._source.subset(whole), self._size)

    def select(self, positions: np.ndarray) -> WholeBatches:
        """The samples at `positions`, as far as they fill whole batches."""
        return WholeBatches(self._source.select(positions), self._size)

    def batches(
        self,
        batch_size: int,
        *,
        limit: int | None = None,
        seed: int | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[Batch]:
        delivered = 0
        for batch in self._source.batches(self._size, limit=limit, seed=seed, cancel=cancel):
            if len(batch) == self._size:
                delivered += 1
                yield batch
            elif not delivered:
                raise self._too_few(len(batch))
            else:
                self._note(len(batch))

    def _note(self, left_out: int) -> None:
        if left_out:
            self._dropped = (
                f"The model takes batches of exactly {self._size} samples: the last {left_out} of "
                f"{self.name} were left out."
            )

    def _too_few(self, found: int) -> DataError:
        return DataError(
            f"The model takes batches of exactly {self._size} samples; {self.name} has {found}.",
            f"Give at least {self._size} samples, or export the model with a dynamic batch size.",
        )
