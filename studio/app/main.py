"""Starting the window. Nothing of the engine is imported before the first screen is drawn."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QSettings, Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from studio.app import crash
from studio.app.settings import ViewSettings

if TYPE_CHECKING:
    from studio.app.theme import Theme

NAME = "Quantization Studio"
DESKTOP_FILE = "quantization-studio"


def make_application(arguments: Sequence[str]) -> QApplication:
    """The application object with its name, ready for WebEngine; at most one a process."""
    # For the Netron pane, whose module is loaded when the pane is first shown.
    QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_ShareOpenGLContexts)
    app = QApplication(list(arguments))
    app.setApplicationName(DESKTOP_FILE)
    app.setApplicationDisplayName(NAME)
    app.setDesktopFileName(DESKTOP_FILE)
    return app


def headless_application() -> QApplication:
    """The application there is, else a new one; where there is no screen Qt draws into memory."""
    existing = QApplication.instance()
    if isinstance(existing, QApplication):
        return existing
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    return make_application(["quant-studio"])


def run(
    path: str | None = None, settings: QSettings | None = None, *, example: bool = False
) -> int:
    """Show the window, on the model or project `path` or the bundled example; the exit code.

    `settings` is where sizes, theme and recent files are kept (default: the user's own).
    """
    app = make_application(sys.argv[:1])
    sys.setswitchinterval(0.001)  # a job's Python code gives way to the window sooner
    crash.start_logging(crash.log_folder())
    from studio.app.theme import apply_theme
    from studio.app.window import MainWindow

    view = ViewSettings(settings or QSettings(DESKTOP_FILE, DESKTOP_FILE))
    apply_theme(app, preferred_theme(view.theme))
    window = MainWindow(view)
    crash.install_hooks(window.unforeseen.emit)
    signal.signal(signal.SIGINT, lambda *_: app.quit())
    window.show()
    QTimer.singleShot(0, app, _set_icon)
    if path is not None:
        chosen = Path(path)
        QTimer.singleShot(0, window, lambda: window.files.open_path(chosen))
    elif example:
        QTimer.singleShot(0, window, window.files.open_example)
    code = app.exec()
    window.session.undo_stack.blockSignals(True)  # quit by a signal: it was not closed
    window.session.wait(10.0)
    return code


def _set_icon() -> None:
    from studio.app.icons import app_icon

    QApplication.setWindowIcon(app_icon())


def preferred_theme(name: str) -> Theme:
    """The remembered theme, else the desktop's, else dark."""
    from studio.app.theme import DARK, LIGHT

    if name:
        return LIGHT if name == "light" else DARK
    light = QGuiApplication.styleHints().colorScheme() is Qt.ColorScheme.Light
    return LIGHT if light else DARK
