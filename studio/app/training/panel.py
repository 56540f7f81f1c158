"""The Training pane: curves of the training that runs, or of the last one of the document."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from studio.app import text
from studio.app.improve.run import STEP
from studio.app.plots.curves import CurvePlot, DriftPlot, ResultPlot
from studio.app.session import Session
from studio.app.status_bar import TimeLeft
from studio.app.widgets import elided, label, line
from studio.jobs import Job, JobState, Progress
from studio.jobs.events import Event, TrainingResult
from studio.techniques.history import Recorder, TrainingHistory, smoothed

if TYPE_CHECKING:
    from studio.project.document import Document

UNITS = {"top-1": "%", "SQNR": "dB"}
SMOOTHING = 90
DRAWN_EVERY_MS = 100  # drawing takes some 20 ms
FACTS = ("Epoch", "Step", "Time of a step", "Time left", "Best")
EMPTY = (
    "No training yet.\nCalibrate, then start quantization-aware training: its curves appear here."
)
FIXED = (
    "Ranges are not learned here: those of activations stay, those of weights follow the weights."
)


class TrainingPanel(QWidget):
    """`started`: the first step of a training was made. `improve_wanted`: the user asks for it."""

    started = Signal()
    improve_wanted = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._job: Job[Any] | None = None  # the one the recorder listens to
        self._recorder = Recorder()
        self._time_left = TimeLeft()
        self._left: float | None = None
        self._paused_at = 0.0
        self._ended = ""  # how a training ended that has changed nothing
        self._history: TrainingHistory | None = None
        self.loss = CurvePlot("Loss", "step", "loss", "Waiting for the first step.")
        self.loss.follow_theme()
        self.rate = CurvePlot("Learning rate", "step", "learning rate", "")
        self.rate.follow_theme()
        self.results = ResultPlot()
        self.drift = DriftPlot()
        self.smoothing = QSlider(Qt.Orientation.Horizontal)
        self.title = label("", "heading")
        self.note = elided("", "muted")
        self.facts: dict[str, QLabel] = {}
        self.pause = QPushButton("Pause")
        self.cancel = QPushButton("Cancel")
        self.again = QPushButton("Improve…")
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(DRAWN_EVERY_MS)
        self._soon.timeout.connect(self.refresh)
        self._build()
        self.pause.clicked.connect(session.toggle_pause)
        self.cancel.clicked.connect(session.cancel)
        self.again.clicked.connect(self.improve_wanted)
        self.to_improve.clicked.connect(self.improve_wanted)
        self.smoothing.valueChanged.connect(lambda _value: self._draw_loss())
        self.drift.chosen.connect(self._select)
        session.progress.connect(self._estimate)
        session.events.connect(self._take)
        session.job_changed.connect(self._job_changed)
        session.document_changed.connect(self._document_changed)
        session.selection_changed.connect(lambda _names: self._draw_drift())
        self.refresh()

    # -- building ------------------------------------------------------------------------------

    def _build(self) -> None:
        self.smoothing.setRange(0, 99)
        self.smoothing.setValue(SMOOTHING)
        self.smoothing.setFixedWidth(90)
        self.smoothing.setAccessibleName("Smoothing of the loss")
        self.smoothing.setToolTip("Smoothing: how much of the past is in each point of the curve")
        self.loss.header.addWidget(label("smoothing", "muted"))
        self.loss.header.addWidget(self.smoothing)
        head = QHBoxLayout()
        head.setContentsMargins(14, 9, 12, 9)
        head.setSpacing(22)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(self.title)
        words.addWidget(self.note)
        head.addLayout(words, 1)
        for name in FACTS:
            head.addLayout(self._fact(name))
        for button in (self.pause, self.cancel, self.again):
            head.addWidget(button)
        grid = QGridLayout()
        grid.setSpacing(4)
        grid.addWidget(self.loss, 0, 0)
        grid.addWidget(self.results, 0, 1)
        grid.addWidget(self.drift, 1, 0)
        grid.addWidget(self.rate, 1, 1)
        for index, stretch in enumerate((3, 2)):
            grid.setColumnStretch(index, stretch)
            grid.setRowStretch(index, 1)
        plots = QWidget()
        column = QVBoxLayout(plots)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(line())
        column.addLayout(grid, 1)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(plots)
        self._stack.addWidget(self._empty())

    def _fact(self, name: str) -> QVBoxLayout:
        value = label("–")
        value.setAccessibleName(name)
        self.facts[name] = value
        column = QVBoxLayout()
        column.setSpacing(1)
        column.addWidget(label(name, "muted"))
        column.addWidget(value)
        return column

    def _empty(self) -> QWidget:
        page = QWidget()
        self.empty = label(EMPTY, "muted")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.to_improve = QPushButton("Improve…")
        self.to_improve.setToolTip("Choose a technique and its options")
        column = QVBoxLayout(page)
        column.setSpacing(12)
        column.addStretch(1)
        column.addWidget(self.empty)
        column.addWidget(self.to_improve, 0, Qt.AlignmentFlag.AlignCenter)
        column.addStretch(1)
        return page

    # -- what happens --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True while a training runs or is about to."""
        return self._session.busy and self._session.job_step.startswith(STEP)

    @property
    def history(self) -> TrainingHistory | None:
        """What the curves are drawn from."""
        return self._history

    def _take(self, events: tuple[Event, ...]) -> None:
        if not self.running:
            return
        first = self._recorder.last is None
        for event in events:
            self._recorder.add(event)
        if first and self._recorder.last is not None:
            self.started.emit()
        if not self._soon.isActive():
            self._soon.start()

    def _job_changed(self) -> None:
        job = self._session.job
        if self.running and job is not self._job:
            self._job, self._recorder, self._ended = job, Recorder(), ""
            self._time_left, self._left, self._paused_at = TimeLeft(), None, 0.0
        elif job is None and self._job is not None:
            if self._job.state is not JobState.DONE and self._recorder.last is not None:
                cut = "Cancelled" if self._job.state is JobState.CANCELLED else "Failed"
                self._ended = f"{cut} at step {self._recorder.last.step}"
            self._job = None
        self._follow_pause()
        self.refresh()

    def _follow_pause(self) -> None:
        """Leave pauses out of the pace."""
        now = time.monotonic()
        if self._session.paused and not self._paused_at:
            self._paused_at = now
        elif not self._session.paused and self._paused_at:
            self._time_left.waited(now - self._paused_at)
            self._paused_at = 0.0

    def _estimate(self, progress: Progress) -> None:
        if self.running:
            self._left = self._time_left.estimate(progress, time.monotonic())

    def _document_changed(self) -> None:
        if not self.running:
            self._ended = ""
            self.refresh()

    # -- showing -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the training that runs, the one that was cut off, or the document's last."""
        document = self._session.document
        summary = ""
        if self.running or self._ended:
            self._history = self._recorder.history()
        else:
            trained = [item for item in (document.applied if document else ()) if item.training]
            self._history = trained[-1].training if trained else None
            summary = trained[-1].summary if trained else ""
        self._stack.setCurrentIndex(0 if self.running or self._history is not None else 1)
        if not self.isVisible():
            return  # drawn when it is looked at
        self._show_head(summary)
        self._draw_loss()
        self._draw_rate()
        self._draw_metric()
        self._draw_drift()

    def showEvent(self, event: QShowEvent) -> None:
        self.refresh()

    def _show_head(self, summary: str) -> None:
        job, found = self._session.job, self._history
        running = self.running and job is not None
        self.pause.setVisible(running)
        self.cancel.setVisible(running)
        self.again.setVisible(not running)
        if running and job is not None:
            title = "Cancelling…" if job.cancelling else "Paused" if job.paused else "Training"
            self.pause.setText("Resume" if job.paused else "Pause")
            self.pause.setEnabled(not job.cancelling)
            self.cancel.setEnabled(not job.cancelling)
            note = self._session.live_progress.detail if self._session.live_progress else ""
            note = note if found is None else ""
        elif self._ended:
            title, note = self._ended, "The model is as it was before."
        else:
            title = "Trained"
            note = f"{summary[:1].upper()}{summary[1:]}" if summary else ""
        self.title.setText(title)
        self.note.setText(note)
        self._show_facts(found, running)

    def _show_facts(self, found: TrainingHistory | None, running: bool) -> None:
        values = dict.fromkeys(FACTS, "–")
        last = self._recorder.last if running else None
        if found is not None and found.steps:
            step = last.step if last is not None else found.steps[-1]
            seconds = last.seconds if last is not None else found.seconds[-1]
            values["Step"] = f"{step} of {found.total}"
            values["Time of a step"] = step_time(seconds)
            if running and self._left is not None:
                values["Time left"] = text.duration(self._left)
            epoch = (
                last.epoch if last is not None else max((r.epoch for r in found.results), default=0)
            )
            values["Epoch"] = f"{epoch + 1} of {found.epochs}" if found.epochs else str(epoch + 1)
            if found.best is not None:
                values["Best"] = result_text(found.best)
        for name, words in values.items():
            self.facts[name].setText(words)

    def _draw_loss(self) -> None:
        found = self._history
        if found is None:
            self.loss.clear()
            return
        curve = smoothed(found.losses, self.smoothing.value() / 100)
        self.loss.set_curve(found.steps, curve, self._end(found), np.array(found.losses))
        of = "each batch" if found.merged == 1 else f"{found.merged} batches"
        self.loss.set_caption("Loss", f"mean of {of}, and smoothed")

    def _draw_rate(self) -> None:
        found = self._history
        if found is None:
            self.rate.clear()
        else:
            self.rate.set_curve(found.steps, np.array(found.rates), self._end(found))
            self.rate.set_caption("Learning rate", "of the weights")

    def _draw_metric(self) -> None:
        found = self._history
        results = found.results if found is not None else ()
        if found is None or not results:
            self.results.clear()
            return
        name = results[0].metric
        unit = UNITS.get(name, "")
        self.results.set_y_name(f"{name} ({unit})" if unit else name)
        self.results.set_caption(name, "after each epoch, simulated")
        best = found.best
        index = results.index(best) if best is not None else -1
        words = f"best {result_text(best)}" if best is not None else ""
        planned = found.epochs if self.running else 0
        epochs = [result.epoch + 1 for result in results]
        self.results.set_results(
            epochs, [result.value for result in results], index, max(planned, *epochs, 1), words
        )

    def _draw_drift(self) -> None:
        found, document = self._history, self._session.document
        if found is None or document is None or not found.names:
            self.drift.clear(FIXED if found is not None and found.steps else "")
            self.drift.set_caption("Learned ranges")
            return
        front = _tensor_of(document, self._session.current or "", found.names)
        self.drift.set_drift(found.range_steps, found.names, found.drift(), front, self._end(found))
        detail = f"{text.plural(len(found.names), 'tensor')}, click a curve for its layer"
        if front:
            at = found.names.index(front)
            first = text.span(found.minimum[0][at], found.maximum[0][at])
            now = text.span(found.minimum[-1][at], found.maximum[-1][at])
            detail = f"{front}: {first} at first, {now} now"
        self.drift.set_caption("Learned ranges", detail)

    def _end(self, found: TrainingHistory) -> float:
        """Where the axis of steps ends: at what is planned while it runs."""
        return float(found.total if self.running else found.steps[-1])

    def _select(self, tensor: str) -> None:
        document = self._session.document
        row = document.plan.tensors.get(tensor) if document is not None else None
        if row is not None and row.layer:
            self._session.select((row.layer,))


def _tensor_of(document: Document, layer: str, names: tuple[str, ...]) -> str:
    """The learned tensor of `layer`: its output, else another one; "" if there is none."""
    own = [
        n for n in names if n in document.plan.tensors and document.plan.tensors[n].layer == layer
    ]
    outputs = [item.output for item in document.plan.layers if item.name == layer]
    return next((name for name in own if name in outputs), own[0] if own else "")


def step_time(seconds: float) -> str:
    """`18 ms`, `2.4 s`."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"


def result_text(result: TrainingResult) -> str:
    """`97.5 %, epoch 8`."""
    unit = UNITS.get(result.metric, "")
    return f"{result.value:.1f} {unit}".rstrip() + f", epoch {result.epoch + 1}"
