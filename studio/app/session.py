"""The open document, its undo history and the one job that may own it.

The session is the only place where the document changes. Edits are pure functions
`Document -> Document`, pushed on the undo stack; steps run in a background job and replace the
document when they succeed. Widgets listen to the signals and show what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QUndoStack

from studio.app import tasks
from studio.app.edits import EditCommand
from studio.app.forecasts import Forecasts
from studio.errors import CancelledError, StudioError
from studio.jobs import CancelToken, Emit, Job, JobState, Progress, TensorRanges, Warned

if TYPE_CHECKING:
    from studio.exporting.options import ExportOptions
    from studio.project.document import Document

log = logging.getLogger(__name__)

TICK_MS = 33
Work = Callable[[Emit, CancelToken], Any]


class Session(QObject):
    """Signals carry values the receivers only read.

    document_changed: the document was replaced (edit, step, open, close). opened: another model is
    shown from now on. job_changed: a job began or ended. progress: the newest `Progress` of the
    tick. ranges: the newest `TensorRanges`. step_done: title of a step that succeeded. failed: its
    title and `StudioError`. events: everything the job told since the last tick, in order.
    selection_changed: names of the selected layers, the current one last.
    """

    document_changed = Signal()
    opened = Signal()
    job_changed = Signal()
    progress = Signal(object)
    ranges = Signal(object)
    warned = Signal(str)
    step_done = Signal(str)
    failed = Signal(str, object)
    events = Signal(object)
    selection_changed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.document: Document | None = None
        self.undo_stack = QUndoStack(self)
        self.job: Job[Any] | None = None
        self.job_step = ""
        self.job_warnings: tuple[str, ...] = ()
        self.live_ranges: TensorRanges | None = None
        self.live_progress: Progress | None = None
        self.selection: tuple[str, ...] = ()
        self.forecasts = Forecasts(self)
        self._then: Callable[[Any], None] | None = None
        self._results_unsaved = False
        self._asides: list[
            tuple[Job[Any], Callable[[Any], None], Callable[[StudioError], None]]
        ] = []
        self._refresh: Job[Any] | None = None
        self._refreshed_for: tuple[object, object] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self.poll)
        self._refresh_timer = QTimer(self)
        self._refresh_timer.setSingleShot(True)
        self._refresh_timer.setInterval(60)
        self._refresh_timer.timeout.connect(self._start_refresh)

    # -- state ---------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a job owns the model."""
        return self.job is not None

    @property
    def editable(self) -> bool:
        return self.document is not None and not self.busy

    @property
    def refreshing(self) -> bool:
        """True while encodings are being brought up to date with the settings."""
        return self._refresh is not None or self._refresh_timer.isActive()

    @property
    def current(self) -> str | None:
        """Name of the layer the inspector shows."""
        return self.selection[-1] if self.selection else None

    @property
    def modified(self) -> bool:
        """True if closing would lose edits or results."""
        return self.document is not None and (
            self._results_unsaved or not self.undo_stack.isClean()
        )

    # -- selection -----------------------------------------------------------------------------

    def select(self, names: tuple[str, ...]) -> None:
        """Select layers; every view follows."""
        if names != self.selection:
            self.selection = names
            self.selection_changed.emit(names)

    # -- edits ---------------------------------------------------------------------------------

    def edit(self, text: str, change: Callable[[Document], Document]) -> bool:
        """Apply `change` as one undoable edit called `text`; False if nothing was changed."""
        if self.document is None or not self.editable:
            return False
        try:
            after = change(self.document)
        except StudioError as error:
            self.failed.emit(text, error)
            return False
        if after is self.document:
            return False
        self.undo_stack.push(EditCommand(self, text, self.document, after))
        return True

    def replace_document(self, document: Document) -> None:
        """Show `document` from now on, and bring its encodings up to date in the background."""
        before, self.document = self.document, document
        if before is not None and before.graph is not document.graph:
            self.opened.emit()
        self.document_changed.emit()
        self._keep_selection(document)
        self._schedule_refresh()

    def _keep_selection(self, document: Document) -> None:
        """Select no layer that is gone."""
        known = {layer.name for layer in document.plan.layers}
        self.select(tuple(name for name in self.selection if name in known))

    def _schedule_refresh(self) -> None:
        document = self.document
        if document is None or document.calibration is None or document.calibrated:
            return
        if self._refreshed_for != (document.config, document.calibration):
            self._refresh_timer.start()

    def _start_refresh(self) -> None:
        document = self.document
        if document is None or document.calibration is None or self.busy:
            return
        if self._refresh is not None:
            self._refresh.cancel()
        self._refreshed_for = (document.config, document.calibration)

        def done(refreshed: Document) -> None:
            self._refresh = None
            current = self.document
            if (
                current is not None
                and current.config == refreshed.config
                and current.calibration is refreshed.calibration
            ):
                self.document = replace(current, encodings=refreshed.encodings)
            self.document_changed.emit()

        def failed(error: StudioError) -> None:
            self._refresh = None
            if not isinstance(error, CancelledError):
                self.failed.emit("Refresh encodings", error)

        self._refresh = self.aside("refresh encodings", tasks.refresh(document), done, failed)

    # -- jobs ----------------------------------------------------------------------------------

    def start(self, step: str, work: Work, then: Callable[[Any], None]) -> bool:
        """Run `work` in the one job; `then` gets its result. False if a job is running already."""
        if self.busy:
            return False
        if self._refresh is not None:
            self._refresh.cancel()
        self._refresh_timer.stop()
        self.live_ranges, self.live_progress = None, None
        self.job_warnings = ()
        self._then = then
        self.job_step = step
        self.job = Job(step, work)
        log.info("%s started", step)
        self._timer.start()
        self.job_changed.emit()
        return True

    def aside(
        self,
        title: str,
        work: Work,
        done: Callable[[Any], None],
        failed: Callable[[StudioError], None],
    ) -> Job[Any]:
        """Run small work that does not own the model (previews, refreshes) beside the job."""
        job = Job(title, work)
        self._asides.append((job, done, failed))
        self._timer.start()
        return job

    def forget(self, job: Job[Any]) -> None:
        """Cancel work started by `aside`; nobody is told of its end."""
        job.cancel()
        self._asides = [
            (entry, _ignore, _ignore) if entry is job else (entry, done, failed)
            for entry, done, failed in self._asides
        ]

    def cancel(self) -> None:
        """Ask the job to stop; the document stays as it is."""
        if self.job is not None:
            self.job.cancel()
            self.job_changed.emit()

    @property
    def paused(self) -> bool:
        """True while the job waits to be resumed."""
        return self.job is not None and self.job.paused

    def toggle_pause(self) -> None:
        """Let the job wait at its next batch, or go on."""
        if self.job is None or self.job.cancelling:
            return
        if self.job.paused:
            self.job.resume()
        else:
            self.job.pause()
        self.job_changed.emit()

    def poll(self) -> None:
        """Hand out what happened since the last tick: the newest of each kind, once."""
        job = self.job
        if job is not None:
            ended = job.state is not JobState.RUNNING
            self._hand_out(job)
            if ended:
                self._end(job)
        while (place := self._ended_aside()) is not None:
            aside, done, failed = self._asides.pop(place)
            aside.wait(1.0)
            if aside.error is None:
                done(aside.result())
            else:
                failed(aside.error)
        if self.job is None and not self._asides:
            self._timer.stop()

    def _ended_aside(self) -> int | None:
        """Place of one that has ended: whoever is told of its end may forget or start others."""
        places = (
            i for i, (job, *_) in enumerate(self._asides) if job.state is not JobState.RUNNING
        )
        return next(places, None)

    def _hand_out(self, job: Job[Any]) -> None:
        newest: dict[type, Any] = {}
        happened = tuple(job.take_events())
        for event in happened:
            if isinstance(event, Warned):
                self.job_warnings = (*self.job_warnings, event.message)
                log.warning("%s", event.message)
                self.warned.emit(event.message)
            else:
                newest[type(event)] = event
        if happened:
            self.events.emit(happened)
        if Progress in newest:
            self.live_progress = newest[Progress]
            self.progress.emit(self.live_progress)
        if TensorRanges in newest:
            self.live_ranges = newest[TensorRanges]
            self.ranges.emit(self.live_ranges)

    def _end(self, job: Job[Any]) -> None:
        job.wait(1.0)
        step, then = self.job_step, self._then
        self.job, self._then, self.job_step = None, None, ""
        if job.state is JobState.DONE and then is not None:
            then(job.result())
            log.info("%s done", step)
            self.job_changed.emit()
            self.step_done.emit(step)
            return
        self.live_ranges, self.live_progress = None, None
        self.job_changed.emit()
        if job.state is JobState.FAILED:
            assert job.error is not None
            self.failed.emit(step, job.error)
        self._schedule_refresh()

    def wait(self, seconds: float) -> bool:
        """Cancel everything and wait at most `seconds`; True if every thread ended."""
        jobs = [entry[0] for entry in self._asides]
        if self.job is not None:
            jobs.append(self.job)
        for job in jobs:
            job.cancel()
        ended = [job.wait(seconds) for job in jobs]
        return all(ended)

    # -- steps ---------------------------------------------------------------------------------

    def open(self, request: tasks.OpenRequest) -> bool:
        """Open a model or project in a job; the document shown stays until it succeeds."""
        return self.start(
            f"Opening {request.source.file_name}", tasks.open_model(request), self.show
        )

    def show(self, document: Document) -> None:
        """Show a newly opened document; the undo history starts afresh."""
        self.undo_stack.clear()
        self._results_unsaved = False
        self.selection = ()
        self.document = document
        self.opened.emit()
        self.document_changed.emit()
        self.selection_changed.emit(())
        if document.plan.layers:
            first = next((x for x in document.plan.layers if x.weights), document.plan.layers[0])
            self.select((first.name,))
        self._schedule_refresh()

    def close_document(self) -> None:
        self.undo_stack.clear()
        self._results_unsaved = False
        self.document = None
        self.selection = ()
        self.opened.emit()
        self.document_changed.emit()

    def prepare_without(self, rules: tuple[str, ...], text: str) -> bool:
        """Prepare the model again without `rules`, as one undoable edit called `text`."""
        before = self.document
        if before is None:
            return False

        def prepared(document: Document) -> None:
            self.undo_stack.push(EditCommand(self, text, before, document))

        return self.start("Preparing again", tasks.prepare_again(before, rules), prepared)

    def calibrate(self) -> bool:
        return self._step("Calibrating", tasks.calibrate)

    def evaluate(self) -> bool:
        return self._step("Evaluating", tasks.evaluate)

    def analyse(self) -> bool:
        return self._step("Analysing", tasks.sensitivity)

    def export(self, folder: Path, options: ExportOptions | None = None) -> bool:
        return self._step("Exporting", lambda document: tasks.export(document, folder, options))

    def load_encodings(self, path: Path, partial: bool) -> bool:
        """Quantize the model as the file at `path` says, as one undoable edit."""
        before = self.document
        if before is None:
            return False

        def loaded(document: Document) -> None:
            self.undo_stack.push(EditCommand(self, f"Load {path.name}", before, document))

        return self.start("Loading encodings", tasks.load_encodings(before, path, partial), loaded)

    def save(self, path: Path) -> bool:
        def saved(document: Document) -> None:
            self._results_unsaved = False
            self.undo_stack.setClean()
            self.replace_document(document)

        if self.document is None:
            return False
        return self.start("Saving", tasks.save(self.document, path), saved)

    def _step(self, title: str, make: Callable[[Document], Work]) -> bool:
        def finished(document: Document) -> None:
            self._results_unsaved = True
            self.replace_document(document)

        return self.document is not None and self.start(title, make(self.document), finished)


def _ignore(result: object) -> None:
    """For work nobody waits for any more."""
