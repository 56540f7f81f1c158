"""Quantization-aware training: the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.analysis.evaluate import class_scores
from studio.data.augment import augment
from studio.data.dataset import Batch, Dataset
from studio.errors import ConfigError
from studio.jobs.events import (
    CancelToken,
    Emit,
    Progress,
    TensorRanges,
    TrainingResult,
    TrainingStep,
    silent,
)
from studio.qat import checkpoint as checkpoints
from studio.qat.distributed import join_world
from studio.qat.losses import distillation
from studio.qat.options import QatOptions
from studio.qat.simulation import TrainedSimulation
from studio.qat.targets import Objective, objective
from studio.qat.teacher import Teacher
from studio.qat.updates import Updates
from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid
from studio.sim.plan import Role
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Samples

SAVED_EVERY = 60.0
"""Seconds between checkpoints within an epoch."""

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
        self.world = join_world(self.device)
        self.data = samples.training
        self.validation = samples.validation
        self.batch_size = samples.batch_size or options.batch_size
        self.batches = -(-len(self.data) // self.batch_size)
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
        self.simulation = TrainedSimulation(model, self.options.ranges, self.device)
        self.updates = Updates(self.simulation, self.options, self.total)

    # --- one epoch ------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int) -> None:
        options = self.options
        done = self.step - epoch * self.batches
        self.simulation.train()
        for index, batch in enumerate(self._epoch_batches(epoch)):
            if index < done:
                continue
            self.cancel.check()
            if self._phase(self.step) != self.phase:
                self._enter_phase(self._trained(self.simulation.state_dict()))
            started = time.monotonic()
            loss = self._train_batch(self.world.share(_augmented(batch, options, epoch, index)))
            self.step += 1
            self._tell(epoch, loss, time.monotonic() - started)
            if time.monotonic() - self._saved > SAVED_EVERY:
                self._save()

    def _epoch_batches(self, epoch: int) -> Iterator[Batch]:
        seed = self.options.seed * 100_003 + epoch
        return self.data.batches(self.batch_size, seed=seed, cancel=self.cancel)

    def _train_batch(self, batch: Batch) -> float:
        inputs = _tensors(batch.inputs, self.device)
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(self.device)
        enabled = self.options.mixed_precision
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            outputs = self.simulation(inputs)
            loss = self._loss(outputs, labels, batch.inputs)
        if not bool(torch.isfinite(loss)):
            raise ConfigError(
                f"The loss is not finite any more at step {self.step + 1}.",
                "Use a lower learning rate, or limit the gradient (clip_gradient).",
            )
        self.updates.backward(loss)
        gradients = [item.grad for item in self.simulation.parameters() if item.grad is not None]
        mean = loss.detach().clone()
        self.world.average([*gradients, mean], float(len(batch)))
        self.updates.apply(self.step)
        return float(mean)

    def _loss(
        self, outputs: list[Tensor], labels: Tensor | None, inputs: Mapping[str, np.ndarray]
    ) -> Tensor:
        goal = self.objective
        share = goal.distillation
        loss = outputs[0].new_zeros(())
        if self.teacher is not None:
            loss = share * distillation(outputs, self.teacher(inputs), self.options.temperature)
        if goal.loss is not None and share < 1:
            loss = loss + (1 - share) * goal.loss(outputs, labels)
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
            self._shown = now
            self.emit(_ranges(self.step, self.simulation))

    # --- measuring ------------------------------------------------------------------------------

    def _measure(self, epoch: int) -> bool:
        """Measure the simulation, remember the best; True if it has not got better for long."""
        self.updates.swap_average()
        metric, value = measure(self.simulation, self.start, self.validation, self.batch_size)
        better = self.best is None or value > self.best[0]
        if better:
            state = {name: item.clone() for name, item in self.simulation.state_dict().items()}
            if self.phase == self._last:
                self.best = value, self.step, state
        self.updates.swap_average()
        self.waiting = 0 if better else self.waiting + 1
        self.emit(TrainingResult(self.step, epoch, metric, value, better))
        return bool(self.options.patience) and self.waiting >= self.options.patience

    def _trained(self, state: Mapping[str, Tensor]) -> QuantizedModel:
        """The model with the weights and ranges of a simulation's state."""
        self.simulation.load_state_dict(state)
        return self.simulation.result(self.start)

    def _outcome(self) -> Outcome:
        assert self.best is not None
        value, step, state = self.best
        model = self._trained(state)
        metric, before = measure(
            TrainedSimulation(self.start, self.options.ranges, self.device),
            self.start,
            self.validation,
            self.batch_size,
        )
        summary = f"{metric} {before:.1f} before, {value:.1f} after {step} steps"
        return Outcome(model, summary)

    # --- checkpoints ----------------------------------------------------------------------------

    def _save(self) -> None:
        self._saved = time.monotonic()
        folder = self.options.checkpoints
        if folder is None or self.world.rank:
            return
        best = None if self.best is None else [self.best[0], self.best[1], self.best[2]]
        state = {
            "step": self.step,
            "phase": self.phase,
            "simulation": dict(self.simulation.state_dict()),
            "updates": self.updates.state(),
            "random": checkpoints.random_state(),
            "best": best,
            "waiting": self.waiting,
            "losses": self.losses,
        }
        checkpoints.save(folder, checkpoints.Checkpoint(self._name(), state))

    def _name(self) -> str:
        options = self.options.model_copy(update={"checkpoints": None})
        weights = sorted(self.simulation.weights)
        parts = (self.data.name, str(len(self.data)), str(self.batch_size), *weights)
        return checkpoints.run_name(options.model_dump_json(), *parts)

    def _resume(self) -> int:
        """Go on from the checkpoint of this very run; the epoch to start with."""
        folder = self.options.checkpoints
        found = None if folder is None else checkpoints.load(Path(folder))
        if found is None or found.run != self._name():
            return 0
        state: dict[str, Any] = found.state
        self.step = state["step"]
        self._enter_phase(self.start)
        self.simulation.load_state_dict(state["simulation"])
        self.updates.restore(state["updates"])
        checkpoints.restore_random_state(state["random"])
        self.best = None if state["best"] is None else tuple(state["best"])
        self.waiting, self.losses = state["waiting"], state["losses"]
        return self.step // self.batches


