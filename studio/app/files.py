"""Opening and saving: which file, may the code in it run, may unsaved changes go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer
from PySide6.QtWidgets import QFileDialog, QMessageBox, QWidget

from studio.app import tasks
from studio.app.dialogs import messages
from studio.app.session import Session
from studio.app.settings import ViewSettings
from studio.errors import StudioError
from studio.graph.sources.interface import InputRow, InputsNeededError
from studio.graph.sources.kinds import CONSENT, SUFFIXES, Kind, OpeningConsentError, kind_of
from studio.graph.sources.source import ModelSource, parse_source

OPENABLE = (*SUFFIXES, ".qstudio")
OPEN_FILTER = (
    f"Models and projects ({' '.join('*' + suffix for suffix in OPENABLE)});;All files (*)"
)


class Files(QObject):
    """Asks with dialogs over `window`; the work itself is the session's."""

    def __init__(self, session: Session, settings: ViewSettings, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._settings = settings
        self._window = window
        self._after_save: Callable[[], object] | None = None
        self._request: tasks.OpenRequest | None = None
        session.step_done.connect(self._step_done)

    def choose(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self._window, "Open", self._settings.folder("open"), OPEN_FILTER
        )
        if name:
            self.open_path(Path(name))

    def open_path(self, path: Path) -> None:
        """Open a model or project; what runs code asks for consent first. Also
        `file.py:factory(...)` and `package.module:factory(...)`."""
        if self._session.busy or not self.may_replace(lambda: self.open_path(path)):
            return
        try:
            bare = path.suffix == ".py"  # the dialog asks for the factory
            source = ModelSource(path, "") if bare else parse_source(str(path))
        except StudioError as error:
            self._say(error)
            return
        if source.path is not None:
            source = replace(source, path=source.path.absolute())
        request = tasks.OpenRequest(source)
        kind = None if request.is_project else _kind(source)
        if kind in CONSENT:
            self._ask_consent(request, kind)
        else:
            self._open(request)

    def open_package(self) -> None:
        """Ask for the name of an installed model, and open it."""
        if not self._session.busy and self.may_replace(self.open_package):
            request = tasks.OpenRequest(ModelSource(None, "", ""))
            self._ask_consent(request, Kind.PACKAGE)

    def _say(self, error: StudioError) -> None:
        messages.error_dialog(self._window, "Opening", error, lambda: None).open()

    def _open(self, request: tasks.OpenRequest) -> None:
        self._request = request
        if request.path is not None:
            self._settings.set_folder("open", request.path.parent)
        self._session.open(request)

    def _ask_consent(self, request: tasks.OpenRequest, kind: Kind, name: str = "") -> None:
        from studio.app.dialogs.consent import ConsentDialog

        dialog = ConsentDialog(request, kind, self._window, name=name)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.accepted.connect(lambda: self._open(dialog.request or request))
        dialog.open()

    def _ask_inputs(self, request: tasks.OpenRequest, error: InputsNeededError) -> None:
        from studio.app.dialogs.inputs import InputsDialog

        dialog = InputsDialog(request.source, error.rows, str(error.message), self._window)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.accepted.connect(
            lambda: self._open(replace(request, source=dialog.source or request.source))
        )
        dialog.open()

    def change_inputs(self) -> None:
        """Open the model again with other example inputs, fixed values or open sizes."""
        document = self._session.document
        if document is None or self._session.busy or not self.may_replace(self.change_inputs):
            return
        graph = document.graph
        fixed = graph.source.fixed_inputs
        shown = [
            InputRow(
                value.name or "",
                ",".join(str(size or "") for size in graph.example_shape(value.name or "")),
                "" if value.dtype is None else str(value.dtype.numpy()),
            )
            for value in graph.inputs
        ]
        rows = [*shown, *(InputRow(name, fixed=repr(value)) for name, value in fixed.items())]
        error = InputsNeededError("", "", rows)
        self._ask_inputs(tasks.OpenRequest(graph.source, trust=True), error)

    def open_example(self) -> None:
        """Open the bundled example."""
        if not self._session.busy and self.may_replace(self.open_example):
            self._request = None
            step = "Opening the example"
            self._session.start(step, tasks.open_example(), self._session.show)

    def may_replace(self, again: Callable[[], object]) -> bool:
        """Ask about unsaved changes; False if the user would rather stay.

        If they choose to save first, `again` is called once that is done.
        """
        if not self._session.modified:
            return True
        assert self._session.document is not None
        answer = messages.ask_unsaved(self._window, self._session.document.name)
        if answer == QMessageBox.StandardButton.Save:
            self._after_save = again
            self.save()
            return False
        return answer == QMessageBox.StandardButton.Discard

    def save(self) -> None:
        document = self._session.document
        if document is not None and document.path is not None:
            self._session.save(document.path)
        else:
            self.save_as()

    def save_as(self) -> None:
        document = self._session.document
        if document is None:
            return
        proposal = str(Path(self._settings.folder("save")) / f"{document.name}.qstudio")
        name, _ = QFileDialog.getSaveFileName(
            self._window, "Save project", proposal, "Project (*.qstudio)"
        )
        if not name:
            self._after_save = None
        else:
            path = Path(name)
            path = path if path.suffix == ".qstudio" else path.with_name(f"{path.name}.qstudio")
            self._settings.set_folder("save", path.parent)
            self._session.save(path)

    def close_model(self) -> None:
        """Back to the first screen."""
        if self.may_replace(self.close_model):
            self._session.close_document()

    def _step_done(self, step: str) -> None:
        document = self._session.document
        if step == "Saving" and document is not None and document.path is not None:
            self._settings.add_recent(document.path)
            if self._after_save is not None:
                QTimer.singleShot(0, self._after_save)
                self._after_save = None
        elif step.startswith("Opening") and self._request is not None and self._request.path:
            self._settings.add_recent(self._request.path)

    def asks_again(self, error: StudioError) -> bool:
        """A step failed: nothing is done after it. True if only an answer of the user was missing,
        for which a dialog asks now."""
        self._after_save = None
        request = self._request
        if request is None:
            return False
        if isinstance(error, OpeningConsentError) and not request.trust:
            self._ask_consent(request, error.kind, error.source.file_name)
            return True
        if isinstance(error, InputsNeededError) and not request.is_project:
            self._ask_inputs(request, error)
            return True
        return False


def _kind(source: ModelSource) -> Kind | None:
    """The kind of `source`; None if it cannot be opened: the job says why."""
    try:
        return kind_of(source)
    except StudioError:
        return None
