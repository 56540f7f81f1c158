"""Steps run beside the window: progress, cancel, failure, closing."""

from __future__ import annotations

import math
import time

import pytest
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QMessageBox
from window_helpers import SlowStep, idle, visible

from studio.app import tasks
from studio.app.workflow import StepState
from studio.errors import DataError
from studio.jobs import Progress, TensorRanges


@pytest.fixture
def slow(monkeypatch, digits):
    names = digits.plan.observed
    known = tuple(float(i + 1) for i in range(3)) + (math.nan,) * (len(names) - 3)
    ranges = TensorRanges(1, names, tuple(-x for x in known), known)
    step = SlowStep((ranges,))
    monkeypatch.setattr(tasks, "calibrate", step)
    return step


def test_calibration_of_the_example(window, digits, qtbot):
    window.session.show(digits)
    seen = []
    window.session.ranges.connect(lambda ranges: seen.append(ranges))
    window.actions_table["calibrate"].trigger()
    qtbot.waitUntil(idle(window), timeout=30000)
    assert seen, "ranges arrive while it runs"
    assert seen[-1].maximum[0] == pytest.approx(1.0)
    assert window.session.document.calibrated
    assert window.status.title.text().startswith("Calibrated")
    assert window.workspace.ranges.plot.empty_text == ""
    assert [b.step.state for b in window.workspace.workflow.buttons[:6]] == [
        StepState.DONE,
        StepState.DONE,
        StepState.DONE,
        StepState.DONE,
        StepState.TO_DO,
        StepState.NEXT,
    ]


def test_what_a_running_job_shows(window, digits, slow, qtbot):
    window.session.show(digits)
    window.session.calibrate()
    qtbot.waitUntil(lambda: window.session.live_ranges is not None)
    status = window.status
    assert status.title.text() == "Calibrating"
    assert status.bar.isVisible()
    assert (status.bar.value(), status.bar.maximum()) == (1, 4)
    assert "16 of 64 samples" in status.detail.text()
    assert status.cancel.isVisible()
    step = window.workspace.workflow.buttons[3].step
    assert (step.state, step.detail) == (StepState.CURRENT, "16 of 64 samples")
    assert "live, 16 of 64 samples" in window.workspace.ranges.plot.caption.text()
    slow.release.set()
    qtbot.waitUntil(idle(window))
    assert not status.bar.isVisible()


def test_nothing_can_be_edited_while_it_runs(window, digits, slow, qtbot):
    window.session.show(digits)
    window.session.select(("stem.conv",))
    window.session.calibrate()
    assert not window.session.edit("bits", lambda d: d.with_data(None))
    model = window.workspace.layers.model
    assert not model.edit([model.row("stem.conv")], 2, "int4")
    box = window.workspace.inspector.weights.boxes["number"]
    assert not box.isEnabled()
    assert "calibrating" in box.toolTip()
    for name in ("calibrate", "evaluate", "export", "open", "data"):
        assert not window.actions_table[name].isEnabled()
        assert window.actions_table[name].toolTip() == "Calibrating is running."
    assert not window.session.calibrate(), "one job at a time"
    slow.release.set()
    qtbot.waitUntil(idle(window))
    assert box.isEnabled()


def test_cancel_leaves_the_document(window, calibrated, slow, qtbot):
    window.session.show(calibrated)
    window.session.calibrate()
    qtbot.waitUntil(lambda: window.session.live_ranges is not None)
    window.status.cancel.click()
    qtbot.waitUntil(idle(window))
    assert window.session.document is calibrated
    assert not window.session.modified
    assert "Cancelled" in window.status.title.text()
    assert visible(QMessageBox) is None


def test_failure_is_said_and_leaves_the_document(window, calibrated, slow, qtbot):
    window.session.show(calibrated)
    slow.error = DataError("The picture cat.jpg is broken.", "Remove it.")
    slow.release.set()
    window.session.calibrate()
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None)
    box = visible(QMessageBox)
    assert box.text() == "The picture cat.jpg is broken."
    assert box.informativeText() == "Remove it."
    button = next(button for button in box.buttons() if button.text() == "Show log")
    button.click()
    assert window.workspace.bottom.current == "log"
    box.close()
    assert window.session.document is calibrated
    assert window.status.title.text() == "Calibrating: failed"


def test_unforeseen_error_has_no_traceback_in_the_dialog(window, calibrated, slow, qtbot):
    window.session.show(calibrated)
    slow.error = KeyError("weights")
    slow.release.set()
    window.session.calibrate()
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None)
    box = visible(QMessageBox)
    assert "Traceback" not in box.text()
    assert "log" in box.informativeText()
    box.close()


