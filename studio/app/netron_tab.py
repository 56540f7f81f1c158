"""Netron beside the graph: shows the prepared float model, made in the background when needed."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from studio.app import tasks
from studio.app.netron_pane import NetronPane
from studio.app.session import Session
from studio.errors import StudioError


class NetronTab(QWidget):
    """The pane is made when the tab is first shown, and follows the selection from then on."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: object = None
        self.pane: NetronPane | None = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._select_later = QTimer(self)
        self._select_later.setSingleShot(True)
        self._select_later.setInterval(150)
        self._select_later.timeout.connect(self._select)
        session.opened.connect(self._opened)
        session.selection_changed.connect(self._selection_changed)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._load()
        self._select_later.start()

    def _opened(self) -> None:
        self._shown = None
        if self.pane is not None:
            self.pane.clear()
        if self.isVisible():
            self._load()

    def _load(self) -> None:
        document = self._session.document
        if document is None or self._shown is document.graph:
            return
        self._shown = graph = document.graph
        if self.pane is None:
            self.pane = NetronPane(self)
            self._layout.addWidget(self.pane)
        pane = self.pane
        name = f"{document.graph.source.name.partition(':')[0]}.onnx"

        def done(data: bytes) -> None:
            if self._shown is graph:
                pane.show_model(name, data)

        def failed(error: StudioError) -> None:
            self._shown = None

        self._session.aside("model for Netron", tasks.model_bytes(document), done, failed)

    def _selection_changed(self, names: tuple[str, ...]) -> None:
        if self.isVisible():
            self._select_later.start()

    def _select(self) -> None:
        document, name = self._session.document, self._session.current
        if document is None or name is None or self.pane is None or not self.isVisible():
            return
        layer = next((item for item in document.plan.layers if item.name == name), None)
        if layer is not None and layer.nodes:
            self.pane.select_node(layer.nodes[0])

    def close_browser(self) -> None:
        """Let WebEngine go in the order it needs; call before the window is destroyed."""
        if self.pane is not None:
            self.pane.close_browser()
