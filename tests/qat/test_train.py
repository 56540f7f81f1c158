"""Training on the digits: it gets better, can be cut off and goes on, and can be watched."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from qat_models import digits_data, digits_model, digits_samples

from studio.errors import CancelledError, ConfigError, ConsentRequiredError
from studio.jobs.events import CancelToken, Event, TrainingResult, TrainingStep, Warned
from studio.qat.checkpoint import remove, saved
from studio.qat.options import QatOptions
from studio.qat.simulation import TrainedSimulation
from studio.qat.train import measure, train
from studio.sim.quantized_model import QuantizedModel

FAST = {"learning_rate": 0.01, "range_learning_rate": 1e-3, "batch_size": 20}


def top1(model: QuantizedModel) -> float:
    simulation = TrainedSimulation(model, QatOptions().ranges, torch.device("cpu"))
    return measure(simulation, model, digits_samples().validation, 60)[1]


def weights(model: QuantizedModel) -> dict[str, np.ndarray]:
    return {name: model.graph.constant(name) for name in model.graph.initializers}


@pytest.mark.parametrize("ranges", ["fixed", "scale", "range", "pact"])
def test_two_bit_weights_learn_to_read(ranges: str) -> None:
    model = digits_model(2, 4)
    assert top1(model) < 40
    options = QatOptions(epochs=16, ranges=ranges, **FAST)
    assert top1(train(model, digits_samples(), options).model) > 90


def test_no_labels_are_needed() -> None:
    options = QatOptions(epochs=16, loss="distillation", **FAST)
    assert top1(train(digits_model(2, 4), digits_samples(), options).model) > 90


def test_bits_can_fall_on_the_way() -> None:
    options = QatOptions(epochs=18, bits_first=(6, 4), **FAST)
    result = train(digits_model(2, 4), digits_samples(), options).model
    assert result.encodings["down.conv.weight"].grid.bits == 2
    assert top1(result) > 85


def test_what_happens_is_told() -> None:
    events: list[Event] = []
    options = QatOptions(epochs=2, **FAST)
    train(digits_model(), digits_samples(), options, events.append)
    steps = [event for event in events if isinstance(event, TrainingStep)]
    assert [event.step for event in steps] == list(range(1, 21))
    assert steps[-1].total == 20
    assert steps[-1].rate < steps[5].rate
    results = [event for event in events if isinstance(event, TrainingResult)]
    assert [(event.epoch, event.metric) for event in results] == [(0, "top-1"), (1, "top-1")]


@pytest.mark.parametrize("choice", ["mixed_precision", "recompute"])
def test_cheaper_steps_learn_as_well(choice: str) -> None:
    options = QatOptions(epochs=16, **FAST, **{choice: True})
    assert top1(train(digits_model(2, 4), digits_samples(), options).model) > 90


def test_what_is_measured_is_kept_apart() -> None:
    """Without other data a share of the training data is measured on and not trained on."""
    everything = digits_data("calibration")
    samples = replace(digits_samples(), validation=everything, apart=False)
    events: list[Event] = []
    train(digits_model(), samples, QatOptions(epochs=1, validation=0.2, **FAST), events.append)
    steps = [event for event in events if isinstance(event, TrainingStep)]
    assert steps[-1].total == 8  # 160 of 200 samples in batches of 20
    (result,) = (event for event in events if isinstance(event, TrainingResult))
    assert (result.value * 40 / 100) % 1 == pytest.approx(0)


def test_the_same_seed_gives_the_same_weights() -> None:
    options = QatOptions(epochs=1, **FAST)
    first, second, other = (
        weights(train(digits_model(), digits_samples(), choice).model)
        for choice in (options, options, options.model_copy(update={"seed": 1}))
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert not np.array_equal(first["down.conv.weight"], other["down.conv.weight"])


def test_early_stopping() -> None:
    events: list[Event] = []
    options = QatOptions(epochs=50, patience=2, learning_rate=1e-9, range_learning_rate=1e-9)
    train(digits_model(), digits_samples(), options, events.append)
    assert sum(isinstance(event, TrainingResult) for event in events) == 3


def test_cancelled() -> None:
    token = CancelToken()
    with pytest.raises(CancelledError):
        train(digits_model(), digits_samples(), QatOptions(), lambda _: token.cancel(), token)


def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """The second run goes on after the first's last epoch and ends with the very same weights."""
    options = QatOptions(epochs=4, average=0.9, flip=True, **FAST)
    whole = weights(train(digits_model(), digits_samples(), options).model)
    kept = options.model_copy(update={"checkpoints": tmp_path / "checkpoints"})
    code = f"""
        import os, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]
        from qat_models import digits_data, digits_model, digits_samples
        from studio.jobs.events import TrainingStep
        from studio.qat.options import QatOptions
        from studio.qat.train import train

        def emit(event):
            if isinstance(event, TrainingStep) and event.step == 25:
                os.kill(os.getpid(), 9)

        options = QatOptions.model_validate_json({kept.model_dump_json()!r})
        train(digits_model(), digits_samples(), options, emit)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -9
    steps: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, TrainingStep):
            steps.append(event.step)

    resumed = weights(train(digits_model(), digits_samples(), kept, emit).model)
    assert steps[0] == 21
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    options = QatOptions(epochs=1, checkpoints=tmp_path, **FAST)
    train(digits_model(), digits_samples(), options)
    steps: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, TrainingStep):
            steps.append(event.step)

    other = options.model_copy(update={"seed": 3})
    train(digits_model(), digits_samples(), other, emit)
    assert steps[0] == 1


def test_a_checkpoint_of_another_model_is_not_taken(tmp_path: Path) -> None:
    """The same options and data on weights of other bits: said, and trained from the start."""
    options = QatOptions(epochs=1, checkpoints=tmp_path, **FAST)
    train(digits_model(2, 4), digits_samples(), options)
    found = saved(tmp_path)
    assert found is not None
    assert (found.step, found.total) == (10, 10)
    assert QatOptions.model_validate(found.options) == options
    events: list[Event] = []
    train(digits_model(4, 4), digits_samples(), options, events.append)
    assert next(event.step for event in events if isinstance(event, TrainingStep)) == 1
    assert any("starts anew" in event.message for event in events if isinstance(event, Warned))
    remove(tmp_path)
    assert not tmp_path.exists()
    assert saved(tmp_path) is None


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"version": 1')
    with pytest.raises(ConfigError, match="cannot be read"):
        train(digits_model(), digits_samples(), QatOptions(checkpoints=tmp_path))


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch.nn.functional as F\n"
        "def smooth(outputs, labels):\n"
        "    return F.cross_entropy(outputs[0], labels, label_smoothing=0.1)\n"
    )
    loss = f"{path}:smooth"
    with pytest.raises(ConsentRequiredError):
        train(digits_model(), digits_samples(), QatOptions(loss=loss))
    options = QatOptions(epochs=24, loss=loss, trust=True, distillation=0.0, **FAST)
    assert top1(train(digits_model(2, 4), digits_samples(), options).model) > 90


def test_a_loss_that_explodes_is_an_error_with_a_way_out() -> None:
    options = QatOptions(learning_rate=1e12, warmup=0.0)
    with pytest.raises(ConfigError, match="not finite") as error:
        train(digits_model(), digits_samples(), options)
    assert "learning rate" in error.value.hint


@pytest.mark.parametrize("loss", ["hinge", "nowhere.py:loss"])
def test_losses_that_are_not_there(loss: str) -> None:
    with pytest.raises(ConfigError, match="There is no"):
        train(digits_model(), digits_samples(), QatOptions(loss=loss))
