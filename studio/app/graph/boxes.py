"""The boxes and lines of a graph on a canvas, with minimap and legend; where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import QPoint, QPointF, QRectF, Qt
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QLabel, QWidget

from studio.app.graph.canvas import MARGIN, PanZoomView
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
)
from studio.app.graph.nested import arrange_nested
from studio.app.graph.overlays import Legend, Minimap
from studio.app.theme import Theme, current_theme, notifier


class BoxesView(PanZoomView):
    """Boxes and lines, laid out by a function the caller gives."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._ink = Ink(current_theme())
        self._items: dict[str, NodeItem] = {}
        self._edges: list[CanvasEdge] = []
        self._lines: list[Sequence[Point]] = []
        self._edges_of: dict[str, list[int]] = {}
        self._neighbours = Neighbours([], {})
        self._start_pending = False
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
        *,
        stay: bool = False,
        keep: str = "",
    ) -> None:
        """Show another graph, from its first box on.

        With `stay` the view remains where it is: the top of the box `keep`, or else of the box
        nearest to the middle, does not move if that box is in both graphs. Edges to unknown boxes
        are left out.
        """
        ids = {node.id for node in nodes}
        anchor = self._anchor(ids, keep) if stay and not self._start_pending else ""
        before = self.node_rect(anchor) if anchor else QRectF()
        self._edges = [edge for edge in edges if edge.source in ids and edge.target in ids]
        self._put(nodes, arrange)
        self.set_drawing(self._extent())
        self._empty.setVisible(not nodes)
        self._update_minimap()
        self._start_pending = not self.isVisible() and not anchor
        if anchor:
            now = self.node_rect(anchor)
            shift = QPointF(now.center().x() - before.center().x(), now.top() - before.top())
            self.go_to(self.visible_area.center() + shift / self.zoom)
        elif not self._start_pending:
            self.show_start()

    def _anchor(self, ids: set[str], keep: str) -> str:
        """The box that is to stay in place: `keep`, or one that is in view; "" for none."""
        if keep in ids and keep in self._items:
            return keep
        middle, area = self.visible_area.center(), self.visible_area
        known = (
            (name, item.mapRectToScene(item.box))
            for name, item in self._items.items()
            if name in ids
        )
        away = {
            name: (QPointF(box.center().x(), box.top()) - middle).manhattanLength()
            for name, box in known
            if box.intersects(area)
        }
        return min(away, key=away.__getitem__, default="")

    def _put(self, nodes: Sequence[CanvasNode], arrange: Arrange) -> None:
        """Boxes and lines anew."""
        layout = arrange_nested(nodes, self._edges, arrange)
        self._lines = [layout.routes.get((e.source, e.target), ()) for e in self._edges]
        self.scene().clear()
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

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._start_pending:
            self._start_pending = False
            self.show_start()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._stack_overlays()
        self._empty.setGeometry(self.rect().adjusted(40, 0, -40, 0))

    def _apply_theme(self, theme: Theme) -> None:
        self._ink = Ink(theme)
        for item in self.scene().items():
            if isinstance(item, NodeItem | EdgeChunk | ActiveEdges):
                item.set_ink(self._ink)
        self.scene().setBackgroundBrush(theme.color("background"))
        self.minimap.recolor()
        self.legend.update()
