"""A graphics view one moves in: wheel zooms about the pointer, dragging pans."""

from __future__ import annotations

from PySide6.QtCore import QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QFocusEvent, QMouseEvent, QPainter, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QGraphicsScene, QGraphicsView, QWidget

from studio.app.theme import show_keyboard_focus

MIN_ZOOM, MAX_ZOOM = 0.001, 4.0
ZOOM_STEP = 1.25
DRAG_PIXELS = 4
MARGIN = 12
AROUND = 4000.0  # free space around the drawing, so that its edges can be moved to the middle


class PanZoomView(QGraphicsView):
    """Zoom and place; says `moved` after each change of either."""

    zoom_changed = Signal(float)  # 1.0 is 100 %
    moved = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._drawing = QRectF()
        self._press: QPoint | None = None
        self._last = QPoint()
        self._dragging = False
        scene = QGraphicsScene(self)
        scene.setItemIndexMethod(QGraphicsScene.ItemIndexMethod.BspTreeIndex)
        self.setScene(scene)
        self.setViewportUpdateMode(QGraphicsView.ViewportUpdateMode.MinimalViewportUpdate)
        self.setRenderHint(QPainter.RenderHint.TextAntialiasing)
        self.setOptimizationFlag(QGraphicsView.OptimizationFlag.DontAdjustForAntialiasing)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.NoAnchor)
        self.setResizeAnchor(QGraphicsView.ViewportAnchor.AnchorViewCenter)
        self.viewport().setMouseTracking(True)
        self.horizontalScrollBar().valueChanged.connect(lambda _: self.moved.emit())
        self.verticalScrollBar().valueChanged.connect(lambda _: self.moved.emit())

    @property
    def drawing(self) -> QRectF:
        """What there is to see, in scene coordinates."""
        return self._drawing

    def set_drawing(self, extent: QRectF) -> None:
        self._drawing = extent
        self.scene().setSceneRect(extent.adjusted(-AROUND, -AROUND, AROUND, AROUND))

    @property
    def visible_area(self) -> QRectF:
        """The part of the scene inside the viewport."""
        return self.mapToScene(self.viewport().rect()).boundingRect()

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
        shift = self._scene_point(spot) - before
        middle = self._scene_point(QPointF(self.viewport().rect().center()))
        self.go_to(middle - shift)
        self.zoom_changed.emit(self.zoom)

    def zoom_in(self) -> None:
        self.set_zoom(self.zoom * ZOOM_STEP)

    def zoom_out(self) -> None:
        self.set_zoom(self.zoom / ZOOM_STEP)

    def fit(self) -> None:
        """The whole drawing, at 100 % at most."""
        if self._drawing.isEmpty():
            return
        extent = self._drawing.adjusted(-MARGIN, -MARGIN, MARGIN, MARGIN)
        area = self.viewport().rect()
        self.set_zoom(min(area.width() / extent.width(), area.height() / extent.height(), 1.0))
        self.go_to(extent.center())

    def go_to(self, point: QPointF) -> None:
        """Put the scene point in the middle."""
        self.centerOn(point)
        self.moved.emit()

    def _scene_point(self, point: QPointF) -> QPointF:
        return self.viewportTransform().inverted()[0].map(point)

    def pressed_at(self, position: QPoint) -> None:
        """Called when the left button goes down at a position in the viewport."""

    def hovered_at(self, position: QPoint) -> None:
        """Called when the pointer moves without dragging."""

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
            self.pressed_at(event.position().toPoint())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        here = event.position().toPoint()
        if self._press is None:
            self.hovered_at(here)
            return
        if not self._dragging and (here - self._press).manhattanLength() < DRAG_PIXELS:
            return
        if not self._dragging:
            self._dragging = True
            self.viewport().setCursor(Qt.CursorShape.ClosedHandCursor)
        step = here - self._last
        self._last = here
        self.horizontalScrollBar().setValue(self.horizontalScrollBar().value() - step.x())
        self.verticalScrollBar().setValue(self.verticalScrollBar().value() - step.y())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._press = None
        self._dragging = False
        self.hovered_at(event.position().toPoint())

    def focusInEvent(self, event: QFocusEvent) -> None:
        show_keyboard_focus(self, event.reason())
        super().focusInEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.moved.emit()
