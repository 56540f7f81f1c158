"""The main window: first screen or workspace, status bar, and what each command does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer, QUrl, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QDesktopServices,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
)
from PySide6.QtWidgets import (
    QApplication,
    QMainWindow,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.app import crash, reports
from studio.app.actions import Actions
from studio.app.dialogs import messages
from studio.app.files import OPENABLE, Files
from studio.app.look import window_style
from studio.app.quantization import Quantization
from studio.app.session import Session
from studio.app.settings import ViewSettings
from studio.app.start_page import StartPage
from studio.app.status_bar import StatusBar
from studio.app.theme import DARK, LIGHT, apply_theme, current_theme, notifier
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.app.workspace import Workspace

TITLE = "Quantization Studio"


class MainWindow(QMainWindow):
    """One document, one job. The workspace is built when the first model is opened."""

    unforeseen = Signal(str)

    def __init__(self, settings: ViewSettings) -> None:
        super().__init__()
        self.settings = settings
        self.session = Session(self)
        self._close_when_idle = False
        self._after_data = ""
        self.files = Files(self.session, settings, self)
        self.quantization = Quantization(self.session, settings, self)
        self.workspace: Workspace | None = None
        self.actions_table = Actions(self.session, self._handlers(), self)
        self.addActions(self.actions_table.all())
        self.start_page = StartPage(settings)
        self.start_page.open_requested.connect(self.files.choose)
        self.start_page.package_requested.connect(self.files.open_package)
        self.start_page.example_requested.connect(self.files.open_example)
        self.start_page.path_chosen.connect(self.files.open_path)
        self.status = StatusBar(self.session)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.start_page)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.pages, 1)
        layout.addWidget(self.status)
        self.setCentralWidget(body)
        self.setAcceptDrops(True)
        self.setMinimumSize(900, 600)
        self.resize(1440, 900)
        geometry = settings.state("geometry")
        if geometry is not None:
            self.restoreGeometry(geometry)
        notifier.theme_changed.connect(self._style)
        self._style()
        self.session.opened.connect(self._opened)
        self.session.document_changed.connect(self._show_title)
        self.session.job_changed.connect(self._job_changed)
        self.session.undo_stack.cleanChanged.connect(lambda _clean: self._show_title())
        self.session.failed.connect(self._failed)
        self.session.step_done.connect(self._step_done)
        self.unforeseen.connect(self._show_unforeseen, Qt.ConnectionType.QueuedConnection)
        self._show_title()

    def _handlers(self) -> dict[str, Callable[[], object]]:
        session, files = self.session, self.files
        return {
            "open": files.choose,
            "example": files.open_example,
            "save": files.save,
            "save_as": files.save_as,
            "package": files.open_package,
            "inputs": files.change_inputs,
            "close": files.close_model,
            "quit": self.close,
            "undo": session.undo_stack.undo,
            "redo": session.undo_stack.redo,
            "reset": lambda: self._workspace().layers.reset(),
            "find": self._find,
            "filter": self._filter,
            "data": self.choose_data,
            "calibrate": self.calibrate,
            "autoquant": self._show_autoquant,
            "improve": lambda: self._workspace().center.show_page("improve"),
            "evaluate": session.evaluate,
            "analyse": self._analyse,
            "export": self.quantization.export,
            "load_encodings": self.quantization.load_encodings,
            "load_target": self.quantization.load_target,
            "save_aimet": self.quantization.save_aimet_config,
            "overrides": self.quantization.edit_overrides,
            "pause": session.toggle_pause,
            "cancel": session.cancel,
            "graph": lambda: self._workspace().center.show_page("graph"),
            "netron": lambda: self._workspace().center.show_page("netron"),
            "training": lambda: self._workspace().center.show_page("training"),
            "report": lambda: self._workspace().center.show_page("report"),
            "report_pdf": lambda: self._workspace().report.save_pdf(),
            "report_html": lambda: self._workspace().report.save_html(),
            "layers": self._show_layers,
            "tensors": lambda: self._workspace().bottom.show_page("tensors"),
            "preparation": lambda: self._workspace().bottom.show_page("preparation"),
            "validation": lambda: self._workspace().bottom.show_page("validation"),
            "sensitivity": lambda: self._workspace().bottom.show_page("sensitivity"),
            "forecast": lambda: self._workspace().bottom.show_page("forecast"),
            "problems": lambda: self._workspace().bottom.show_page("problems"),
            "log": lambda: self._workspace().bottom.show_page("log"),
            "fit": lambda: self._workspace().graph.view.fit(),
            "color_none": lambda: self._workspace().graph.set_color("none"),
            "color_bits": lambda: self._workspace().graph.set_color("bits"),
            "color_sqnr": lambda: self._workspace().graph.set_color("sqnr"),
            "color_sensitivity": lambda: self._workspace().graph.set_color("sensitivity"),
            "color_runs": lambda: self._workspace().graph.set_color("runs"),
            "expand": lambda: self._workspace().graph.open_all(True),
            "collapse": lambda: self._workspace().graph.open_all(False),
            "sizes": lambda: self._workspace().layers.sizes.toggle(),
            "theme": self.toggle_theme,
            "palette": self.show_palette,
            "log_file": self.show_log_folder,
            "about": lambda: messages.about(self).open(),
        }

    # -- what is shown -------------------------------------------------------------------------

    def _workspace(self) -> Workspace:
        if self.workspace is None:
            from studio.app.workspace import Workspace

            self.workspace = Workspace(self.session, self.actions_table, self.settings)
            self.pages.addWidget(self.workspace)
        return self.workspace

    def _opened(self) -> None:
        if self.session.document is None:
            self.start_page.refresh()
            self.pages.setCurrentWidget(self.start_page)
        else:
            again = self.pages.currentWidget() is self.workspace  # prepared again, perhaps
            self.pages.setCurrentWidget(self._workspace())
            if not again:
                self._workspace().graph.view.setFocus()

    def _show_title(self) -> None:
        document = self.session.document
        if document is None:
            self.setWindowTitle(TITLE)
            return
        name = document.path.name if document.path is not None else document.name
        mark = " •" if self.session.modified else ""
        self.setWindowTitle(f"{name}{mark} — {TITLE}")
        self._workspace().top_bar.title.setText(f"{name}{mark}")

    def _style(self, *_: object) -> None:
        self.setStyleSheet(window_style(current_theme()))

    def toggle_theme(self) -> None:
        """Light instead of dark or the other way; remembered."""
        theme = LIGHT if current_theme().dark else DARK
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        apply_theme(app, theme)
        self.settings.theme = theme.name

    def show_palette(self) -> None:
        from studio.app.command_palette import CommandPalette

        palette = CommandPalette(self.actions_table, self)
        palette.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        palette.open()

    def show_log_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(crash.log_folder())))

    def _find(self) -> None:
        self._workspace().center.show_page("graph")
        self._workspace().graph.focus_search()

    def _filter(self) -> None:
        self._workspace().bottom.show_page("layers")
        self._workspace().layers.search.setFocus()

    def _show_autoquant(self) -> None:
        workspace = self._workspace()
        workspace.center.show_page("improve")
        workspace.improve.choose("autoquant")

    def _analyse(self) -> None:
        self._workspace().bottom.show_page("sensitivity")
        self.session.analyse()

    def _show_layers(self) -> None:
        self._workspace().bottom.show_page("layers")
        self._workspace().layers.table.setFocus()

    # -- steps ---------------------------------------------------------------------------------

    def choose_data(self) -> None:
        from studio.app.dialogs.data import DataDialog

        dialog = DataDialog(self.session, self.settings, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)

        def chosen() -> None:
            settings = dialog.settings
            assert settings is not None
            self.session.edit(f"Use {settings.name}", lambda doc: doc.with_data(settings))
            if self._after_data:
                QTimer.singleShot(0, self.session.calibrate)

        def finished(result: int) -> None:
            self._after_data = ""

        dialog.accepted.connect(chosen)
        dialog.finished.connect(finished)
        dialog.open()

    def calibrate(self) -> None:
        """Calibrate; without data, ask for it first."""
        document = self.session.document
        if document is not None and document.data is None:
            self._after_data = "calibrate"
            self.choose_data()
        else:
            self.session.calibrate()

    def _step_done(self, step: str) -> None:
        document = self.session.document
        if document is None:
            return
        if step == "Exporting" and document.export is not None:
            from studio.app.dialogs.export_summary import ExportSummaryDialog

            dialog = ExportSummaryDialog(
                document.export, document.evaluation, self, reports.synthetic(document)
            )
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.open()

    def _failed(self, step: str, error: StudioError) -> None:
        if self.files.asks_again(error):
            return
        box = messages.error_dialog(self, step, error, self._show_log)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()

    def _show_log(self) -> None:
        if self.session.document is not None:
            self._workspace().bottom.show_page("log")
        else:
            self.show_log_folder()

    def _show_unforeseen(self, words: str) -> None:
        error = StudioError(
            f"Something unforeseen happened.\n{words}",
            "The log has the details. Save your project under another name and start again.",
        )
        messages.error_dialog(self, "Quantization Studio", error, self._show_log).open()

    # -- drag and drop -------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if self._dropped(event) is not None and not self.session.busy:
            event.acceptProposedAction()
            self.start_page.drop.set_active(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.start_page.drop.set_active(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self.start_page.drop.set_active(False)
        path = self._dropped(event)
        if path is not None:
            event.acceptProposedAction()
            QTimer.singleShot(0, self, lambda: self.files.open_path(path))

    def _dropped(self, event: QDropEvent) -> Path | None:
        urls = event.mimeData().urls()
        path = Path(urls[0].toLocalFile()) if urls and urls[0].isLocalFile() else None
        return path if path is not None and path.suffix.lower() in OPENABLE else None

    # -- closing -------------------------------------------------------------------------------

    def _job_changed(self) -> None:
        self._show_title()
        if self._close_when_idle and not self.session.busy:
            QTimer.singleShot(0, self, self.close)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Cancel a running job if the user agrees, wait for it, then close."""
        if self.session.busy:
            if self._close_when_idle or messages.ask_stop(self, self.session.job_step):
                self._close_when_idle = True
                self.session.cancel()
                self._job_changed()  # it may have ended while the question was open
            event.ignore()
            return
        self._close_when_idle = False
        if not self.files.may_replace(self.close):
            event.ignore()
            return
        self.settings.set_state("geometry", self.saveGeometry())
        if self.workspace is not None:
            self.workspace.save_state()
            self.workspace.netron.close_browser()
            self.workspace.report.close_browser()
        self.settings.sync()
        self.session.wait(10.0)
        self.session.undo_stack.blockSignals(True)  # it tells of its own end, too late
        event.accept()
