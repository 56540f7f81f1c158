"""What the commands about settings, targets, encodings and the export ask the user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtWidgets import QDialog, QFileDialog, QWidget

from studio.app import tasks
from studio.app.dialogs import messages
from studio.app.session import Session
from studio.app.settings import ViewSettings
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.exporting.encodings import MatchReport

ENCODINGS_FILTER = "Encodings (*.encodings *.json);;All files (*)"
TARGET_FILTER = "Rule files and AIMET configurations (*.json);;All files (*)"


class Quantization(QObject):
    """Asks with dialogs over `window`; changes go through the session."""

    def __init__(self, session: Session, settings: ViewSettings, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._settings = settings
        self._window = window

    def _open(self, dialog: QDialog, accepted: Callable[[], object]) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.accepted.connect(accepted)
        dialog.open()

    def _say(self, title: str, error: StudioError) -> None:
        messages.error_dialog(self._window, title, error, lambda: None).open()

    # -- overrides -----------------------------------------------------------------------------

    def edit_overrides(self) -> None:
        """Show the list of settings by name and pattern."""
        from studio.app.dialogs.overrides import OverridesDialog

        if not self._session.editable:
            return
        dialog = OverridesDialog(self._session, self._window)

        def accepted() -> None:
            layers = dialog.layers
            self._session.edit(
                "Edit overrides",
                lambda document: document.with_config(
                    document.config.model_copy(update={"layers": layers})
                ),
            )

        self._open(dialog, accepted)

    # -- targets -------------------------------------------------------------------------------

    def load_target(self) -> None:
        """Ask for a rule file or an AIMET configuration, and use it as the target."""
        name, _ = QFileDialog.getOpenFileName(
            self._window, "Load rule file", self._settings.folder("target"), TARGET_FILTER
        )
        if name:
            self._settings.set_folder("target", Path(name).parent)
            self.set_target(name)

    def set_target(self, name: str) -> None:
        """Use the bundled target or the file `name` as one undoable edit."""
        self._session.edit(
            f"Set target to {Path(name).stem}",
            lambda document: document.with_config(document.config.with_target(name)),
        )

    def save_aimet_config(self) -> None:
        """Write the document's target as AIMET's quantsim configuration."""
        from studio.sim.aimet_config import aimet_config
        from studio.sim.target import load_target
        from studio.whole_files import write_text

        document = self._session.document
        if document is None:
            return
        title = "Save as AIMET configuration"
        try:
            target = load_target(document.config.target)
            words = json.dumps(aimet_config(target), indent=4) + "\n"
        except StudioError as error:
            self._say(title, error)
            return
        proposal = Path(self._settings.folder("target")) / f"{target.name}_quantsim_config.json"
        name, _ = QFileDialog.getSaveFileName(
            self._window, title, str(proposal), "AIMET configuration (*.json)"
        )
        if not name:
            return
        path = Path(name) if Path(name).suffix else Path(name).with_suffix(".json")
        self._settings.set_folder("target", path.parent)
        try:
            write_text(path, words)
        except StudioError as error:
            self._say(title, error)

    # -- encodings -----------------------------------------------------------------------------

    def load_encodings(self) -> None:
        """Ask for an encodings file, show how it fits, and load it."""
        name, _ = QFileDialog.getOpenFileName(
            self._window, "Load encodings", self._settings.folder("encodings"), ENCODINGS_FILTER
        )
        if name:
            self._settings.set_folder("encodings", Path(name).parent)
            self.match_encodings(Path(name))

    def match_encodings(self, path: Path) -> None:
        """Read the file at `path` and show how it fits the model, before anything is changed."""
        document = self._session.document
        if document is not None and not self._session.busy:
            self._session.start(
                "Reading encodings",
                tasks.match_encodings(document, path),
                lambda report: self._ask_encodings(path, report),
            )

    def _ask_encodings(self, path: Path, report: MatchReport) -> None:
        from studio.app.dialogs.encodings_match import EncodingsMatchDialog

        dialog = EncodingsMatchDialog(report, self._window)
        self._open(dialog, lambda: self._session.load_encodings(path, dialog.partial))

    # -- export --------------------------------------------------------------------------------

    def export(self) -> None:
        """Ask where to and as what, then export."""
        from studio.app.dialogs.export_options import ExportDialog

        document = self._session.document
        if document is None or self._session.busy:
            return
        dialog = ExportDialog(document, self._settings.folder("export"), self._window)

        def accepted() -> None:
            self._settings.set_folder("export", dialog.folder)
            self._session.export(dialog.folder, dialog.options)

        self._open(dialog, accepted)
