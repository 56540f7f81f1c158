"""What a training is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from studio.analysis.evaluate import class_scores
from studio.data.dataset import Batch, Dataset
from studio.qat.losses import Loss, greedy_labels
from studio.qat.simulation import TrainedSimulation
from studio.qat.teacher import Teacher
from studio.runtime.world import ALONE, World
from studio.sim.quantized_model import QuantizedModel


def measure(
    simulation: TrainedSimulation,
    model: QuantizedModel,
    data: Dataset,
    batch_size: int,
    *,
    loss: tuple[str, Loss] | None = None,
    world: World = ALONE,
) -> tuple[str, float]:
    """Name and value of what the simulation reaches on `data`, higher is better.

    Of class scores with a class index for each sample top-1 in percent; else of a `loss` by name
    the share of pixels (segmentation) or of sequences (ctc) that are right in percent, or the loss
    times -1; without one the SQNR in dB of the outputs against float.
    """
    simulation.eval()
    name, sums = "SQNR", np.zeros(2)  # what is right or signal, and of how much or noise
    teacher: Teacher | None = None
    mine = world.share(np.arange(len(data)), batch_size)
    with torch.inference_mode():
        for batch in data.select(mine).batches(batch_size) if len(mine) else ():
            outputs = simulation(tensors(batch.inputs, simulation.device))
            scores = class_scores(outputs[0].float().cpu().numpy())
            if batch.labels is not None and scores is not None and batch.labels.ndim == 1:
                name = "top-1"
                sums += float((scores.argmax(1) == batch.labels).sum()), len(batch)
            elif loss is not None:
                name, part = _by_loss(*loss, outputs, batch)
                sums += part
            else:
                teacher = teacher or Teacher(model.graph, torch.device("cpu"))
                wanted = teacher(batch.inputs)[0].numpy().astype(np.float64)
                output = outputs[0].float().cpu().numpy()
                sums += np.square(wanted).sum(), np.square(wanted - output).sum()
    simulation.train()
    name = world.told(name)
    first, second = world.total(sums.tolist())
    if name == "SQNR":
        return name, 10 * float(np.log10(max(first, 1e-30) / max(second, 1e-30)))
    share = first / max(second, 1.0)
    return name, share if name.startswith("-") else 100 * share


def _by_loss(
    name: str, loss: Loss, outputs: Sequence[Tensor], batch: Batch
) -> tuple[str, tuple[float, float]]:
    """Name of the measure, what the batch adds to it, and out of how much."""
    assert batch.labels is not None
    labels = torch.from_numpy(batch.labels).to(outputs[0].device)
    if name == "segmentation" and outputs[0].shape[2:] == labels.shape[1:]:
        known = labels != 255
        hits = (outputs[0].argmax(1) == labels) & known
        return "pixels", (float(hits.sum()), float(known.sum()))
    if name == "ctc":
        found = greedy_labels(outputs[0])
        wanted = [row[row != 0].tolist() for row in labels]
        right = sum(mine == truth for mine, truth in zip(found, wanted, strict=True))
        return "sequences", (float(right), float(len(wanted)))
    value = float(loss(outputs, labels))
    return f"-{name}", (-value * len(batch), float(len(batch)))


def tensors(inputs: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """The arrays of a batch on `device`."""
    return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
