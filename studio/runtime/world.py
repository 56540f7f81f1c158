"""Work shared by several processes, as `torchrun` starts them; one process is a world of one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process is `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """True for the process that prints and writes."""
        return self.rank == 0

    def share(self, positions: np.ndarray, batch_size: int) -> np.ndarray:
        """Those of `positions` that this process reads: of its batches every `size`th.

        The n-th batches of all processes together are the n-th `size * batch_size` positions.
        """
        if self.size == 1:
            return positions
        import numpy as np

        batch = np.arange(len(positions)) // batch_size
        return positions[batch % self.size == self.rank]

    def average(self, tensors: list[Tensor], weight: float) -> None:
        """Replace each of `tensors` by its mean over the processes, weighted by their `weight`."""
        if self.size == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        flat = torch.cat([flat * weight, flat.new_tensor([weight])])
        dist.all_reduce(flat)
        flat = flat[:-1] / flat[-1].clamp(min=1e-12)
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def total(self, numbers: list[float]) -> list[float]:
        """Each of `numbers` summed over the processes, in float64."""
        if self.size == 1:
            return numbers
        import torch
        import torch.distributed as dist

        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def told_by_all(self, item: Any) -> list[Any]:
        """The `item` of each process by rank, in all of them."""
        if self.size == 1:
            return [item]
        import torch.distributed as dist

        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item)
        return items

    def gathered(self, item: Any) -> list[Any]:
        """The `item` of each process by rank, in the first process; nothing in the others."""
        if self.size == 1:
            return [item]
        import torch.distributed as dist

        items: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(item, items)
        return items or []

    def told(self, item: Any) -> Any:
        """The `item` of the first process, in all of them."""
        if self.size == 1:
            return item
        import torch.distributed as dist

        items = [item]
        dist.broadcast_object_list(items)
        return items[0]


ALONE = World()
"""One process."""


def started_by_torchrun() -> bool:
    """True if this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """True unless torchrun started this process as another than the first."""
    return not started_by_torchrun() or os.environ.get("RANK", "0") == "0"


def join_world() -> World:
    """This process among those that torchrun started, which talk over gloo, and over nccl about
    what is on CUDA. Every one of them has to call it."""
    if not started_by_torchrun():
        return ALONE
    import atexit

    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return World(dist.get_rank(), dist.get_world_size())


def local_rank() -> int:
    """Which of the processes on this machine this one is: the number of its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
