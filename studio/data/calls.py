"""Calls of a model as a dataset, where the samples do not lie along one axis of all inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np

from studio.data.arrays import check_type, fits, open_members
from studio.data.dataset import Batch, Cancel, InputSpec, evenly_spaced, reading_order
from studio.data.preprocess import format_shape
from studio.errors import DataError

Call = Mapping[str, np.ndarray] | Path
"""Model input name -> the whole array, or a `.npz` file of these."""


class Calls:
    """Each sample is one call of the model: all its inputs, whole.

    For graphs (nodes and edges have sizes of their own), and sequences or pictures of different
    sizes. A batch is always one call.
    """

    has_labels = False
    synthetic = False
    warnings: tuple[str, ...] = ()

    def __init__(self, name: str, calls: Sequence[Call], specs: Sequence[InputSpec]) -> None:
        if not calls:
            raise DataError(f"{name} holds no sample.", "Choose other data.")
        self.name = name
        self._calls = list(calls)
        self._specs = tuple(specs)
        for number, call in enumerate(self._calls):
            if not isinstance(call, Path):
                self._read(number)

    def __len__(self) -> int:
        return len(self._calls)

    def subset(self, count: int) -> Calls:
        """`count` calls spread evenly over all."""
        return self.select(evenly_spaced(len(self), count))

    def select(self, positions: np.ndarray) -> Calls:
        """The calls at `positions`, in that order."""
        part = copy(self)
        part._calls = [self._calls[index] for index in positions]
        return part

    def batches(
        self,
        batch_size: int,
        *,
        limit: int | None = None,
        seed: int | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[Batch]:
        """One call after the other, whatever the `batch_size`."""
        for index in reading_order(len(self), limit, seed):
            if cancel is not None:
                cancel.check()
            yield Batch(self._read(int(index)), None, np.array([index]))

    def _read(self, number: int) -> dict[str, np.ndarray]:
        call = self._calls[number]
        where = call.name if isinstance(call, Path) else f"{self.name}, call {number}"
        arrays = open_members(call) if isinstance(call, Path) else call
        inputs = {}
        for spec in self._specs:
            if spec.name not in arrays:
                raise DataError(
                    f"{where}: no array for the model input {spec.name!r}; there is "
                    f"{', '.join(map(repr, arrays)) or 'none'}.",
                    "Give one array for each model input, under the input's name.",
                )
            array = np.ascontiguousarray(arrays[spec.name]).reshape(arrays[spec.name].shape)
            if not fits(array.shape, spec.shape):
                raise DataError(
                    f"{where}: the array for {spec.name!r} has shape {format_shape(array.shape)}, "
                    f"the model input has {format_shape(spec.shape)}.",
                    "Give each input as the model takes it in one call.",
                )
            check_type(where, array, spec)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(
                    f"{where}: {spec.name!r} has NaN or infinite values.",
                    "Remove or correct this call.",
                )
            inputs[spec.name] = array.astype(spec.dtype, copy=False)
        return inputs


def share_a_batch(specs: Sequence[InputSpec]) -> bool:
    """True if samples can be put together in batches."""
    return any(spec.batch is not None for spec in specs)


def call_files(folder: Path) -> list[Path]:
    """The `.npz` files of a folder, each of which is one call; sorted by name."""
    return sorted(folder.glob("*.npz"))
