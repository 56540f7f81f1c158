"""The line at the bottom: the running job with progress, detail, time left and Cancel."""

from __future__ import annotations

import os
import time

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QWidget

from studio.app import text
from studio.app.session import Session
from studio.app.widgets import elided, label
from studio.jobs import Progress

DONE = {
    "Opening": "Opened",
    "Preparing": "Prepared",
    "Calibrating": "Calibrated",
    "Improving": "Improved",
    "Evaluating": "Evaluated",
    "Exporting": "Exported",
    "Saving": "Saved",
    "Reading": "Read",
    "Loading": "Loaded",
}


class TimeLeft:
    """Seconds until a phase is finished, from its pace so far."""

    def __init__(self) -> None:
        self._phase = ""
        self._start = 0.0
        self._first = 0

    def estimate(self, progress: Progress, now: float) -> float | None:
        """None while too little is known."""
        if progress.phase != self._phase:
            self._phase, self._start, self._first = progress.phase, now, progress.done
        done, elapsed = progress.done - self._first, now - self._start
        if done <= 0 or elapsed < 0.5 or progress.total <= progress.done:
            return None
        return elapsed / done * (progress.total - progress.done)

    def waited(self, seconds: float) -> None:
        """Leave a pause of `seconds` out of the pace."""
        self._start += seconds


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class StatusBar(QWidget):
    """Shows the job while there is one, otherwise the outcome of the last step."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("statusBar")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._session = session
        self._left = TimeLeft()
        self._started = 0.0
        self.title = label("Ready")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedSize(260, 6)
        self.bar.setAccessibleName("Progress")
        self.detail = elided("", "muted")
        self.detail.setMinimumWidth(60)
        self.cancel = QPushButton("Cancel")
        self.cancel.setProperty("role", "chip")
        self.cancel.setAccessibleName("Cancel the running step")
        self.cancel.setToolTip("Stop; the document stays as it was  (Shift+F5)")
        self.cancel.clicked.connect(session.cancel)
        self.pause = QPushButton("Pause")
        self.pause.setProperty("role", "chip")
        self.pause.clicked.connect(session.toggle_pause)
        self._paused_at = 0.0
        self.machine = label("", "muted")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 5, 12, 5)
        layout.setSpacing(12)
        layout.addWidget(self.title)
        layout.addWidget(self.bar)
        layout.addWidget(self.pause)
        layout.addWidget(self.cancel)
        layout.addWidget(self.detail, 1)
        layout.addWidget(self.machine)
        self.setFixedHeight(34)
        session.job_changed.connect(self._job_changed)
        session.progress.connect(self._show)
        session.step_done.connect(self._done)
        session.failed.connect(self._failed)
        session.undo_stack.indexChanged.connect(self._edited)
        self._clock = QTimer(self)
        self._clock.setInterval(2000)
        self._clock.timeout.connect(self._show_machine)
        self._clock.start()
        self._show_machine()
        session.opened.connect(self._job_changed)
        self._job_changed()

    def _job_changed(self) -> None:
        job = self._session.job
        running = job is not None
        self.setVisible(running or self._session.document is not None)
        self.bar.setVisible(running)
        self.cancel.setVisible(running)
        self.pause.setVisible(running)
        if job is None:
            self._paused_at = 0.0
            self.detail.setText("")
            if self.title.text().startswith("Cancelling"):
                self.title.setText("Cancelled. Nothing was changed.")
            return
        self.cancel.setEnabled(not job.cancelling)
        self.pause.setEnabled(not job.cancelling)
        if self._show_pause(job.paused, job.cancelling):
            return
        if not job.cancelling:
            self._started = job.started
        self.detail.setText("")
        self._left = TimeLeft() if not job.cancelling else self._left
        self.title.setText("Cancelling…" if job.cancelling else self._session.job_step)
        if not job.cancelling:
            self.bar.setRange(0, 0)

    def _show_pause(self, paused: bool, cancelling: bool) -> bool:
        """What the pause button says; True if the job was only paused or resumed."""
        before, now = self._paused_at, time.monotonic()
        step = self._session.job_step
        self.pause.setText("Resume" if paused else "Pause")
        name = "Go on with the running step" if paused else "Pause the running step"
        self.pause.setAccessibleName(name)
        self.pause.setToolTip(f"{name}  (F7)")
        if paused and not before:
            self._paused_at = now
            self.title.setText(f"{step}: paused")
            if self.bar.maximum() == 0:  # moves to and fro
                self.bar.setRange(0, 1)
            return True
        if before and not paused and not cancelling:
            self._paused_at = 0.0
            self._left.waited(now - before)
            self._started += now - before
            self.title.setText(step)
            return True
        return bool(paused and before)

    def _show(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        parts = [progress.phase] if progress.phase != self._session.job_step else []
        words = text.progress(progress.done, progress.total, progress.detail)
        if words:
            parts.append(words)
        left = self._left.estimate(progress, time.monotonic())
        if left is not None:
            parts.append(f"{text.duration(left)} left")
        self.detail.setText(" · ".join(parts))

    def _done(self, step: str) -> None:
        verb, _, what = step.partition(" ")
        took = time.monotonic() - self._started
        words = f"{DONE.get(verb, verb)} {what}".strip()
        self.title.setText(f"{words} in {text.duration(took)}" if took >= 1 else words)
        self.detail.setText("")

    def _edited(self, index: int) -> None:
        """What the last edit was; nothing of it after the history was emptied."""
        if self._session.document is None or self._session.busy:
            return
        stack = self._session.undo_stack
        if index < stack.count() and stack.redoText():
            self.title.setText(f"Undone: {stack.redoText()}")
        elif stack.undoText():
            self.title.setText(stack.undoText())

    def _failed(self, step: str, error: object) -> None:
        self.title.setText(f"{step}: failed")

    def _show_machine(self) -> None:
        cores = os.cpu_count() or 1
        memory = resident_bytes()
        used = f" · {text.size(memory)}" if memory else ""
        self.machine.setText(f"CPU · {max(1, cores - 1)} of {text.plural(cores, 'thread')}{used}")
