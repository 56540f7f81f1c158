"""What is read in an epoch: the order of the data, the part of this process, augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from studio.data.augment import augment
from studio.data.dataset import Batch, Dataset, reading_order
from studio.errors import ConfigError
from studio.jobs.events import CancelToken, Emit, Warned
from studio.qat.options import QatOptions
from studio.runtime.world import World


class TrainingBatches:
    """Batches of `data`, of which this process computes `size` samples each and all processes
    `together`; `count` in an epoch. `size` is `fixed` where the model takes no other.

    Raises ConfigError if the processes cannot share a batch.
    """

    def __init__(
        self,
        data: Dataset,
        options: QatOptions,
        world: World,
        cancel: CancelToken,
        fixed: int | None,
    ) -> None:
        self.data, self.options, self.world, self.cancel = data, options, world, cancel
        self.size = fixed or _own_share(options.batch_size, world)
        self.together = self.size * world.size
        self.count = -(-len(data) // self.together)

    def of_epoch(self, epoch: int, done: int, emit: Emit) -> Iterator[Batch | None]:
        """This process's part of the batches of an epoch, the first `done` left out; None where
        nothing is left for it. What went wrong in reading is told at the end."""
        order = reading_order(len(self.data), None, self.options.seed * 100_003 + epoch)
        mine = self.world.share(order, self.size)[done * self.size :]
        found: Iterator[Batch] = iter(())
        part = self.data.select(mine) if len(mine) else None
        if part is not None:
            found = part.batches(self.size, cancel=self.cancel)
        for _ in range(done, self.count):
            batch = next(found, None)
            yield batch and _augmented(batch, self.options, epoch, mine[batch.indices])
        for warning in part.warnings if part is not None else ():
            emit(Warned(warning))

    def some_inputs(self, batches: int) -> Iterator[Mapping[str, np.ndarray]]:
        """Inputs of so many batches spread over the data, unchanged, the same in all processes."""
        some = self.data.subset(batches * self.size)
        return (batch.inputs for batch in some.batches(self.size, cancel=self.cancel))


def _own_share(batch_size: int, world: World) -> int:
    """The samples of a batch that each process computes."""
    if batch_size % world.size:
        raise ConfigError(
            f"A batch of {batch_size} samples cannot be shared by {world.size} processes.",
            f"Choose a batch_size that is a multiple of {world.size}.",
        )
    return batch_size // world.size


def _augmented(batch: Batch, options: QatOptions, epoch: int, positions: np.ndarray) -> Batch:
    """`batch`, the samples at `positions` of the data, changed as is drawn for each of them."""
    if not (options.flip or options.crop or options.color):
        return batch
    seeds = [(options.seed, epoch, int(position)) for position in positions]
    inputs = {
        name: augment(array, seeds, flip=options.flip, crop=options.crop, color=options.color)
        if array.ndim == 4 and array.dtype == np.float32
        else array
        for name, array in batch.inputs.items()
    }
    return replace(batch, inputs=inputs)
