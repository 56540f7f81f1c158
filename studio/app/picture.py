"""A picture of the window on a document, without anyone at the screen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QDeadlineTimer, QSettings

from studio.errors import ExportError
from studio.project.document import Document

SIZE = (1600, 1000)
SETTLE_MS = 800
"""Time for layouts, deferred fits and background refreshes to come to rest."""


def save_picture(document: Document, path: Path, theme_name: str = "dark") -> None:
    """Write a PNG of the main window showing `document`; ExportError if it cannot be written."""
    from studio.app.main import headless_application
    from studio.app.settings import ViewSettings
    from studio.app.theme import THEMES, apply_theme
    from studio.app.window import MainWindow

    app = headless_application()
    apply_theme(app, THEMES[theme_name])
    with tempfile.TemporaryDirectory(prefix="quantization-studio-") as folder:
        settings = QSettings(str(Path(folder) / "view.ini"), QSettings.Format.IniFormat)
        window = MainWindow(ViewSettings(settings))
        window.resize(*SIZE)
        window.session.show(document)
        window.show()
        deadline = QDeadlineTimer(SETTLE_MS)
        while not deadline.hasExpired():
            QCoreApplication.processEvents()
        saved = window.grab().save(str(path), "PNG")
        window.session.wait(5.0)
        window.session.close_document()
        window.close()
        window.deleteLater()
        QCoreApplication.processEvents()
    if not saved:
        raise ExportError(f"The picture {path} cannot be written.", "Choose another folder.")
