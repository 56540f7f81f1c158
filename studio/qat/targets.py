"""Which losses a training makes small, from its options and data."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from studio.data.dataset import Dataset
from studio.errors import ConfigError, ConsentRequiredError
from studio.graph.model import ModelGraph
from studio.qat.losses import LOSSES, Loss, distillation
from studio.qat.options import QatOptions
from studio.qat.teacher import Teacher


@dataclass(frozen=True)
class Objective:
    """`distillation` is the share of the distance to the float model, `loss` that of the rest."""

    loss: Loss | None
    distillation: float
    name: str = ""

    def of(self, outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The loss; ConfigError if it cannot do with these outputs and labels."""
        assert self.loss is not None
        try:
            return self.loss(outputs, labels)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            known = "no labels" if labels is None else f"{labels.dtype} {list(labels.shape)}"
            raise ConfigError(
                f"The loss {self.name} fails on the output {list(outputs[0].shape)} and the labels "
                f"{known.removeprefix('torch.')}: {error}",
                "Choose the loss that fits the labels, or 'distillation', which needs none.",
            ) from error

    @property
    def named(self) -> tuple[str, Loss] | None:
        """Name and function of the loss that compares with labels."""
        return None if self.loss is None else (self.name, self.loss)


def objective(options: QatOptions, data: Dataset) -> Objective:
    """ConfigError for an unknown loss or one that needs labels the data lack;
    ConsentRequiredError for a function of the user's own without `trust`."""
    name = options.loss
    default = 1.0 if name == "auto" else 0.5
    share = default if options.distillation is None else options.distillation
    if name == "distillation" or (name == "auto" and not data.has_labels):
        return Objective(None, 1.0)
    if name == "auto":
        name = "cross_entropy"
    if ":" in name:
        return Objective(_own(name, options.trust), share, name.rpartition(":")[2])
    if name not in LOSSES:
        known = ", ".join(["auto", *LOSSES, "distillation"])
        raise ConfigError(f"There is no loss {name!r}.", f"Losses: {known}, or file.py:function.")
    if not data.has_labels:
        raise ConfigError(
            f"The loss {name} needs labels, and {data.name} has none.",
            "Choose data with labels, or the loss 'distillation'.",
        )
    return Objective(LOSSES[name], share, name)


class Target:
    """The loss of a training of `graph` on `data`, with the float model where that is followed.
    Raises as `objective`."""

    def __init__(
        self, options: QatOptions, data: Dataset, graph: ModelGraph, device: torch.device
    ) -> None:
        self._objective = objective(options, data)
        self._temperature = options.temperature
        self._teacher = Teacher(graph, device) if self._objective.distillation > 0 else None

    @property
    def named(self) -> tuple[str, Loss] | None:
        """Name and function of the loss that compares with labels."""
        return self._objective.named

    def loss(
        self, outputs: list[Tensor], labels: Tensor | None, inputs: Mapping[str, np.ndarray]
    ) -> Tensor:
        """The loss of `outputs` for `inputs`, ()."""
        goal = self._objective
        share = goal.distillation
        loss = outputs[0].new_zeros(())
        if self._teacher is not None:
            loss = share * distillation(outputs, self._teacher(inputs), self._temperature)
        if goal.loss is not None and share < 1:
            loss = loss + (1 - share) * goal.of(outputs, labels)
        return loss


def _own(text: str, trust: bool) -> Loss:
    """The function `file.py:function`, run from the user's file."""
    file, _, function = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"There is no file {path} for the loss.", "Check the path.")
    if not trust:
        raise ConsentRequiredError(
            f"The loss {text} is Python code of your own.", "Allow it to run with trust."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path} fails: {type(error).__name__}: {error}.", "Mend it.") from None
    loss = getattr(module, function, None)
    if not callable(loss):
        raise ConfigError(f"{path} has no function {function!r}.", "Check the name.")
    return loss
