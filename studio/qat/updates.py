"""What moves weights and ranges: two optimizers, one schedule, and the average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from studio.qat.options import Optimizer, QatOptions
from studio.qat.schedule import rate_share
from studio.qat.simulation import TrainedSimulation
from studio.runtime.world import World


class Updates:
    """Optimizers of a simulation, stepped together. `step` counts from 0 to `total`."""

    def __init__(self, simulation: TrainedSimulation, options: QatOptions, total: int) -> None:
        self._simulation = simulation
        self._options = options
        self._total = total
        # One value per channel is no direction to shrink: biases, norms, slopes.
        self._trained = simulation.parameters_of_weights()
        decayed = [item for item in self._trained if item.ndim > 1]
        spared = [item for item in self._trained if item.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": options.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._weights = _optimizer(groups, options)
        ranges = [
            {"params": [parameter], "unit": unit}
            for _, quantizer in simulation.learned()
            for parameter, unit in quantizer.units()
        ]
        self._ranges = torch.optim.Adam(ranges, options.range_learning_rate) if ranges else None
        self._average: list[Tensor] = (
            [item.detach().clone() for item in self._trained] if options.average else []
        )

    def rate(self, step: int) -> float:
        """Learning rate of the weights at `step`."""
        share = rate_share(self._options.schedule, self._options.warmup, step, self._total)
        return self._options.weight_rate * share

    def backward(self, loss: Tensor) -> None:
        """The gradients of `loss`, instead of those before."""
        self.no_gradient()
        loss.backward()

    def no_gradient(self) -> None:
        """No gradient at all, instead of those before."""
        for optimizer, _ in self._optimizers():
            optimizer.zero_grad(set_to_none=True)

    def average(self, loss: Tensor, world: World, samples: int) -> None:
        """Make gradients and `loss` those of the samples of all processes, of which this one had
        so many."""
        if world.size == 1:
            return
        trained = [
            parameter
            for optimizer, _ in self._optimizers()
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        world.average([*(item.grad for item in trained), loss], float(samples))

    def apply(self, step: int) -> None:
        """One step down the gradients, the `step`th."""
        options = self._options
        share = rate_share(options.schedule, options.warmup, step, self._total)
        for optimizer, highest in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = highest * share * group.get("unit", 1.0)
        if options.clip_gradient:
            nn.utils.clip_grad_norm_(self._simulation.parameters(), options.clip_gradient)
        frozen = step >= options.freeze_ranges * self._total
        for optimizer, _ in self._optimizers():
            if not (frozen and optimizer is self._ranges):
                optimizer.step()
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        for average, weight in zip(self._average, self._trained, strict=False):
            average.lerp_(weight, 1.0 - self._options.average)

    @torch.no_grad()
    def swap_average(self) -> None:
        """Exchange the weights with their average, where one is kept; again to undo."""
        for average, weight in zip(self._average, self._trained, strict=False):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _optimizers(self) -> Iterator[tuple[torch.optim.Optimizer, float]]:
        yield self._weights, self._options.weight_rate
        if self._ranges is not None:
            yield self._ranges, self._options.range_learning_rate

    # --- checkpoints ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on: nested dictionaries and lists of tensors and numbers."""
        return {
            "weights": self._weights.state_dict(),
            "ranges": None if self._ranges is None else self._ranges.state_dict(),
            "average": list(self._average),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._weights.load_state_dict(state["weights"])
        if self._ranges is not None:
            self._ranges.load_state_dict(state["ranges"])
        for average, known in zip(self._average, state["average"], strict=True):
            average.copy_(known)


def _optimizer(groups: list[dict[str, Any]], options: QatOptions) -> torch.optim.Optimizer:
    rate = options.weight_rate
    match options.optimizer:
        case Optimizer.SGD:
            return torch.optim.SGD(groups, rate, momentum=options.momentum, foreach=True)
        case Optimizer.ADAM:
            return torch.optim.Adam(groups, rate)
        case Optimizer.ADAMW:
            return torch.optim.AdamW(groups, rate)
