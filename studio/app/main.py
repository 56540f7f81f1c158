"""Starting the window. Nothing of the engine is imported before the first screen is drawn."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QSettings, QTimer
from PySide6.QtWidgets import QApplication

from studio.app import crash
from studio.app.netron_pane import register_netron_scheme
from studio.app.settings import ViewSettings

NAME = "Quantization Studio"
DESKTOP_FILE = "quantization-studio"


def make_application(arguments: Sequence[str]) -> QApplication:
    """The application object with its name, icon and the Netron scheme; at most one a process."""
    register_netron_scheme()
    app = QApplication(list(arguments))
    from studio.app.icons import app_icon

    app.setApplicationName(DESKTOP_FILE)
    app.setApplicationDisplayName(NAME)
    app.setDesktopFileName(DESKTOP_FILE)
    app.setWindowIcon(app_icon())
    return app


def run(path: str | None = None, settings: QSettings | None = None) -> int:
    """Show the window, on the model or project `path` if one is given; returns the exit code.

    `settings` is where sizes, theme and recent files are kept (default: the user's own).
    """
    app = make_application(sys.argv[:1])
    crash.start_logging(crash.log_folder())
    from studio.app.theme import apply_theme
    from studio.app.window import MainWindow, preferred_theme

    view = ViewSettings(settings or QSettings(DESKTOP_FILE, DESKTOP_FILE))
    apply_theme(app, preferred_theme(view.theme))
    window = MainWindow(view)
    crash.install_hooks(window.unforeseen.emit)
    signal.signal(signal.SIGINT, lambda *_: app.quit())
    window.show()
    if path is not None:
        chosen = Path(path)
        QTimer.singleShot(0, window, lambda: window.open_path(chosen))
    code = app.exec()
    window.session.wait(10.0)
    return code
