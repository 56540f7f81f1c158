"""The graph canvas: pan, zoom, keyboard, selection, overlay legend, minimap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QContextMenuEvent,
    QKeyEvent,
    QMouseEvent,
    QResizeEvent,
    QShowEvent,
)
from PySide6.QtWidgets import QLabel, QWidget

from studio.app.graph.canvas import DRAG_PIXELS, MARGIN, PanZoomView
from studio.app.graph.items import ActiveEdges, EdgeChunk, Ink, NodeItem, chunks
from studio.app.graph.model import (
    GAP_Y,
    LAYER_SIZE,
    Arrange,
    CanvasEdge,
    CanvasNode,
    Neighbours,
    Point,
    no_layout,
    searchable,
)
from studio.app.graph.nested import arrange_nested
from studio.app.graph.overlays import Legend, Minimap
from studio.app.theme import Theme, current_theme, notifier


class GraphView(PanZoomView):
    """Boxes and lines, laid out by a function the caller gives.

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
        self._ink = Ink(current_theme())
        self._items: dict[str, NodeItem] = {}
        self._edges: list[CanvasEdge] = []
        self._lines: list[Sequence[Point]] = []
        self._edges_of: dict[str, list[int]] = {}
        self._neighbours = Neighbours([], {})
        self._current = ""
        self._hovered: NodeItem | None = None
        self._start_pending = False
        self._button_press: QPoint | None = None  # the last press, if on a box's button
        self._matches: list[str] = []

        self._active_edges = ActiveEdges(self._ink)
        self.scene().addItem(self._active_edges)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(160, 120)

        self._empty = QLabel(self)
        self._empty.setProperty("role", "muted")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._empty.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.set_empty_text(self.tr("Open a model to see its graph."))
        self.minimap = Minimap(self)
        self.minimap.moved.connect(self.go_to)
        self.minimap.hide()
        self.legend = Legend(self)
        self.legend.hide()
        self.moved.connect(self._follow)
        self._apply_theme(current_theme())
        notifier.theme_changed.connect(self._apply_theme)

    # Content

    def set_graph(
        self,
        nodes: Sequence[CanvasNode],
        edges: Sequence[CanvasEdge],
        arrange: Arrange,
        keep: str = "",
    ) -> None:
        """Show another graph from its first box on; the top of the box `keep` stays where it is.

        Edges to unknown boxes are left out.
        """
        ids = {node.id for node in nodes}
        edges = [edge for edge in edges if edge.source in ids and edge.target in ids]
        layout = arrange_nested(nodes, edges, arrange)
        before = self.node_rect(keep) if keep in self._items else None
        self._edges = edges
        self._lines = [layout.routes.get((e.source, e.target), ()) for e in self._edges]
        self._hovered = None
        self._current = ""
        self._matches = []
        self.scene().clear()
        self._active_edges = ActiveEdges(self._ink)
        self.scene().addItem(self._active_edges)
        for path in chunks(self._lines):
            self.scene().addItem(EdgeChunk(path, self._ink))
        self._items = {}
        for node in nodes:
            item = NodeItem(node, self._ink, layout.sizes[node.id])
            item.setPos(*layout.centres[node.id])
            self.scene().addItem(item)
            self._items[node.id] = item
        self._edges_of = {node.id: [] for node in nodes}
        for index, edge in enumerate(self._edges):
            self._edges_of[edge.source].append(index)
            if edge.target != edge.source:
                self._edges_of[edge.target].append(index)
        boxes = {node.id for node in nodes if node.shape != "frame"}
        self._neighbours = Neighbours(
            self._edges, {name: spot for name, spot in layout.centres.items() if name in boxes}
        )
        self.set_drawing(self._extent())
        self._empty.setVisible(not nodes)
        self._update_minimap()
        self._start_pending = not self.isVisible()
        if before is not None and keep in self._items:
            self._start_pending = False
            now = self.node_rect(keep)
            shift = QPointF(now.center().x() - before.center().x(), now.top() - before.top())
            self.go_to(self.visible_area.center() + shift / self.zoom)
        elif not self._start_pending:
            self.show_start()

    def clear_graph(self) -> None:
        """Back to the empty state."""
        self.set_graph([], [], no_layout)

    def set_empty_text(self, text: str) -> None:
        """What is said while there is no graph."""
        self._empty.setText(text)

    @property
    def empty_text(self) -> str:
        """The text shown now in place of a graph; "" when there is a graph."""
        return "" if self._items else self._empty.text()

    def update_nodes(self, nodes: Mapping[str, CanvasNode]) -> None:
        """Change texts, badges and colours of boxes in place; unknown ids are ignored."""
        for name, node in nodes.items():
            if name in self._items:
                self._items[name].set_node(node)
        self._update_minimap()

    def node(self, name: str) -> CanvasNode:
        """What the box `name` shows now."""
        return self._items[name].node

    def set_legend(self, title: str, low: str, high: str) -> None:
        """Show the colour scale with the texts of its two ends."""
        self.legend.set_scale(title, low, high)
        self.legend.show()
        self._stack_overlays()

    def clear_legend(self) -> None:
        self.legend.hide()

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

    def node_at(self, position: QPoint) -> str:
        """Id of the box at a position in the viewport, or ""."""
        for item in self.items(position):
            if isinstance(item, NodeItem) and item.box.contains(
                item.mapFromScene(self.mapToScene(position))
            ):
                return item.node.id
        return ""

    def node_rect(self, name: str) -> QRectF:
        """The box `name` in viewport coordinates."""
        item = self._items[name]
        polygon = self.mapFromScene(item.mapRectToScene(item.box))
        return QRectF(polygon.boundingRect())

    # Zoom and place

    def show_start(self) -> None:
        """The first box near the top at 100 %; all of a graph that fits nearly so."""
        if not self._items:
            return
        self.fit()
        if self.zoom >= 0.75:
            self._go_beside_overlays(self.drawing.center(), self.drawing.width())
            return
        self.set_zoom(1.0)
        first = next(iter(self._items.values())).scenePos()
        below = self.viewport().height() / 2 - 2 * MARGIN - GAP_Y
        self._go_beside_overlays(QPointF(first.x(), first.y() + below), LAYER_SIZE[0])

    def _go_beside_overlays(self, point: QPointF, width: float) -> None:
        """Centre on the point, or so far left of it that the `width` around it is not covered."""
        covered = self.minimap.geometry().right() + MARGIN
        space = (self.viewport().width() - width * self.zoom) / 2
        shift = min(max(0.0, covered - space), max(0.0, space))
        self.go_to(point - QPointF(shift / self.zoom, 0.0))

    def _reveal(self, name: str) -> None:
        """Centre on the box unless it lies well inside the view."""
        inner = QRectF(self.viewport().rect()).adjusted(24, 40, -24, -40)
        if self.zoom < 0.3:
            self.set_zoom(1.0)
        if not inner.contains(self.node_rect(name)):
            self._go_beside_overlays(self._items[name].scenePos(), LAYER_SIZE[0])

    def _uncover_current(self) -> None:
        """Move the selected box out from under the overlays, if there is room beside them."""
        if not self._current or self._start_pending:
            return
        box, edge = self.node_rect(self._current), self.minimap.geometry().right() + MARGIN
        shift = edge - box.left()
        if 0 < shift < edge and box.right() + shift <= self.viewport().width():
            bar = self.horizontalScrollBar()
            bar.setValue(bar.value() - round(shift))

    def _extent(self) -> QRectF:
        extent = QRectF()
        for item in self._items.values():
            extent = extent.united(item.box.translated(item.pos()))
        for line in self._lines:
            for x, y in line:
                if not extent.contains(x, y):
                    extent = extent.united(QRectF(x - 1, y - 1, 2, 2))
        return extent

    def _update_minimap(self) -> None:
        items = [item for item in self._items.values() if item.node.shape != "frame"]
        boxes = [(item.box.translated(item.pos()), item.node.color) for item in items]
        self.minimap.set_boxes(boxes, self.drawing)
        self._follow()

    def _follow(self) -> None:
        """Keep the minimap right; it is not needed while all is in view."""
        area = self.visible_area
        self.minimap.set_visible_area(area)
        self.minimap.setVisible(bool(self._items) and not area.contains(self.drawing))
        self._stack_overlays()

    def _stack_overlays(self) -> None:
        """Both at the left, the minimap below the legend: boxes have the rest to themselves."""
        bottom = self.height() - MARGIN
        if not self.minimap.isHidden():
            self.minimap.move(MARGIN, bottom - self.minimap.height())
            bottom -= self.minimap.height() + MARGIN // 2
        self.legend.move(MARGIN, bottom - self.legend.height())

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
        super().showEvent(event)
        if self._start_pending:
            self._start_pending = False
            self.show_start()
            if self._current:
                self._reveal(self._current)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._stack_overlays()
        self._uncover_current()
        self._empty.setGeometry(self.rect().adjusted(40, 0, -40, 0))

    def _apply_theme(self, theme: Theme) -> None:
        self._ink = Ink(theme)
        for item in self.scene().items():
            if isinstance(item, NodeItem | EdgeChunk | ActiveEdges):
                item.set_ink(self._ink)
        self.scene().setBackgroundBrush(theme.color("background"))
        self.minimap.recolor()
        self.legend.update()


_STEPS = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Left, Qt.Key.Key_Right)