def measure(
    simulation: TrainedSimulation, model: QuantizedModel, data: Dataset, batch_size: int
) -> tuple[str, float]:
    """Name and value of what the simulation reaches on `data`, higher is better: top-1 in percent
    where there are labels and class scores, else the SQNR in dB of the outputs against float."""
    simulation.eval()
    teacher = Teacher(model.graph, torch.device("cpu"))
    hits = counted = 0
    signal = noise = 0.0
    with torch.inference_mode():
        for batch in data.batches(batch_size):
            (first, *_) = simulation(_tensors(batch.inputs, simulation.device))
            output = first.float().cpu().numpy()
            scores = class_scores(output)
            if batch.labels is not None and scores is not None and batch.labels.ndim == 1:
                hits += int((scores.argmax(1) == batch.labels).sum())
                counted += len(batch)
                continue
            wanted = teacher(batch.inputs)[0].numpy().astype(np.float64)
            signal += float(np.square(wanted).sum())
            noise += float(np.square(wanted - output).sum())
    simulation.train()
    if counted:
        return "top-1", 100 * hits / counted
    return "SQNR", 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


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


def _augmented(batch: Batch, options: QatOptions, epoch: int, index: int) -> Batch:
    if not (options.flip or options.crop or options.color):
        return batch
    rng = np.random.default_rng((options.seed, epoch, index))
    inputs = {
        name: augment(array, rng, flip=options.flip, crop=options.crop, color=options.color)
        if array.ndim == 4 and array.dtype == np.float32
        else array
        for name, array in batch.inputs.items()
    }
    return replace(batch, inputs=inputs)


def _tensors(inputs: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}


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
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"There is no device {wanted!r}.", "Choose auto or cpu.")
    return wanted
