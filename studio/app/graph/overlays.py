"""What floats over the canvas: the minimap and the legend of the colour overlay."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QWidget

from studio.app.theme import current_theme, ramp, ui_font


class Minimap(QWidget):
    """The whole graph, small, with the visible part framed. Drag to go elsewhere."""

    moved = Signal(QPointF)  # scene point to centre on

    WIDTH, HEIGHT, PAD = 96, 168, 8

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFixedSize(self.WIDTH, self.HEIGHT)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName(self.tr("Map of the graph"))
        self._boxes: list[tuple[QRectF, QColor | None]] = []
        self._extent = QRectF()
        self._visible = QRectF()
        self._cache: QPixmap | None = None
        self._scale = (1.0, 1.0)

    def set_boxes(self, boxes: Iterable[tuple[QRectF, QColor | None]], extent: QRectF) -> None:
        """Boxes in scene coordinates with their overlay colour; `extent` encloses them."""
        self._boxes = list(boxes)
        self._extent = extent
        across = (self.WIDTH - 2 * self.PAD) / max(extent.width(), 1.0)
        down = (self.HEIGHT - 2 * self.PAD) / max(extent.height(), 1.0)
        # A long thin graph is drawn up to four times as wide as it is, to show its branches.
        self._scale = (min(across, 4 * down), min(down, 4 * across))
        self._cache = None
        self.update()

    def set_visible_area(self, area: QRectF) -> None:
        """The part of the scene the canvas shows."""
        self._visible = area
        self.update()

    def _to_map(self, rect: QRectF) -> QRectF:
        sx, sy = self._scale
        center = self._extent.center()
        return QRectF(
            self.WIDTH / 2 + (rect.left() - center.x()) * sx,
            self.HEIGHT / 2 + (rect.top() - center.y()) * sy,
            rect.width() * sx,
            rect.height() * sy,
        )

    def _to_scene(self, point: QPointF) -> QPointF:
        sx, sy = self._scale
        center = self._extent.center()
        x = center.x() + (point.x() - self.WIDTH / 2) / sx
        y = center.y() + (point.y() - self.HEIGHT / 2) / sy
        return QPointF(
            min(max(x, self._extent.left()), self._extent.right()),
            min(max(y, self._extent.top()), self._extent.bottom()),
        )

    def _draw_cache(self) -> QPixmap:
        theme = current_theme()
        ratio = self.devicePixelRatioF()
        cache = QPixmap(QSize(round(self.WIDTH * ratio), round(self.HEIGHT * ratio)))
        cache.setDevicePixelRatio(ratio)
        cache.fill(Qt.GlobalColor.transparent)
        painter = QPainter(cache)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(theme.color("border"))
        painter.setBrush(theme.color("surface"))
        painter.drawRoundedRect(QRectF(0.5, 0.5, self.WIDTH - 1, self.HEIGHT - 1), 6, 6)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        plain = theme.color("edge")
        for rect, color in self._boxes:
            small = self._to_map(rect)
            wide, tall = max(0.0, 6 - small.width()) / 2, max(0.0, 1.5 - small.height()) / 2
            painter.fillRect(small.adjusted(-wide, -tall, wide, tall), color or plain)
        painter.end()
        return cache

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._cache is None or self._cache.devicePixelRatio() != self.devicePixelRatioF():
            self._cache = self._draw_cache()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._cache)
        frame = self._to_map(self._visible).intersected(QRectF(self.rect()).adjusted(3, 3, -4, -4))
        accent = current_theme().color("accent")
        painter.setPen(QPen(accent, 1.0))
        fill = QColor(accent)
        fill.setAlpha(28)
        painter.setBrush(fill)
        painter.drawRect(frame)

    def recolor(self) -> None:
        self._cache = None
        self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.moved.emit(self._to_scene(event.position()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self.moved.emit(self._to_scene(event.position()))


class Legend(QWidget):
    """Colour scale of the overlay: what it shows, and the values at its two ends."""

    STEPS = 9

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFixedSize(Minimap.WIDTH, 54)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.title = self.low = self.high = ""

    def set_scale(self, title: str, low: str, high: str) -> None:
        """`low` and `high` are the texts at the violet and the yellow end."""
        self.title, self.low, self.high = title, low, high
        self.setAccessibleName(self.tr("Colours: {0}, {1} to {2}").format(title, low, high))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(theme.color("border"))
        painter.setBrush(theme.color("surface"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        inner = QRectF(self.rect()).adjusted(8, 6, -8, -6)
        painter.setFont(ui_font(11))
        painter.setPen(theme.color("muted"))
        painter.drawText(inner, Qt.AlignmentFlag.AlignHCenter, self.title)
        step = inner.width() / self.STEPS
        for index in range(self.STEPS):
            cell = QRectF(inner.left() + index * step, inner.top() + 17, step + 0.5, 8)
            painter.fillRect(cell, ramp(index / (self.STEPS - 1)))
        bottom = Qt.AlignmentFlag.AlignBottom
        painter.drawText(inner, bottom | Qt.AlignmentFlag.AlignLeft, self.low)
        painter.drawText(inner, bottom | Qt.AlignmentFlag.AlignRight, self.high)
