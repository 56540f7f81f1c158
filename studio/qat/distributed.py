"""Training over several processes, as `torchrun` starts them; one process is a world of one."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studio.data.dataset import Batch


@dataclass(frozen=True)
class World:
    """This process is `rank` of `size`."""

    rank: int = 0
    size: int = 1

    def share(self, batch: Batch) -> Batch:
        """The samples of a batch that this process computes; those of all make up the batch."""
        if self.size == 1:
            return batch
        mine = np.arange(self.rank, len(batch), self.size)
        inputs = {name: array[mine] for name, array in batch.inputs.items()}
        labels = None if batch.labels is None else batch.labels[mine]
        return Batch(inputs, labels, batch.indices[mine])

    def average(self, tensors: list[Tensor], weight: float) -> None:
        """Replace each of `tensors` by its mean over the processes, weighted by their `weight`."""
        if self.size == 1 or not tensors:
            return
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        flat = torch.cat([flat * weight, flat.new_tensor([weight])])
        dist.all_reduce(flat)
        flat, total = flat[:-1] / flat[-1], 0
        for tensor in tensors:
            tensor.copy_(flat[total : total + tensor.numel()].view_as(tensor))
            total += tensor.numel()


def started_by_torchrun() -> bool:
    """True if this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join_world(device: torch.device) -> World:
    """This process among those that torchrun started: gloo on the CPU, nccl on CUDA."""
    import torch.distributed as dist

    if not started_by_torchrun():
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size())
