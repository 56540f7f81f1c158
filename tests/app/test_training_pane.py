"""The Training pane: curves while it runs, pause and cancel, and what stays afterwards."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PySide6.QtCore import QPointF, Qt
from window_helpers import FAST_TRAINING, idle, press

from studio.app.plots.curves import ResultPlot
from studio.app.theme import LIGHT, apply_theme
from studio.app.training.panel import FIXED, step_time
from studio.jobs.events import Progress, TensorRanges, TrainingResult, TrainingStep
from studio.techniques.technique import Outcome


class Scripted:
    """A training whose events are given; it goes on when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.stop = threading.Event()

    def __call__(self, model, samples, options, emit, cancel):
        emit(TensorRanges(0, ("relu", "relu_1"), (0.0, -1.0), (2.0, 1.0)))
        for step in range(1, 11):
            cancel.check()
            emit(TrainingStep(step, 20, (step - 1) // 5, 2.0 / step, 0.01 * step, 0.018))
            emit(Progress("Training", step, 20, f"epoch {(step - 1) // 5 + 1} of 4"))
            if step % 5 == 0:
                emit(TrainingResult(step, step // 5 - 1, "top-1", 80.0 - step, step == 5))
        emit(TensorRanges(10, ("relu", "relu_1"), (0.0, -1.0), (3.0, 0.0)))
        while not self.go.wait(0.005):
            cancel.check()
        return Outcome(model, "top-1 10.0 before, 75.0 after 5 steps")


@pytest.fixture
def scripted(monkeypatch):
    from dataclasses import replace

    from studio.project import techniques

    result = Scripted()
    qat = replace(techniques.TECHNIQUES["qat"], load=lambda: result)
    monkeypatch.setattr(techniques, "TECHNIQUES", {"qat": qat})
    return result


def test_empty_pane_says_what_to_do(window, coarse, qtbot):
    window.session.show(coarse)
    window.actions_table["training"].trigger()
    pane = window.workspace.training
    assert pane.empty.isVisible()
    assert "Calibrate" in pane.empty.text()
    press(qtbot, pane.to_improve)
    assert window.workspace.improve.isVisible()


def test_what_a_running_training_shows(improve_panel, window, scripted, qtbot):
    pane = window.workspace.training
    press(qtbot, improve_panel.apply)
    qtbot.waitUntil(lambda: pane.isVisible() and pane.drift.curves == 2, timeout=20000)
    qtbot.waitUntil(lambda: pane.loss.points == 10)
    assert pane.title.text() == "Training"
    facts = {name: value.text() for name, value in pane.facts.items()}
    assert facts["Step"] == "10 of 20"
    assert facts["Epoch"] == "2 of 4"
    assert facts["Time of a step"] == "18 ms"
    assert facts["Best"] == "75.0 %, epoch 1"
    # Curves: the raw loss behind, the smoothed one in front; nothing smoothed is the raw one.
    np.testing.assert_allclose(pane.loss.faint.getData()[1], 2.0 / np.arange(1, 11))
    pane.smoothing.setValue(0)
    np.testing.assert_allclose(pane.loss.line.getData()[1], 2.0 / np.arange(1, 11))
    np.testing.assert_allclose(pane.rate.line.getData()[1], 0.01 * np.arange(1, 11))
    # The best of the metric is marked, at the first epoch and not at the last.
    assert [tuple(point.pos()) for point in pane.results.best.points()] == [(1.0, 75.0)]
    assert pane.results.points == 2
    assert pane.results.best_text == "best 75.0 %, epoch 1"
    assert pane.results.y_name == "top-1 (%)"
    axis = pane.loss.canvas.getAxis("bottom")
    assert axis.labelText == "step"
    # Widths in percent of the first: 2 -> 3 and 2 -> 1.
    assert pane.history.drift()[-1].tolist() == [150.0, 50.0]
    # The axis goes up to the steps that are planned.
    assert pane.loss.canvas.getViewBox().viewRange()[0][1] == pytest.approx(20.4)
    assert pane.pause.isVisible()
    press(qtbot, pane.pause)
    assert pane.title.text() == "Paused"
    assert pane.pause.text() == "Resume"
    press(qtbot, pane.pause)
    assert pane.title.text() == "Training"
    scripted.go.set()
    qtbot.waitUntil(idle(window), timeout=20000)
    assert pane.title.text() == "Trained"
    assert pane.note.text() == "Top-1 10.0 before, 75.0 after 5 steps"
    assert not pane.cancel.isVisible()
    assert pane.loss.points == 10, "the curves stay"
    window.actions_table["undo"].trigger()
    assert pane.empty.isVisible()
    window.actions_table["redo"].trigger()
    assert pane.loss.points == 10, "the curves belong to the document"


def test_a_cancelled_training_leaves_its_curves_until_the_next_edit(
    improve_panel,
    window,
    scripted,
    qtbot,
):
    pane = window.workspace.training
    press(qtbot, improve_panel.apply)
    qtbot.waitUntil(lambda: pane.loss.points == 10, timeout=20000)
    press(qtbot, pane.cancel)
    qtbot.waitUntil(idle(window), timeout=20000)
    assert pane.title.text() == "Cancelled at step 10"
    assert "as it was" in pane.note.text()
    assert pane.loss.points == 10
    assert window.session.document.applied == ()
    assert window.session.edit("data", lambda document: document.with_data(None))
    assert pane.empty.isVisible()


def test_a_real_training_draws_every_step(improve_panel, window, qtbot):
    pane = window.workspace.training
    improve_panel.form.show_values({**FAST_TRAINING, "ranges": "fixed"})
    press(qtbot, improve_panel.apply)
    qtbot.waitUntil(idle(window), timeout=60000)
    qtbot.waitUntil(pane.isVisible)
    history = window.session.document.applied[-1].training
    assert pane.loss.points == history.total == len(history.steps)
    assert len(history.results) == 3
    assert pane.results.points == 3
    assert pane.results.best_text.startswith("best ")
    assert pane.drift.empty_text == FIXED


def test_curves_are_saved_with_the_project(improve_panel, window, scripted, qtbot, tmp_path):
    from studio.project.store import load_project

    scripted.go.set()
    press(qtbot, improve_panel.apply)
    qtbot.waitUntil(idle(window), timeout=20000)
    path = tmp_path / "trained.qstudio"
    assert window.session.save(path)
    qtbot.waitUntil(idle(window), timeout=20000)
    before = window.session.document.applied[-1].training
    again = load_project(path)
    assert again.applied[-1].training == before
    window.session.show(again)
    window.actions_table["training"].trigger()
    assert window.workspace.training.loss.points == 10


def test_a_click_on_a_range_chooses_its_layer(improve_panel, window, scripted, qtbot):
    pane = window.workspace.training
    press(qtbot, improve_panel.apply)
    qtbot.waitUntil(lambda: pane.isVisible() and pane.drift.curves == 2, timeout=20000)
    layers = window.session.document.plan.tensors
    qtbot.waitUntil(lambda: len(pane.history.range_steps) == 2)
    pane.drift.canvas.clicked.emit(QPointF(10.0, 50.0))
    assert window.session.current == layers["relu_1"].layer
    assert pane.drift.front == "relu_1"
    assert "−1.00 … 1.00 at first, −1.00 … 0 now" in pane.drift.caption.text().replace("0.00", "0")
    assert pane.drift.words_at(QPointF(0.2, 100.0)).endswith("step 0: 100.0 %")
    scripted.go.set()
    qtbot.waitUntil(idle(window), timeout=20000)


def test_plots_follow_the_theme(qtbot, qapp):
    plot = ResultPlot()
    qtbot.addWidget(plot)
    plot.set_results([1, 2], [3.0, 4.0], 1, 2, "best 4")
    apply_theme(qapp, LIGHT)
    assert plot.canvas.backgroundBrush().color().name() == LIGHT.background
    assert plot.line.opts["pen"].color().name() == LIGHT.accent
    assert plot.canvas.getAxis("bottom").labelStyle["color"] == LIGHT.muted
    assert plot.canvas.focusPolicy() != Qt.FocusPolicy.NoFocus


def test_times():
    assert step_time(0.018) == "18 ms"
    assert step_time(2.44) == "2.4 s"
