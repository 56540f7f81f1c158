"""The report of the document as it is now: shown, saved as HTML or PDF, opened in the browser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import QDesktopServices, QHideEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from studio.app import tasks
from studio.app.report.view import ReportView
from studio.app.session import Session
from studio.app.settings import ViewSettings
from studio.app.widgets import elided
from studio.errors import CancelledError, StudioError
from studio.whole_files import write_text

if TYPE_CHECKING:
    from studio.app.report.printing import Printer
    from studio.jobs import Job
    from studio.project.document import Document
    from studio.project.validation import Measured

DELAY_MS = 250
STEP = "Writing the report"
WRITING = "Writing the report …"


class ReportTab(QWidget):
    """Made anew, in the background, whenever it is looked at or saved and the document changed.

    `bar` holds what can be done with it. `open_url` is replaced in tests.
    """

    def __init__(
        self,
        session: Session,
        settings: ViewSettings,
        parent: QWidget | None = None,
        open_url: Callable[[QUrl], object] = QDesktopServices.openUrl,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._settings = settings
        self._open_url = open_url
        self._html = ""
        self._made_for: Document | None = None
        self._measured: tuple[object, object, Measured] | None = None
        self._job: Job[Any] | None = None
        self._making: Document | None = None
        self._waiting: list[Callable[[str], None]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.printer: Printer | None = None
        self.view = ReportView()
        self.state = elided("", "muted")
        self.pdf = self._button("Save as PDF…", self.save_pdf)
        self.html = self._button("Save as HTML…", self.save_html)
        self.browser = self._button("Open in browser", self.open_in_browser)
        self.bar = QWidget()
        tools = QHBoxLayout(self.bar)
        tools.setContentsMargins(0, 0, 8, 0)
        tools.setSpacing(4)
        self.state.setMinimumWidth(220)
        for widget in (self.state, self.pdf, self.html, self.browser):
            tools.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self._start)
        session.document_changed.connect(self._changed)

    def _button(self, text: str, clicked: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setProperty("role", "chip")
        button.clicked.connect(lambda: clicked())
        return button

    # -- making it -----------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._changed()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        if not self._waiting:
            self._timer.stop()

    def _changed(self) -> None:
        document = self._session.document
        if document is None:
            self._forget()
        elif document is not self._made_for and (self.isVisible() or self._waiting):
            if not self._html:
                self.view.say(WRITING)
            self._timer.start()

    def _forget(self) -> None:
        self._timer.stop()
        if self._job is not None:
            self._session.forget(self._job)
        self._job, self._making, self._made_for, self._measured = None, None, None, None
        self._html, self._waiting = "", []
        self.view.say("")
        self.state.setText("")

    def _start(self) -> None:
        document = self._session.document
        if document is None or document is self._making:
            return
        if self._job is not None:
            self._session.forget(self._job)
        measured = None
        if self._measured is not None and self._measured[:2] == (document.graph, document.data):
            measured = self._measured[2]
        self._making = document

        def done(result: tuple[Measured, str]) -> None:
            self._job, self._making = None, None
            self._measured = (document.graph, document.data, result[0])
            self._made_for, self._html = document, result[1]
            if self.isVisible():
                self.view.show_html(self._html)
            waiting, self._waiting = self._waiting, []
            for use in waiting:
                use(self._html)
            self._changed()  # the document may have changed meanwhile

        def failed(error: StudioError) -> None:
            self._job, self._making = None, None
            waited, self._waiting = bool(self._waiting), []
            self.state.setText("")
            if isinstance(error, CancelledError):
                return
            self._made_for, self._html = document, ""
            self.view.say(f"{error.message}\n{error.hint}".strip())
            if waited:
                self._session.failed.emit(STEP, error)

        work = tasks.report(document, measured)
        self._job = self._session.aside("report", work, done, failed)

    def _with_report(self, use: Callable[[str], None]) -> None:
        """Call `use` with the report of the document as it is now, once that is made."""
        if self._html and self._made_for is self._session.document:
            use(self._html)
        elif self._session.document is not None:
            self._waiting.append(use)
            self._timer.stop()
            self._start()

    # -- using it ------------------------------------------------------------------------------

    def save_html(self) -> None:
        """Ask for a name, then write the file."""
        path = self._ask("HTML", ".html")
        if path is not None:
            self._with_report(lambda html: self._write(html, path))

    def save_pdf(self) -> None:
        """Ask for a name, then print the report to it beside everything else."""
        if self.printer is not None:
            return
        path = self._ask("PDF", ".pdf")
        if path is not None:
            self.state.setText("Saving the PDF …")
            self._with_report(lambda html: self._print(html, path))

    def open_in_browser(self) -> None:
        """Show the report in the desktop's browser, from a file that lives as long as the
        window."""
        self._with_report(self._open)

    def _ask(self, kind: str, suffix: str) -> Path | None:
        document = self._session.document
        if document is None:
            return None
        folder = Path(self._settings.folder("report"))
        name, _ = QFileDialog.getSaveFileName(
            self,
            f"Save the report as {kind}",
            str(folder / f"{document.name} report{suffix}"),
            f"{kind} (*{suffix})",
        )
        if not name:
            return None
        path = Path(name)
        path = path if path.suffix.lower() == suffix else path.with_name(f"{path.name}{suffix}")
        self._settings.set_folder("report", path.parent)
        return path

    def _write(self, html: str, path: Path) -> None:
        if self._written(html, path):
            self._saved(path)

    def _written(self, html: str, path: Path) -> bool:
        try:
            write_text(path, html)
        except StudioError as error:
            self._session.failed.emit(STEP, error)
            return False
        return True

    def _print(self, html: str, path: Path) -> None:
        from studio.app.report.printing import Printer

        try:
            self.printer = Printer(html, path, self)
        except StudioError as error:
            self._not_printed(error)
            return
        self.pdf.setEnabled(False)
        self.printer.done.connect(self._printed)
        self.printer.failed.connect(self._not_printed)

    def _printed(self, path: Path) -> None:
        self.printer = None
        self.pdf.setEnabled(True)
        self._saved(path)

    def _not_printed(self, error: StudioError) -> None:
        self.printer = None
        self.pdf.setEnabled(True)
        self.state.setText("")
        self._session.failed.emit(STEP, error)

    def _saved(self, path: Path) -> None:
        self.state.setText(f"Saved as {path.name}")
        self.state.setToolTip(str(path))

    def _open(self, html: str) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="quantization-studio-")
        path = Path(self._folder.name) / "report.html"
        if self._written(html, path):
            self._open_url(QUrl.fromLocalFile(str(path)))

    def close_browser(self) -> None:
        """Let WebEngine go in the order it needs; call before the window is destroyed."""
        if self.printer is not None:
            self.printer.close()
            self.printer = None
        self.view.close_browser()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
