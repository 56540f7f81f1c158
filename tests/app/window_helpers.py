"""What several window tests do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QWidget

from studio.app.window import MainWindow
from studio.jobs import CancelToken, Emit, Progress

FAST_TRAINING = {
    "epochs": 3,
    "batch_size": 40,
    "learning_rate": 0.01,
    "range_learning_rate": 1e-3,
}


def visible(kind: type[QWidget]) -> Any:
    """The one visible top-level widget of `kind`; None if there is none."""
    for widget in QApplication.topLevelWidgets():
        if isinstance(widget, kind) and widget.isVisible():
            return widget
    return None


def press(qtbot: Any, button: Any) -> None:
    """Click a button that can be seen and used."""
    assert button.isVisible()
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def idle(window: MainWindow) -> Callable[[], bool]:
    """Neither a job nor a refresh is running."""
    return lambda: not window.session.busy and not window.session.refreshing


class SlowStep:
    """A step that reports and then waits until it is released or cancelled."""

    def __init__(self, events: tuple[Any, ...] = ()) -> None:
        self.events = (Progress("Calibrating", 1, 4, "16 of 64 samples"), *events)
        self.release = threading.Event()
        self.error: Exception | None = None

    def __call__(self, document: Any, *_: Any) -> Callable[[Emit, CancelToken], Any]:
        def work(emit: Emit, cancel: CancelToken) -> Any:
            for event in self.events:
                emit(event)
            while not self.release.wait(0.005):
                cancel.check()
            if self.error is not None:
                raise self.error
            return document

        return work
