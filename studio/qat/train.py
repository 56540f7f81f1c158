"""Quantization-aware training: the loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.data.dataset import Batch
from studio.data.split import kept_apart
from studio.errors import ConfigError
from studio.jobs.events import CancelToken, Emit, TrainingResult, Warned, silent
from studio.qat import checkpoint as checkpoints
from studio.qat.batches import TrainingBatches
from studio.qat.falling_bits import phase_at, with_bits_of
from studio.qat.measure import measure, tensors
from studio.qat.options import BatchNorm, QatOptions
from studio.qat.simulation import TrainedSimulation
from studio.qat.targets import Target
from studio.qat.telling import Teller
from studio.qat.updates import Updates
from studio.runtime.world import join_world, local_rank
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Samples

SAVED_EVERY = 60.0
"""Seconds between checkpoints within an epoch."""

ESTIMATED_ON = 50
"""Batches that statistics of BatchNormalization are estimated on."""


def train(
    model: QuantizedModel,
    samples: Samples,
    options: QatOptions,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Outcome:
    """Train the weights of `model`, and its ranges where asked, on `samples.training`.

    With `options.checkpoints` a training that was cut off goes on where its last checkpoint is, if
    model, data and options are the same. Raises ConfigError and DataError.
    """
    return _Training(model, samples, options, emit, cancel or CancelToken()).run()


class _Training:
    """One run. `step` counts batches over all epochs."""

    def __init__(
        self,
        model: QuantizedModel,
        samples: Samples,
        options: QatOptions,
        emit: Emit,
        cancel: CancelToken,
    ) -> None:
        self.options, self.emit, self.cancel = options, emit, cancel
        self.start = model
        self.device = torch.device(_device(options.device))
        self.world = join_world()
        data, self.validation = samples.training, samples.validation
        if not samples.apart:
            data, self.validation = kept_apart(
                samples.training, options.validation, samples.batch_size or 1
            )
        self.batches = TrainingBatches(data, options, self.world, self.cancel, samples.batch_size)
        self.total = options.epochs * self.batches.count
        self.target = Target(options, data, model.graph, self.device)
        self.teller = Teller(emit, self.total, options.epochs)
        self.step = 0
        self.losses: list[float] = []
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.waiting = 0
        self._saved = time.monotonic()
        torch.manual_seed(options.seed)
        self.phase = -1
        self._enter_phase(model)

    def run(self) -> Outcome:
        first = self._resume()
        self.teller.ranges(self.step, self.simulation)
        for epoch in range(first, self.options.epochs):
            self._train_epoch(epoch)
            if self._measure(epoch):
                break
            self._save()
        return self._outcome()

    def _phase(self) -> int:
        return phase_at(self.step, self.total, self.options.bits_first)

    def _enter_phase(self, model: QuantizedModel) -> None:
        """Simulate `model` with the weight bits of this phase."""
        self.phase = self._phase()
        self.simulation = TrainedSimulation(
            with_bits_of(model, self.phase, self.options.bits_first),
            self.options.ranges,
            self.device,
            keep_norms=self.options.batch_norm is BatchNorm.TRAINED,
            recompute=self.options.recompute,
        )
        if len(self.simulation.norms):
            self.simulation.start_norms(self.batches.some_inputs(ESTIMATED_ON))
        self.updates = Updates(self.simulation, self.options, self.total)

    # --- statistics of norms that are kept ------------------------------------------------------

    def _freezing(self) -> bool:
        due = self.step >= self.options.freeze_batch_norm * self.total
        return bool(len(self.simulation.norms)) and due and not self.simulation.norms_are_frozen

    def _settle_norms(self) -> None:
        """Before a measurement, and before the statistics are frozen."""
        if len(self.simulation.norms):
            self.simulation.estimate_norms(self.batches.some_inputs(ESTIMATED_ON))
            if self._freezing():
                self.simulation.freeze_norms()

    # --- one epoch ------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int) -> None:
        self.simulation.train()
        done = self.step - epoch * self.batches.count
        for batch in self.batches.of_epoch(epoch, done, self.emit):
            self.cancel.check()
            if self._phase() != self.phase:
                self._enter_phase(self._trained(self.simulation.state_dict()))
            if self._freezing():
                self._settle_norms()
            started = time.monotonic()
            loss = self._train_batch(batch)
            self.step += 1
            self.losses.append(loss)
            rate = self.updates.rate(self.step - 1)
            self.teller.step(self.step, epoch, loss, rate, time.monotonic() - started)
            self.teller.ranges(self.step, self.simulation, always=False)
            if time.monotonic() - self._saved > SAVED_EVERY:
                self._save()

    def _train_batch(self, batch: Batch | None) -> float:
        """One step; the mean loss over all processes."""
        if batch is None:
            self.updates.no_gradient()
            mean = torch.zeros((), device=self.device)
        else:
            mean = self._backward(batch)
        self.updates.average(mean, self.world, 0 if batch is None else len(batch))
        self.updates.apply(self.step)
        return float(mean)

    def _backward(self, batch: Batch) -> Tensor:
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(self.device)
        enabled = self.options.mixed_precision
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            outputs = self.simulation(tensors(batch.inputs, self.device))
        outputs = [item.float() if item.is_floating_point() else item for item in outputs]
        loss = self.target.loss(outputs, labels, batch.inputs)
        if not bool(torch.isfinite(loss)):
            raise ConfigError(
                f"The loss is not finite any more at step {self.step + 1}.",
                "Use a lower learning rate, or limit the gradient (clip_gradient).",
            )
        self.updates.backward(loss)
        return loss.detach().clone()

    # --- measuring ------------------------------------------------------------------------------

    def _measure(self, epoch: int) -> bool:
        """Measure the simulation, remember the best; True if it has not got better for long."""
        self.updates.swap_average()
        self._settle_norms()
        metric, value = self._measured(self.simulation)
        better = self.best is None or value > self.best[0]
        if better:
            state = {name: item.clone() for name, item in self.simulation.state_dict().items()}
            if self.phase == len(self.options.bits_first):
                self.best = value, self.step, state
        self.updates.swap_average()
        self.waiting = 0 if better else self.waiting + 1
        self.emit(TrainingResult(self.step, epoch, metric, value, better))
        self.teller.ranges(self.step, self.simulation)
        return bool(self.options.patience) and self.waiting >= self.options.patience

    def _trained(self, state: Mapping[str, Tensor]) -> QuantizedModel:
        """The model with the weights and ranges of a simulation's state."""
        self.simulation.load_state_dict(state)
        return self.simulation.result(self.start)

    def _outcome(self) -> Outcome:
        assert self.best is not None
        value, step, state = self.best
        model = self._trained(state)
        before_training = TrainedSimulation(self.start, self.options.ranges, self.device)
        metric, before = self._measured(before_training)
        summary = f"{metric} {_shown(before)} before, {_shown(value)} after {step} steps"
        return Outcome(model, summary)

    def _measured(self, simulation: TrainedSimulation) -> tuple[str, float]:
        return measure(
            simulation,
            self.start,
            self.validation,
            self.batches.size,
            loss=self.target.named,
            world=self.world,
        )

    # --- checkpoints ----------------------------------------------------------------------------

    def _save(self) -> None:
        self._saved = time.monotonic()
        folder = self.options.checkpoints
        if folder is None or self.world.rank:
            return
        best = None if self.best is None else [self.best[0], self.best[1], self.best[2]]
        state = {
            "step": self.step,
            "total": self.total,
            "options": self.options.model_dump(mode="json"),
            "phase": self.phase,
            "simulation": dict(self.simulation.state_dict()),
            "frozen": self.simulation.norms_are_frozen,
            "updates": self.updates.state(),
            "random": checkpoints.random_state(),
            "best": best,
            "waiting": self.waiting,
            "losses": self.losses,
        }
        checkpoints.save(folder, checkpoints.Checkpoint(self._name, state))

    @cached_property
    def _name(self) -> str:
        """Of this run: another one has other options, data, weights or encodings at its start."""
        batches = self.batches
        return checkpoints.run_name(self.start, batches.data, batches.together, self.options)

    def _resume(self) -> int:
        """Go on from the checkpoint of this very run; the epoch to start with."""
        folder = self.options.checkpoints
        found = None if folder is None else checkpoints.load(Path(folder))
        if found is None:
            return 0
        if found.run != self._name:
            self.emit(
                Warned(
                    f"The checkpoint in {folder} is of another model, other data or other options:"
                    " training starts anew."
                )
            )
            return 0
        state: dict[str, Any] = found.state
        self.step = state["step"]
        self._enter_phase(self.start)
        self.simulation.load_state_dict(state["simulation"])
        if state["frozen"]:
            self.simulation.freeze_norms()
        self.updates.restore(state["updates"])
        checkpoints.restore_random_state(state["random"])
        self.best = None if state["best"] is None else tuple(state["best"])
        self.waiting, self.losses = state["waiting"], state["losses"]
        return self.step // self.batches.count


def _shown(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4g}"


def _device(wanted: str) -> str:
    if wanted == "auto":
        return f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"There is no device {wanted!r}.", "Choose auto or cpu.")
    return wanted
