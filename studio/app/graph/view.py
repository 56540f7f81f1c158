"""The graph a user works with: selection, search, keyboard, mouse."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, Qt, Signal
from PySide6.QtGui import (
    QContextMenuEvent,
    QKeyEvent,
    QMouseEvent,
    QResizeEvent,
    QShowEvent,
)
from PySide6.QtWidgets import QWidget

from studio.app.graph.boxes import BoxesView
from studio.app.graph.canvas import DRAG_PIXELS, MARGIN
from studio.app.graph.items import ActiveEdges, NodeItem
from studio.app.graph.model import Arrange, CanvasNode, searchable


class GraphView(BoxesView):
    """Boxes one can select, find, open and walk along.

    `selected` and `activated` carry the id of a box and are sent for what the user does, not for
    calls of `select`. Keys: arrows follow the lines or go sideways, Home and End the first and
    last box, Enter activates, Space opens and closes, F fits, + - zoom, 0 is 100 %.
    """

    selected = Signal(str)
    activated = Signal(str)
    toggled = Signal(str)  # a box that can be opened, or a frame that can be closed
    context_menu_requested = Signal(str, QPoint)  # id or "", global position

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(self.tr("Model graph"))
        self._current = ""
        self._hovered: NodeItem | None = None
        self._button_press: QPoint | None = None  # the last press, if on a box's button
        self._matches: list[str] = []
        self._active_edges = ActiveEdges(self._ink)
        self.scene().addItem(self._active_edges)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def _put(self, nodes: Sequence[CanvasNode], arrange: Arrange) -> None:
        self._hovered = None
        self._current = ""
        self._matches = []
        super()._put(nodes, arrange)
        self._active_edges = ActiveEdges(self._ink)
        self.scene().addItem(self._active_edges)

    # Selection

    @property
    def current(self) -> str:
        """Id of the selected box, or ""."""
        return self._current

    def select(self, name: str, center: bool = True) -> None:
        """Select the box `name` ("" or an unknown id: none) and bring it into view."""
        if name not in self._items:
            name = ""
        if self._current:
            self._set_active(self._current, False)
        self._current = name
        active = [(self._lines[i], self._edges[i].label) for i in self._edges_of.get(name, [])]
        self._active_edges.set_edges(active)
        if not name:
            return
        self._set_active(name, True)
        node = self._items[name].node
        self.setAccessibleDescription(
            " ".join(part for part in (node.title, node.subtitle, node.badge) if part)
        )
        if center:
            self._reveal(name)

    def find(self, text: str) -> list[str]:  # type: ignore[override]
        """Ids of boxes whose id, title, subtitle or badge contains every word, in graph order.

        The boxes found are outlined until the next call.
        """
        for name in self._matches:
            self._mark(name, False)
        words = text.lower().split()
        self._matches = [
            name
            for name, item in self._items.items()
            if words and all(word in searchable(item.node) for word in words)
        ]
        for name in self._matches:
            self._mark(name, True)
        return list(self._matches)

    def _mark(self, name: str, on: bool) -> None:
        self._items[name].matched = on
        self._items[name].update()

    def _set_active(self, name: str, on: bool) -> None:
        item = self._items[name]
        item.active = on
        item.setZValue(item.level + (0.5 if on else 0))
        item.update()

    def _choose(self, name: str | None, center: bool = True) -> None:
        if name and name in self._items:
            changed = name != self._current
            self.select(name, center)
            if changed:
                self.selected.emit(name)

    def _uncover_current(self) -> None:
        """Move the selected box out from under the overlays, if there is room beside them."""
        if not self._current or self._start_pending:
            return
        box, edge = self.node_rect(self._current), self.minimap.geometry().right() + MARGIN
        shift = edge - box.left()
        if 0 < shift < edge and box.right() + shift <= self.viewport().width():
            bar = self.horizontalScrollBar()
            bar.setValue(bar.value() - round(shift))

    # Events

    def pressed_at(self, position: QPoint) -> None:
        name = self.node_at(position)
        item = self._items.get(name)
        spot = self.mapToScene(position)
        self._button_press = None
        if item is not None and item.button.contains(item.mapFromScene(spot)):
            self._button_press = position
            self.toggled.emit(name)
        else:
            self._choose(name, center=False)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        position, first = event.position().toPoint(), self._button_press
        name = self.node_at(position)
        second = first is not None and (position - first).manhattanLength() < DRAG_PIXELS
        if name and not second:  # the button has done it at the first click
            (self.toggled if self._items[name].node.toggle else self.activated).emit(name)

    def hovered_at(self, position: QPoint) -> None:
        item = self._items.get(self.node_at(position))
        shape = Qt.CursorShape.ArrowCursor if item is None else Qt.CursorShape.PointingHandCursor
        self.viewport().setCursor(shape)
        if item is self._hovered:
            return
        for changed, on in ((self._hovered, False), (item, True)):
            if changed is not None:
                changed.hovered = on
                changed.update()
        self._hovered = item

    def leaveEvent(self, event: QEvent) -> None:
        self.hovered_at(QPoint(-1, -1))
        super().leaveEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            name = self._current
            spot = self.node_rect(name).center().toPoint() if name else QPoint(MARGIN, MARGIN)
            where = self.viewport().mapToGlobal(spot)
        else:
            name = self.node_at(self.viewport().mapFromGlobal(event.globalPos()))
            where = event.globalPos()
            self._choose(name, center=False)
        self.context_menu_requested.emit(name, where)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if (
            event.modifiers()
            & ~Qt.KeyboardModifier.KeypadModifier
            & ~(Qt.KeyboardModifier.ShiftModifier)
        ):
            event.ignore()
            return
        key, near = event.key(), self._neighbours
        names = list(self._items)
        if key == Qt.Key.Key_F:
            self.fit()
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self.zoom_in()
        elif key == Qt.Key.Key_Minus:
            self.zoom_out()
        elif key == Qt.Key.Key_0:
            self.set_zoom(1.0)
        elif key == Qt.Key.Key_Home and names:
            self._choose(names[0])
        elif key == Qt.Key.Key_End and names:
            self._choose(names[-1])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self._current:
            self.activated.emit(self._current)
        elif key == Qt.Key.Key_Space and self._current:
            if self._items[self._current].node.toggle:
                self.toggled.emit(self._current)
        elif key in _STEPS and names:
            if not self._current:
                self._choose(names[0])
            elif key == Qt.Key.Key_Down:
                self._choose(near.below(self._current))
            elif key == Qt.Key.Key_Up:
                self._choose(near.above(self._current))
            else:
                self._choose(near.beside(self._current, 1 if key == Qt.Key.Key_Right else -1))
        else:
            super().keyPressEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        pending = self._start_pending
        super().showEvent(event)
        if pending and self._current:
            self._reveal(self._current)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._uncover_current()


_STEPS = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Left, Qt.Key.Key_Right)
