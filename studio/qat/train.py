"""Quantization-aware training: the loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.data.augment import augment
from studio.data.dataset import Batch, reading_order
from studio.data.split import kept_apart
from studio.errors import ConfigError
from studio.jobs.events import (
    CancelToken,
    Emit,
    Progress,
    TensorRanges,
    TrainingResult,
    TrainingStep,
    Warned,
    silent,
)
from studio.qat import checkpoint as checkpoints
from studio.qat.losses import distillation
from studio.qat.measure import measure, tensors
from studio.qat.options import BatchNorm, QatOptions
from studio.qat.simulation import TrainedSimulation
from studio.qat.targets import Objective, objective
from studio.qat.teacher import Teacher
from studio.qat.updates import Updates
from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid
from studio.runtime.world import World, join_world, local_rank
from studio.sim.plan import Role
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Samples

SAVED_EVERY = 60.0
"""Seconds between checkpoints within an epoch."""

ESTIMATED_ON = 50
"""Batches that statistics of BatchNormalization are estimated on."""

SHOWN_EVERY = 0.2
"""Seconds between the ranges that are told."""


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
    """One run. `step` counts batches over all epochs; `batch_size` samples of each are this
    process's own."""

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
        self.data, self.validation = samples.training, samples.validation
        if not samples.apart:
            self.data, self.validation = kept_apart(
                samples.training, options.validation, samples.batch_size or 1
            )
        self.batch_size = samples.batch_size or _own_batch(options.batch_size, self.world)
        self.batches = -(-len(self.data) // (self.batch_size * self.world.size))
        self.total = options.epochs * self.batches
        self.objective: Objective = objective(options, self.data)
        self.teacher = (
            Teacher(model.graph, self.device) if self.objective.distillation > 0 else None
        )
        self.step = 0
        self.losses: list[float] = []
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.waiting = 0
        self._seconds = 0.0
        self._shown = self._saved = time.monotonic()
        torch.manual_seed(options.seed)
        self.phase = -1
        self._enter_phase(model)

    def run(self) -> Outcome:
        first = self._resume()
        self._tell_ranges()
        for epoch in range(first, self.options.epochs):
            self._train_epoch(epoch)
            if self._measure(epoch):
                break
            self._save()
        return self._outcome()

    # --- phases of falling bits -----------------------------------------------------------------

    def _phase(self, step: int) -> int:
        return min(step * (len(self.options.bits_first) + 1) // max(self.total, 1), self._last)

    @property
    def _last(self) -> int:
        return len(self.options.bits_first)

    def _enter_phase(self, model: QuantizedModel) -> None:
        """Simulate `model` with the weight bits of this phase."""
        self.phase = self._phase(self.step)
        if self.phase < self._last:
            model = _with_weight_bits(model, self.options.bits_first[self.phase])
        self.simulation = TrainedSimulation(
            model,
            self.options.ranges,
            self.device,
            keep_norms=self.options.batch_norm is BatchNorm.TRAINED,
            recompute=self.options.recompute,
        )
        if len(self.simulation.norms):
            self.simulation.start_norms(self._some_inputs())
        self.updates = Updates(self.simulation, self.options, self.total)

    # --- statistics of norms that are kept ------------------------------------------------------

    def _some_inputs(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Batches spread over the training data, the same in all processes."""
        some = self.data.subset(ESTIMATED_ON * self.batch_size)
        return (batch.inputs for batch in some.batches(self.batch_size, cancel=self.cancel))

    def _freezing(self) -> bool:
        due = self.step >= self.options.freeze_batch_norm * self.total
        return bool(len(self.simulation.norms)) and due and not self.simulation.norms_are_frozen

    def _settle_norms(self) -> None:
        """Before a measurement, and before the statistics are frozen."""
        if len(self.simulation.norms):
            self.simulation.estimate_norms(self._some_inputs())
            if self._freezing():
                self.simulation.freeze_norms()

    # --- one epoch ------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int) -> None:
        self.simulation.train()
        for batch in self._epoch_batches(epoch, self.step - epoch * self.batches):
            self.cancel.check()
            if self._phase(self.step) != self.phase:
                self._enter_phase(self._trained(self.simulation.state_dict()))
            if self._freezing():
                self._settle_norms()
            started = time.monotonic()
            loss = self._train_batch(batch)
            self.step += 1
            self._tell(epoch, loss, time.monotonic() - started)
            if time.monotonic() - self._saved > SAVED_EVERY:
                self._save()

    def _epoch_batches(self, epoch: int, done: int) -> Iterator[Batch | None]:
        """This process's part of the batches of an epoch, the first `done` left out; None where
        nothing is left for it."""
        order = reading_order(len(self.data), None, self.options.seed * 100_003 + epoch)
        mine = self.world.share(order, self.batch_size)[done * self.batch_size :]
        found: Iterator[Batch] = iter(())
        part = self.data.select(mine) if len(mine) else None
        if part is not None:
            found = part.batches(self.batch_size, cancel=self.cancel)
        for _ in range(done, self.batches):
            batch = next(found, None)
            yield batch and _augmented(batch, self.options, epoch, mine[batch.indices])
        for warning in part.warnings if part is not None else ():
            self.emit(Warned(warning))

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
        loss = self._loss(outputs, labels, batch.inputs)
        if not bool(torch.isfinite(loss)):
            raise ConfigError(
                f"The loss is not finite any more at step {self.step + 1}.",
                "Use a lower learning rate, or limit the gradient (clip_gradient).",
            )
        self.updates.backward(loss)
        return loss.detach().clone()

    def _loss(
        self, outputs: list[Tensor], labels: Tensor | None, inputs: Mapping[str, np.ndarray]
    ) -> Tensor:
        goal = self.objective
        share = goal.distillation
        loss = outputs[0].new_zeros(())
        if self.teacher is not None:
            loss = share * distillation(outputs, self.teacher(inputs), self.options.temperature)
        if goal.loss is not None and share < 1:
            loss = loss + (1 - share) * goal.of(outputs, labels)
        return loss

    def _tell(self, epoch: int, loss: float, seconds: float) -> None:
        self.losses.append(loss)
        self._seconds = seconds if not self._seconds else 0.9 * self._seconds + 0.1 * seconds
        rate = self.updates.rate(self.step - 1)
        self.emit(TrainingStep(self.step, self.total, epoch, loss, rate, self._seconds))
        detail = f"epoch {epoch + 1} of {self.options.epochs}"
        self.emit(Progress("Training", self.step, self.total, detail))
        now = time.monotonic()
        if now - self._shown > SHOWN_EVERY:
            self._tell_ranges()

    def _tell_ranges(self) -> None:
        self._shown = time.monotonic()
        self.emit(_ranges(self.step, self.simulation))

    # --- measuring ------------------------------------------------------------------------------

    def _measure(self, epoch: int) -> bool:
        """Measure the simulation, remember the best; True if it has not got better for long."""
        self.updates.swap_average()
        self._settle_norms()
        metric, value = self._measured(self.simulation)
        better = self.best is None or value > self.best[0]
        if better:
            state = {name: item.clone() for name, item in self.simulation.state_dict().items()}
            if self.phase == self._last:
                self.best = value, self.step, state
        self.updates.swap_average()
        self.waiting = 0 if better else self.waiting + 1
        self.emit(TrainingResult(self.step, epoch, metric, value, better))
        self._tell_ranges()
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
            self.batch_size,
            loss=self.objective.named,
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
        options = self.options.model_copy(update={"checkpoints": None})
        together = self.batch_size * self.world.size
        parts = [self.data.name, str(len(self.data)), str(together)]
        model = self.start
        for name in sorted(model.graph.initializers):
            parts += [name, _digest(model.graph.constant(name))]
        for name, item in sorted(model.encodings.items()):
            parts += [name, str(item.grid), _digest(item.scale), _digest(item.zero_point)]
        return checkpoints.run_name(options.model_dump_json(), *parts)

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
        return self.step // self.batches


def _with_weight_bits(model: QuantizedModel, bits: int) -> QuantizedModel:
    """`model` with weights of at least `bits` bits over the same ranges."""
    encodings = dict(model.encodings)
    for name, row in model.plan.tensors.items():
        known = encodings.get(name)
        if row.role is not Role.WEIGHT or known is None or not isinstance(known.grid, Grid):
            continue
        if known.grid.bits < bits and known.integer_scale is None:
            grid = replace(known.grid, bits=bits)
            encodings[name] = encoding_from_range(
                known.minimum, known.maximum, grid, known.axis, known.block_size
            )
    return replace(model, encodings=encodings)


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


def _own_batch(batch_size: int, world: World) -> int:
    """The samples of a batch that each process computes."""
    if batch_size % world.size:
        raise ConfigError(
            f"A batch of {batch_size} samples cannot be shared by {world.size} processes.",
            f"Choose a batch_size that is a multiple of {world.size}.",
        )
    return batch_size // world.size


def _shown(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4g}"


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _ranges(step: int, simulation: TrainedSimulation) -> TensorRanges:
    learned = {name: quantizer.encoding() for name, quantizer in simulation.learned()}
    single = {name: item for name, item in learned.items() if item.axis is None}
    return TensorRanges(
        step,
        tuple(single),
        tuple(float(item.minimum) for item in single.values()),
        tuple(float(item.maximum) for item in single.values()),
    )


def _device(wanted: str) -> str:
    if wanted == "auto":
        return f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"There is no device {wanted!r}.", "Choose auto or cpu.")
    return wanted