def answer(button: str) -> None:
    """Click `button` of the next modal dialog, whenever it comes."""

    def click() -> None:
        box = visible(QMessageBox)
        if box is None:
            QTimer.singleShot(50, click)
            return
        next(item for item in box.buttons() if item.text() == button).click()

    QTimer.singleShot(50, click)


def test_closing_during_a_job(window, digits, slow, qtbot):
    window.session.show(digits)
    window.session.calibrate()
    answer("Keep running")
    window.close()
    assert window.isVisible()
    assert window.session.busy
    answer("Cancel it and close")
    window.close()
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=5000)
    assert not window.session.busy
    assert window.session.document is digits


def test_closing_during_a_job_still_asks_about_unsaved_changes(window, digits, slow, qtbot):
    window.session.show(digits)
    window.session.edit("data", lambda document: document.with_data(None))
    edited = window.session.document
    window.session._step("Calibrating", tasks.calibrate)
    answer("Cancel it and close")
    window.close()
    answer("Cancel")
    qtbot.waitUntil(idle(window), timeout=5000)
    qtbot.wait(150)
    assert window.isVisible()
    assert window.session.document is edited
    assert window.session.modified


def test_unsaved_changes_are_asked_about(window, digits, qtbot):
    window.session.show(digits)
    window.session.edit("data", lambda document: document.with_data(None))
    answer("Cancel")
    window.close()
    assert window.isVisible()
    answer("Discard")
    window.close()
    assert not window.isVisible()


def test_events_are_drawn_once_a_tick(window, digits, monkeypatch, qtbot):
    """A job may report thousands of times between two ticks; the newest report is drawn."""
    names = digits.plan.observed
    burst = tuple(
        TensorRanges(batch, names, (-1.0,) * len(names), (float(batch),) * len(names))
        for batch in range(1, 3001)
    )
    step = SlowStep(burst)
    monkeypatch.setattr(tasks, "calibrate", step)
    window.session.show(digits)
    drawn = []
    window.session.ranges.connect(lambda ranges: drawn.append(ranges.batch))
    window.session.calibrate()
    qtbot.waitUntil(lambda: drawn[-1:] == [3000])
    assert len(drawn) < 30
    assert "live" in window.workspace.ranges.plot.caption.text()
    step.release.set()
    qtbot.waitUntil(idle(window))


def test_saving_first_goes_on_with_closing(window, digits, qtbot, tmp_path):
    from dataclasses import replace

    window.session.show(replace(digits, path=tmp_path / "digits.qstudio"))
    window.session.edit("data", lambda document: document.with_data(None))
    answer("Save")
    window.close()
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=10000)
    assert (tmp_path / "digits.qstudio").exists()


def test_pause_and_resume(window, digits, qtbot, monkeypatch):
    counted = []

    def counting(document):
        def work(emit, cancel):
            for batch in range(400):
                cancel.check()
                counted.append(batch)
                emit(Progress("Calibrating", batch, 400))
                time.sleep(0.01)
            return document

        return work

    monkeypatch.setattr(tasks, "calibrate", counting)
    window.session.show(digits)
    window.session.calibrate()
    status = window.status
    qtbot.waitUntil(lambda: len(counted) > 3)
    assert status.pause.isVisible()
    status.pause.click()
    assert status.pause.text() == "Resume"
    assert status.title.text() == "Calibrating: paused"
    qtbot.wait(50)
    before = len(counted)
    qtbot.wait(200)
    assert len(counted) == before, "nothing is done meanwhile"
    window.actions_table["pause"].trigger()
    assert status.pause.text() == "Pause"
    assert status.title.text() == "Calibrating"
    qtbot.waitUntil(lambda: len(counted) > before + 3)
    status.pause.click()
    status.cancel.click()
    qtbot.waitUntil(idle(window))
    assert status.title.text() == "Cancelled. Nothing was changed."
    assert window.session.document is digits
    assert not status.pause.isVisible()


def test_who_is_told_of_an_end_may_forget_another(window):
    """Both have ended by the same tick; the second is forgotten by the first."""
    session = window.session
    told = []
    second = None

    def first_done(result: str) -> None:
        told.append(result)
        session.forget(second)

    first = session.aside("one", lambda emit, cancel: "one", first_done, told.append)
    second = session.aside("two", lambda emit, cancel: "two", told.append, told.append)
    assert first.wait(5) and second.wait(5)
    session.poll()
    assert told == ["one"]
    assert session._asides == []
