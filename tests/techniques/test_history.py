"""Curves of a training from its events, however long it is."""

from __future__ import annotations

import numpy as np

from studio.jobs.events import Progress, TensorRanges, TrainingResult, TrainingStep
from studio.techniques.history import MOST_POINTS, MOST_RANGES, Recorder, smoothed


def test_nothing_before_the_first_step() -> None:
    recorder = Recorder()
    recorder.add(Progress("Training", 0, 10))
    recorder.add(TensorRanges(0, ("a",), (0.0,), (1.0,)))
    assert recorder.history() is None


def test_a_long_training_is_thinned_evenly() -> None:
    recorder = Recorder()
    steps = 10 * MOST_POINTS
    for step in range(1, steps + 1):
        recorder.add(TrainingStep(step, steps, 0, float(step), 0.1, 0.5))
        recorder.add(TensorRanges(step, ("a", "b"), (0.0, -1.0), (1.0 + step, 1.0)))
    history = recorder.history()
    assert history is not None
    assert MOST_POINTS <= len(history.steps) < 2 * MOST_POINTS
    assert set(np.diff(history.steps)) == {history.merged}
    assert history.steps[-1] == steps
    # The mean over the steps merged into each point.
    for step, loss in zip(history.steps, history.losses, strict=True):
        assert loss == step - (history.merged - 1) / 2
    assert len(history.range_steps) < 2 * MOST_RANGES
    assert history.range_steps[0] == 1, "the first is what the drift is measured from"
    assert history.range_steps[-1] > 0.95 * steps
    np.testing.assert_allclose(
        history.drift()[:, 0], [100 * (1 + step) / 2 for step in history.range_steps]
    )
    np.testing.assert_allclose(history.drift()[:, 1], 100.0)


def test_best_and_epochs() -> None:
    recorder = Recorder()
    for step in range(1, 7):
        recorder.add(TrainingStep(step, 12, (step - 1) // 3, 1.0, 0.1, 0.5))
        if step % 3 == 0:
            recorder.add(TrainingResult(step, step // 3 - 1, "top-1", 50.0, step == 3))
    history = recorder.history()
    assert history is not None
    assert history.epochs == 4
    assert history.best is not None
    assert history.best.epoch == 0


def test_smoothing() -> None:
    np.testing.assert_allclose(smoothed([5.0, 1.0, 2.0], 0.0), [5.0, 1.0, 2.0])
    # Weights 0.5 and 0.25, 0.125 ..., normalised.
    np.testing.assert_allclose(smoothed([4.0, 1.0], 0.5), [4.0, (0.5 * 1 + 0.25 * 4) / 0.75])
    np.testing.assert_allclose(smoothed([3.0] * 5, 0.9), 3.0)
