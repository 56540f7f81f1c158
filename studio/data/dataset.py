"""What every source of samples offers, and the batches it yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class InputSpec:
    """One model input: `shape` with its batch axis, None where a size is dynamic.

    `batch` is the axis along which samples lie; None if the input is the same for all samples, or
    the model takes no batches.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    batch: int | None = 0

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """The shape of one sample."""
        return tuple(size for axis, size in enumerate(self.shape) if axis != self.batch)


@dataclass(frozen=True)
class Batch:
    """`inputs`: model input name -> array, n samples along its batch axis; `labels`: (n, ...) int64
    or float32 or None, class indices where they are (n,) int64; `indices`: (n,) int64 positions of
    the samples in the dataset."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


class Cancel(Protocol):
    """Anything whose `check` raises once the work shall stop, such as a job's CancelToken."""

    def check(self) -> None: ...


@runtime_checkable
class Dataset(Protocol):
    """Samples in a fixed order.

    `synthetic` is True for random data: everything made from it must say so. `warnings` are
    things the user should know, and may grow while batches are read.
    """

    @property
    def name(self) -> str: ...

    @property
    def has_labels(self) -> bool: ...

    @property
    def synthetic(self) -> bool: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def subset(self, count: int) -> Dataset:
        """`count` samples spread evenly over the whole (all, if there are no more)."""
        ...

    def select(self, positions: np.ndarray) -> Dataset:
        """The samples at `positions` (int64), in that order."""
        ...

    def batches(
        self,
        batch_size: int,
        *,
        limit: int | None = None,
        seed: int | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[Batch]:
        """Batches of `batch_size` samples, the last one may be smaller.

        At most the first `limit` samples, in the dataset's order or, with `seed`, in an order
        shuffled by it (shuffled first, then limited). `cancel` is checked before every batch.
        Raises DataError for samples that cannot be used.
        """
        ...


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Positions i * total // count of `count` samples among `total`, as int64.

    In a list sorted by class this takes the same share of every class. Deterministic.
    """
    count = min(count, total)
    return np.arange(count, dtype=np.int64) * total // max(count, 1)


def reading_order(total: int, limit: int | None, seed: int | None) -> np.ndarray:
    """Positions in the order `Dataset.batches` reads them."""
    order = np.arange(total, dtype=np.int64)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    return order[:limit]
