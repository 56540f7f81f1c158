"""The graph canvas: pan, zoom, keyboard, selection, overlay legend, minimap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QContextMenuEvent,
    QFocusEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QResizeEvent,
    QShowEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QGraphicsScene, QGraphicsView, QLabel, QWidget

from studio.app.graph.items import ActiveEdges, EdgeChunk, Ink, NodeItem, chunks
from studio.app.graph.model import (
    GAP_X,
    GAP_Y,
    Arrange,
    CanvasEdge,
    CanvasNode,
    Neighbours,
    Point,
    node_size,
)
from studio.app.graph.overlays import Legend, Minimap
from studio.app.theme import Theme, current_theme, notifier, show_keyboard_focus

MIN_ZOOM, MAX_ZOOM = 0.01, 4.0
ZOOM_STEP = 1.25
DRAG_PIXELS = 4
MARGIN = 12


class GraphView(QGraphicsView):
    """Boxes and lines, laid out by a function the caller gives.

    `selected` and `activated` carry the id of a box and are sent for what the user does, not for
    calls of `select`. Keys: arrows follow the lines or go sideways, Home and End the first and
    last box, Enter activates, F fits, + - zoom, 0 is 100 %.
    """

    selected = Signal(str)
    activated = Signal(str)
    context_menu_requested = Signal(str, QPoint)  # id or "", global position
    zoom_changed = Signal(float)

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
        self._press: QPoint | None = None
        self._last: QPoint | None = None
        self._start_pending = False
        self._matches: list[str] = []

        self._scene = QGraphicsScene(self)
        self._scene.setItemIndexMethod(QGraphicsScene.ItemIndexMethod.BspTreeIndex)
        self._active_edges = ActiveEdges(self._ink)
        self._scene.addItem(self._active_edges)
        self.setScene(self._scene)
        self.setViewportUpdateMode(QGraphicsView.ViewportUpdateMode.MinimalViewportUpdate)
        self.setRenderHint(QPainter.RenderHint.TextAntialiasing)
        self.setOptimizationFlag(QGraphicsView.OptimizationFlag.DontAdjustForAntialiasing)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.NoAnchor)
        self.setResizeAnchor(QGraphicsView.ViewportAnchor.AnchorViewCenter)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.viewport().setMouseTracking(True)
        self.setMinimumSize(160, 120)

        self._empty = QLabel(self)
        self._empty.setProperty("role", "muted")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._empty.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.set_empty_text(self.tr("Open a model to see its graph."))
        self.minimap = Minimap(self)
        self.minimap.moved.connect(self._go_to)
        self.minimap.hide()
        self.legend = Legend(self)
        self.legend.hide()
        self.horizontalScrollBar().valueChanged.connect(self._view_moved)
        self.verticalScrollBar().valueChanged.connect(self._view_moved)
        self._apply_theme(current_theme())
        notifier.theme_changed.connect(self._apply_theme)

    # Content

    def set_graph(
        self, nodes: Sequence[CanvasNode], edges: Sequence[CanvasEdge], arrange: Arrange
    ) -> None:
        """Show another graph from its first box on. Edges to unknown boxes are left out."""
        ids = {node.id for node in nodes}
        self._edges = [edge for edge in edges if edge.source in ids and edge.target in ids]
        layout = arrange(
            [(node.id, *node_size(node)) for node in nodes],
            [(edge.source, edge.target) for edge in self._edges],
            gap_x=GAP_X,
            gap_y=GAP_Y,
        )
        self._lines = list(layout.edges)
        self._hovered = None
        self._current = ""
        self._matches = []
        self._scene.clear()
        self._active_edges = ActiveEdges(self._ink)
        self._scene.addItem(self._active_edges)
        for path in chunks(self._lines):
            self._scene.addItem(EdgeChunk(path, self._ink))
        self._items = {}
        for node in nodes:
            item = NodeItem(node, self._ink)
            item.setPos(*layout.positions[node.id])
            self._scene.addItem(item)
            self._items[node.id] = item
        self._edges_of = {node.id: [] for node in nodes}
        for index, edge in enumerate(self._edges):
            self._edges_of[edge.source].append(index)
            if edge.target != edge.source:
                self._edges_of[edge.target].append(index)
        self._neighbours = Neighbours(self._edges, layout.positions)
        extent = self._extent()
        self._scene.setSceneRect(extent.adjusted(-4000, -4000, 4000, 4000))
        self._empty.setVisible(not nodes)
        self._update_minimap()
        self._start_pending = not self.isVisible()
        if not self._start_pending:
            self.show_start()

    def clear_graph(self) -> None:
        """Back to the empty state."""
        self.set_graph([], [], _nothing)

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
            if words and all(word in _searchable(item.node) for word in words)
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
        item.setZValue(3 if on else 2)
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

    @property
    def zoom(self) -> float:
        """1.0 is 100 %."""
        return self.transform().m11()

    def set_zoom(self, zoom: float, anchor: QPointF | None = None) -> None:
        """Zoom to `zoom`, keeping the viewport point `anchor` (default: the middle) in place."""
        zoom = min(max(zoom, MIN_ZOOM), MAX_ZOOM)
        spot = anchor if anchor is not None else QPointF(self.viewport().rect().center())
        before = self._scene_point(spot)
        factor = zoom / self.zoom
        self.scale(factor, factor)
        moved = self._scene_point(spot) - before
        center = self._scene_point(QPointF(self.viewport().rect().center())) - moved
        self.centerOn(center)
        self._view_moved()
        self.zoom_changed.emit(self.zoom)

    def zoom_in(self) -> None:
        self.set_zoom(self.zoom * ZOOM_STEP)

    def zoom_out(self) -> None:
        self.set_zoom(self.zoom / ZOOM_STEP)

    def fit(self) -> None:
        """The whole graph, at 100 % at most."""
        if not self._items:
            return
        extent = self._extent().adjusted(-MARGIN, -MARGIN, MARGIN, MARGIN)
        area = self.viewport().rect()
        self.set_zoom(min(area.width() / extent.width(), area.height() / extent.height(), 1.0))
        self.centerOn(extent.center())
        self._view_moved()

    def show_start(self) -> None:
        """The first box near the top at 100 %; all of a graph that fits nearly so."""
        if not self._items:
            return
        self.fit()
        if self.zoom >= 0.75:
            return
        self.set_zoom(1.0)
        first = next(iter(self._items.values())).scenePos()
        below = self.viewport().height() / 2 - 2 * MARGIN - GAP_Y
        self.centerOn(QPointF(first.x(), first.y() + below))
        self._view_moved()

    def _scene_point(self, point: QPointF) -> QPointF:
        return self.viewportTransform().inverted()[0].map(point)

    def _go_to(self, point: QPointF) -> None:
        self.centerOn(point)
        self._view_moved()

    def _reveal(self, name: str) -> None:
        """Centre on the box unless it lies well inside the view."""
        inner = QRectF(self.viewport().rect()).adjusted(24, 40, -24, -40)
        if self.zoom < 0.3:
            self.set_zoom(1.0)
        if not inner.contains(self.node_rect(name)):
            self.centerOn(self._items[name].scenePos())
            self._view_moved()

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
        boxes = [(i.box.translated(i.pos()), i.node.color) for i in self._items.values()]
        self.minimap.set_boxes(boxes, self._extent())
        self._view_moved()

    def _view_moved(self) -> None:
        area = self.mapToScene(self.viewport().rect()).boundingRect()
        self.minimap.set_visible_area(area)
        self.minimap.setVisible(bool(self._items) and not area.contains(self._extent_cached()))

    def _extent_cached(self) -> QRectF:
        return self._scene.sceneRect().adjusted(4000, 4000, -4000, -4000)

    # Events

    def wheelEvent(self, event: QWheelEvent) -> None:
        turn = event.angleDelta().y() or event.angleDelta().x()
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            bar = self.horizontalScrollBar()
            bar.setValue(bar.value() - turn)
        else:
            self.set_zoom(self.zoom * ZOOM_STEP ** (turn / 120), event.position())
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            self._press = self._last = event.position().toPoint()
        if event.button() == Qt.MouseButton.LeftButton:
            self._choose(self.node_at(event.position().toPoint()), center=False)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        here = event.position().toPoint()
        if self._press is None or self._last is None:
            self._hover(here)
            return
        if self._dragging or (here - self._press).manhattanLength() >= DRAG_PIXELS:
            self.viewport().setCursor(Qt.CursorShape.ClosedHandCursor)
            step = here - self._last
            self._last = here
            self.horizontalScrollBar().setValue(self.horizontalScrollBar().value() - step.x())
            self.verticalScrollBar().setValue(self.verticalScrollBar().value() - step.y())

    @property
    def _dragging(self) -> bool:
        return self.viewport().cursor().shape() == Qt.CursorShape.ClosedHandCursor

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._press = self._last = None
        self._hover(event.position().toPoint())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        name = self.node_at(event.position().toPoint())
        if name:
            self.activated.emit(name)

    def _hover(self, position: QPoint) -> None:
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
        self._hover(QPoint(-1, -1))
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

    def focusInEvent(self, event: QFocusEvent) -> None:
        show_keyboard_focus(self, event.reason())
        super().focusInEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._start_pending:
            self._start_pending = False
            self.show_start()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        height, width = self.height(), self.width()
        self.minimap.move(MARGIN, height - self.minimap.height() - MARGIN)
        self.legend.move(
            width - self.legend.width() - MARGIN, height - self.legend.height() - MARGIN
        )
        self._empty.setGeometry(self.rect().adjusted(40, 0, -40, 0))
        self._view_moved()

    def _apply_theme(self, theme: Theme) -> None:
        self._ink = Ink(theme)
        for item in self._scene.items():
            if isinstance(item, NodeItem | EdgeChunk | ActiveEdges):
                item.set_ink(self._ink)
        self._scene.setBackgroundBrush(theme.color("background"))
        self.minimap.recolor()
        self.legend.update()


_STEPS = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Left, Qt.Key.Key_Right)


class _NoLayout:
    positions: Mapping[str, Point] = {}
    edges: Sequence[Sequence[Point]] = ()


def _nothing(
    nodes: Sequence[tuple[str, float, float]],
    edges: Sequence[tuple[str, str]],
    *,
    gap_x: float,
    gap_y: float,
) -> _NoLayout:
    return _NoLayout()


def _searchable(node: CanvasNode) -> str:
    return f"{node.id} {node.title} {node.subtitle} {node.badge}".lower()
