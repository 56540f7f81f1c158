"""The report as PDF, made by Qt WebEngine from the same HTML, for paper: light, tables opened.

The page is loaded from a private folder, and may load nothing else.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from PySide6.QtCore import QEventLoop, QLoggingCategory, QObject, Qt, QTimer, QUrl, Signal
from shiboken6 import delete, isValid

from studio.app.report.profile import private_profile
from studio.errors import ExportError
from studio.exporting.report import opened
from studio.whole_files import write_error

PATIENCE_MS = 180_000
"""A report of many thousand rows takes some ten seconds."""

NO_WEBENGINE = (
    "A PDF needs Qt WebEngine, which cannot be loaded here: {0}.",
    "Save the report as HTML, open it in a browser and print it there.",
)


def require_webengine() -> None:
    """Raises ExportError where Qt WebEngine is missing."""
    try:
        import PySide6.QtWebEngineCore  # noqa: F401
    except ImportError as error:
        raise ExportError(NO_WEBENGINE[0].format(error), NO_WEBENGINE[1]) from error


class Printer(QObject):
    """Prints one HTML document to a file without blocking the window.

    `done` carries the path of the PDF, `failed` an ExportError; one of them comes, once. The file
    is there whole or not at all.
    """

    done = Signal(object)
    failed = Signal(object)

    def __init__(self, html: str, path: Path, parent: QObject | None = None) -> None:
        """Raises ExportError where Qt WebEngine is missing or the file cannot be written."""
        super().__init__(parent)
        require_webengine()
        from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineSettings

        self._profile, self._interceptor = private_profile()
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self._temporary.touch()
        except OSError as error:
            raise write_error(path, error) from error
        self._folder = tempfile.TemporaryDirectory(prefix="quantization-studio-")
        source = Path(self._folder.name) / "report.html"
        source.write_text(opened(html), encoding="utf-8")
        self._page = QWebEnginePage(self._profile)
        margins = QWebEngineSettings.WebAttribute.PreferCSSMarginsForPrinting
        self._page.settings().setAttribute(margins, True)
        self._page.loadFinished.connect(self._loaded)
        self._page.pdfPrintingFinished.connect(self._printed)
        self._page.renderProcessTerminated.connect(lambda *_: self._fail("the renderer ended"))
        self._patience = QTimer(self, singleShot=True, interval=PATIENCE_MS)
        self._patience.timeout.connect(lambda: self._fail("it took too long"))
        self._patience.start()
        self._page.load(QUrl.fromLocalFile(str(source)))

    def _loaded(self, well: bool) -> None:
        if well:
            self._page.printToPdf(str(self._temporary))
        else:
            self._fail("the page could not be loaded")

    def _printed(self, _path: str, well: bool) -> None:
        if not well:
            self._fail("printing failed")
            return
        try:
            os.replace(self._temporary, self._path)
        except OSError as error:
            self._end()
            self.failed.emit(write_error(self._path, error))
            return
        self._end()
        self.done.emit(self._path)

    def _fail(self, why: str) -> None:
        self._end()
        self.failed.emit(ExportError(f"The PDF {self._path} was not made: {why}.", NO_WEBENGINE[1]))

    def _end(self) -> None:
        """Let go of the page before its profile, as WebEngine requires, but not inside its own
        signal."""
        self._patience.stop()
        self._page.blockSignals(True)
        self._temporary.unlink(missing_ok=True)
        QTimer.singleShot(0, self, self.close)

    def close(self) -> None:
        """Let go of everything now; call before the application ends."""
        for thing in (self._page, self._profile):
            if isValid(thing):
                delete(thing)
        self._temporary.unlink(missing_ok=True)
        self._folder.cleanup()
        self.deleteLater()


def write_pdf(html: str, path: Path) -> None:
    """Print `html` to `path` and wait for it, without a window. Raises ExportError."""
    from studio.app.main import headless_application

    # What Chromium and Qt say about missing graphics is of no use to whoever waits for a file.
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--disable-gpu --log-level=3")
    QLoggingCategory.setFilterRules("default.warning=false")
    app = headless_application()
    loop = QEventLoop()
    problems: list[ExportError] = []
    printer = Printer(html, path)
    queued = Qt.ConnectionType.QueuedConnection
    printer.done.connect(loop.quit, queued)
    printer.failed.connect(problems.append)
    printer.failed.connect(loop.quit, queued)
    loop.exec()
    printer.close()
    app.processEvents()
    if problems:
        raise problems[0]
