"""Dialogs that say something: errors, unsaved changes, about."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QMessageBox, QWidget

from studio.app.icons import pixmap
from studio.errors import StudioError


def error_dialog(
    parent: QWidget, title: str, error: StudioError, show_log: Callable[[], object]
) -> QMessageBox:
    """What failed, why, what to do; a button leads to the log."""
    box = QMessageBox(parent)
    box.setIconPixmap(pixmap("error", 28, "bad", parent.devicePixelRatioF()))
    box.setWindowTitle(f"{title} failed")
    box.setText(error.message)
    box.setInformativeText(error.hint)
    close = box.addButton(QMessageBox.StandardButton.Close)
    box.setDefaultButton(close)
    button = box.addButton("Show log", QMessageBox.ButtonRole.ActionRole)
    button.clicked.connect(lambda: show_log())
    return box


def ask_unsaved(parent: QWidget, name: str) -> QMessageBox.StandardButton:
    """Save, Discard or Cancel."""
    box = QMessageBox(parent)
    box.setWindowTitle("Unsaved changes")
    box.setText(f"{name} has changes that are not saved.")
    box.setInformativeText("Save them as a project?")
    buttons = QMessageBox.StandardButton
    box.setStandardButtons(buttons.Save | buttons.Discard | buttons.Cancel)
    box.setDefaultButton(buttons.Save)
    return QMessageBox.StandardButton(box.exec())


def ask_stop(parent: QWidget, step: str) -> bool:
    """True if the running job may be cancelled to close the window."""
    box = QMessageBox(parent)
    box.setWindowTitle("Close")
    box.setText(f"{step} is still running.")
    box.setInformativeText("Cancel it and close the window?")
    stop = box.addButton("Cancel it and close", QMessageBox.ButtonRole.AcceptRole)
    box.addButton("Keep running", QMessageBox.ButtonRole.RejectRole)
    box.exec()
    return box.clickedButton() is stop


def about(parent: QWidget) -> QMessageBox:
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("quantization-studio")
    except PackageNotFoundError:
        number = "from a checkout"
    box = QMessageBox(parent)
    box.setWindowTitle("About")
    box.setText(f"Quantization Studio {number}")
    box.setInformativeText(
        "Open a trained model, decide how each layer is quantized, calibrate live, export ONNX "
        "with encodings.\n\nMIT licence. Works offline and sends nothing."
    )
    return box
