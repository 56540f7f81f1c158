"""The last lines of the log."""

from __future__ import annotations

import logging

from PySide6.QtCore import QTimer
from PySide6.QtGui import QFontDatabase, QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from studio.app.actions import Actions
from studio.app.crash import ring


class LogPanel(QWidget):
    """Reads the ring while it is visible; `bar` opens the folder of the log files."""

    def __init__(self, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._seen = -1
        self.view = QPlainTextEdit()
        self.view.setReadOnly(True)
        self.view.setAccessibleName("Log")
        self.view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.view.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.view.setFrameShape(QPlainTextEdit.Shape.NoFrame)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self.bar = QWidget()
        folder = QPushButton("Open log folder")
        folder.setProperty("role", "chip")
        folder.clicked.connect(actions["log_file"].trigger)
        bar = QHBoxLayout(self.bar)
        bar.setContentsMargins(0, 0, 8, 0)
        bar.addWidget(folder)
        self._timer = QTimer(self)
        self._timer.setInterval(250)
        self._timer.timeout.connect(self.refresh)

    def refresh(self) -> None:
        if ring.written == self._seen:
            return
        self._seen = ring.written
        bar = self.view.verticalScrollBar()
        at_end = bar.value() >= bar.maximum() - 4
        lines = ring.lines()
        self.view.setPlainText("\n".join(line for level, line in lines if level >= logging.INFO))
        if at_end:
            bar.setValue(bar.maximum())

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()
