"""Random samples, for trying a model out without data. Only ever on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np

from studio.data.calls import share_a_batch
from studio.data.dataset import Batch, Cancel, InputSpec, reading_order
from studio.data.preprocess import DYNAMIC_SIDE
from studio.errors import DataError

DYNAMIC_LENGTH = 16


class RandomData:
    """`count` samples: standard normal for float inputs, 0 or 1 for integer and boolean ones.

    Sample i depends on `seed` and i alone, not on the batch size. A dynamic dimension becomes 224
    in inputs of four dimensions and 16 in others. A model that takes no batches gets one sample at
    a time. Raises DataError for an input that is a single number: any would not do.
    """

    name = "random data"
    has_labels = False
    synthetic = True
    warnings = ("The data is random: its results say nothing about the model's accuracy.",)

    def __init__(self, specs: Sequence[InputSpec], count: int, seed: int = 0) -> None:
        self._specs = tuple(specs)
        single = [spec.name for spec in specs if spec.batch is None and set(spec.shape) <= {1}]
        if single:
            raise DataError(
                f"Random data cannot stand for the input {single[0]!r}, which is a single number.",
                f"Fix its value for good with --fix {single[0]}=VALUE, or give data with it.",
            )
        self._batches = share_a_batch(specs)
        self._picked = np.arange(count)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._picked)

    def subset(self, count: int) -> RandomData:
        """The first `count` samples."""
        return self.select(np.arange(min(count, len(self))))

    def select(self, positions: np.ndarray) -> RandomData:
        """The samples at `positions`, in that order."""
        part = copy(self)
        part._picked = self._picked[positions]
        return part

    def batches(
        self,
        batch_size: int,
        *,
        limit: int | None = None,
        seed: int | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[Batch]:
        order = reading_order(len(self), limit, seed)
        batch_size = batch_size if self._batches else 1
        for start in range(0, len(order), batch_size):
            if cancel is not None:
                cancel.check()
            indices = order[start : start + batch_size]
            samples = [self._sample(int(self._picked[index])) for index in indices]
            inputs = {
                spec.name: samples[0][position]
                if spec.batch is None
                else np.stack([sample[position] for sample in samples], spec.batch)
                for position, spec in enumerate(self._specs)
            }
            yield Batch(inputs, None, indices)

    def _sample(self, index: int) -> list[np.ndarray]:
        random = np.random.default_rng((self._seed, index))
        arrays = []
        for spec in self._specs:
            dynamic = DYNAMIC_SIDE if len(spec.shape) == 4 else DYNAMIC_LENGTH
            shape = tuple(dynamic if side is None else side for side in spec.sample_shape)
            is_float = spec.dtype.kind == "f"
            values: np.ndarray = (
                random.standard_normal(shape, np.float32)
                if is_float
                else random.integers(0, 2, shape)
            )
            arrays.append(values.astype(spec.dtype))
        return arrays
