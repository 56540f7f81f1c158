"""What training makes small, for a batch of outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import ConfigError

Loss = Callable[[Sequence[Tensor], Tensor | None], Tensor]
"""Outputs of the model in order and the labels of the batch (None without) -> a scalar, the mean
over samples."""


def cross_entropy(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Of the first output, class scores (batch, classes, ...), and int64 labels (batch, ...)."""
    return F.cross_entropy(outputs[0], _known(labels, "cross_entropy"))


def binary(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Binary cross-entropy of the first output, logits, and labels 0 or 1 of the same shape."""
    scores = outputs[0]
    known = _known(labels, "binary").to(scores.dtype)
    return F.binary_cross_entropy_with_logits(scores, known.reshape(scores.shape))


def mse(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Mean squared error of the first output."""
    known = _known(labels, "mse").to(outputs[0].dtype)
    return F.mse_loss(outputs[0], known.reshape(outputs[0].shape))


def l1(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Mean absolute error of the first output."""
    known = _known(labels, "l1").to(outputs[0].dtype)
    return F.l1_loss(outputs[0], known.reshape(outputs[0].shape))


def segmentation(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Cross-entropy of every pixel: scores (batch, classes, height, width), labels (batch, height,
    width), 255 for pixels that do not count."""
    scores, known = outputs[0], _known(labels, "segmentation")
    if scores.shape[2:] != known.shape[1:]:
        scores = F.interpolate(scores, known.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(scores, known, ignore_index=255)


def ctc(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006) of the first output, scores
    (batch, time, classes) with the blank first, and labels (batch, length) filled up with 0."""
    scores, known = outputs[0], _known(labels, "ctc")
    steps = torch.full((len(scores),), scores.shape[1], dtype=torch.int64)
    lengths = (known != 0).sum(1)
    return F.ctc_loss(F.log_softmax(scores, 2).transpose(0, 1), known, steps, lengths.cpu())


def greedy_labels(scores: Tensor) -> list[list[int]]:
    """The labels of the best path of each sample, repetitions and blanks (0) taken out, of scores
    (batch, time, classes)."""
    paths = (torch.unique_consecutive(row) for row in scores.argmax(2).cpu())
    return [path[path != 0].tolist() for path in paths]


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "binary": binary,
    "mse": mse,
    "l1": l1,
    "segmentation": segmentation,
    "ctc": ctc,
}


def distillation(
    outputs: Sequence[Tensor], targets: Sequence[Tensor], temperature: float
) -> Tensor:
    """The distance of `outputs` to those of the float model.

    Of class scores (batch, classes) the Kullback-Leibler divergence at `temperature`, times its
    square (Hinton et al. 2015, arXiv 1503.02531); of all else the squared error relative to the
    variance of the target. Outputs that are no floats are left out.
    """
    losses = []
    for output, target in zip(outputs, targets, strict=True):
        if not target.is_floating_point():
            continue
        if target.ndim == 2 and target.shape[1] > 1:
            soft = F.log_softmax(output / temperature, 1)
            wanted = F.log_softmax(target / temperature, 1)
            part = F.kl_div(soft, wanted, reduction="batchmean", log_target=True)
            losses.append(part * temperature**2)
        else:
            spread = target.var(correction=0).clamp(min=1e-12)
            losses.append(F.mse_loss(output, target) / spread)
    return torch.stack(losses).mean()


def _known(labels: Tensor | None, loss: str) -> Tensor:
    if labels is None:
        raise ConfigError(
            f"The loss {loss} needs labels, and the data has none.",
            "Choose data with labels, or the loss 'distillation'.",
        )
    return labels
