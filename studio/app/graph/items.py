"""The things on the canvas: boxes, lines in chunks, and the lines of the selected box."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QFontMetricsF, QPainter, QPainterPath, QPen
from PySide6.QtWidgets import QGraphicsItem, QStyleOptionGraphicsItem, QWidget

from studio.app.graph.model import CanvasNode, Point, node_size
from studio.app.theme import Theme, ui_font

FAR = 0.4  # below this zoom: plain rectangles, no text
RADIUS = 6.0
STRIPE = 5.0
CHUNK = 48
BUTTON = 15.0
_NO_PEN = QPen(Qt.PenStyle.NoPen)


class Ink:
    """Pens, brushes and fonts of one theme, made once and shared by all items."""

    def __init__(self, theme: Theme) -> None:
        self.theme = theme
        self.fill = QBrush(theme.color("surface"))
        self.selected_fill = QBrush(_mix(theme.color("surface"), theme.color("selection"), 0.6))
        self.far_fill = QBrush(theme.color("border_strong"))
        self.badge_fill = QBrush(theme.color("accent_soft"))
        self.active_badge_fill = QBrush(theme.color("background"))
        self.io_fill = QBrush(theme.color("raised"))
        self.frame_fill = QBrush(_mix(theme.color("background"), theme.color("raised"), 0.55))
        self.sign = _pen(theme.color("link"), 1.5)
        self.border = _pen(theme.color("border"), 1.0)
        self.accent = _pen(theme.color("accent"), 2.0)
        self.hover = _pen(theme.color("border_strong"), 1.0)
        self.edge = _pen(theme.color("edge"), 1.0)
        self.active_edge = _pen(theme.color("accent"), 2.0)
        self.text = QPen(theme.color("text"))
        self.muted = QPen(theme.color("muted"))
        self.link = QPen(theme.color("link"))
        self.title_font = ui_font(13, ui_font().Weight.DemiBold)
        self.small_font = ui_font(11)
        self.badge_font = ui_font(11, ui_font().Weight.Medium)
        self.title_metrics = QFontMetricsF(self.title_font)
        self.small_metrics = QFontMetricsF(self.small_font)
        self.badge_metrics = QFontMetricsF(self.badge_font)
        self.warn = QPen(theme.color("warn_mark"), 1.0)
        self.warn_text = theme.color("warn")
        self.mark_font = ui_font(10, ui_font().Weight.Medium)
        self.mark_metrics = QFontMetricsF(self.mark_font)


class NodeItem(QGraphicsItem):
    """One box, centred on its position."""

    def __init__(self, node: CanvasNode, ink: Ink, size: tuple[float, float] | None = None) -> None:
        super().__init__()
        width, height = size or node_size(node)
        self.node = node
        self._box = QRectF(-width / 2, -height / 2, width, height)
        self._bounds = self._box.adjusted(-3, -3, 3, 3)
        self._ink = ink
        self.active = False
        self.matched = False
        self.hovered = False
        self.setZValue(self.level)
        self.setFlag(QGraphicsItem.GraphicsItemFlag.ItemIsSelectable, False)
        self.set_node(node)

    def set_node(self, node: CanvasNode) -> None:
        self.node = node
        self._fill = QBrush(node.color) if node.color is not None else None
        self._texts: tuple[str, str, float] | None = None
        self.setToolTip(node.tooltip)
        self.update()

    def set_ink(self, ink: Ink) -> None:
        self._ink = ink
        self._texts = None
        self.update()

    @property
    def level(self) -> float:
        """Frames lie under the lines, boxes over them."""
        return -1.0 if self.node.shape == "frame" else 2.0

    @property
    def box(self) -> QRectF:
        """The box in item coordinates."""
        return self._box

    @property
    def button(self) -> QRectF:
        """The button that opens or closes the box; empty if there is none."""
        if not self.node.toggle:
            return QRectF()
        box = self._box
        if self.node.shape == "frame":
            return QRectF(box.right() - BUTTON - 8, box.top() + 7, BUTTON, BUTTON)
        return QRectF(box.right() - BUTTON - 8, box.bottom() - BUTTON - 5, BUTTON, BUTTON)

    def boundingRect(self) -> QRectF:
        return self._bounds

    def paint(
        self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None
    ) -> None:
        scale = painter.worldTransform().m11()
        if self.node.shape == "frame":
            self._paint_frame(painter, scale)
        elif scale < FAR:
            self._paint_far(painter)
        elif self.node.shape == "io":
            self._paint_io(painter)
        else:
            self._paint_layer(painter)

    def _paint_far(self, painter: QPainter) -> None:
        ink = self._ink
        painter.fillRect(self._box, self._fill or ink.far_fill)
        if self.active or self.matched:
            painter.setPen(ink.accent)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self._bounds)

    def _outline(self) -> QPen:
        if self.active or self.matched:
            return self._ink.accent
        return self._ink.hover if self.hovered else self._ink.border

    def _paint_layer(self, painter: QPainter) -> None:
        ink, box = self._ink, self._box
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._outline())
        painter.setBrush(ink.selected_fill if self.active else ink.fill)
        painter.drawRoundedRect(box, RADIUS, RADIUS)
        if self._fill is not None:
            painter.save()
            painter.setClipRect(QRectF(box.left(), box.top(), STRIPE, box.height()))
            painter.setPen(_NO_PEN)
            painter.setBrush(self._fill)
            inset = 1.0 if self.active else 0.0
            painter.drawRoundedRect(
                box.adjusted(inset, inset, -inset, -inset), RADIUS - inset, RADIUS - inset
            )
            painter.restore()
        if self._texts is None:
            self._texts = self._elide()
        title, subtitle, badge_width = self._texts
        left = box.left() + 16
        if badge_width:
            pill = QRectF(box.right() - badge_width - 8, box.top() + 8, badge_width, 17)
            painter.setPen(_NO_PEN)
            painter.setBrush(ink.active_badge_fill if self.active else ink.badge_fill)
            painter.drawRoundedRect(pill, 8.5, 8.5)
            painter.setPen(ink.link)
            painter.setFont(ink.badge_font)
            painter.drawText(pill, Qt.AlignmentFlag.AlignCenter, self.node.badge)
        painter.setPen(ink.text)
        painter.setFont(ink.title_font)
        painter.drawText(QPointF(left, box.top() + 20.5), title)
        painter.setPen(ink.muted)
        painter.setFont(ink.small_font)
        painter.drawText(QPointF(left, box.top() + 37), subtitle)
        self._paint_value(painter)
        self._paint_mark(painter)
        self._paint_button(painter)

    def _paint_value(self, painter: QPainter) -> None:
        """The number that the stripe's colour stands for, at the right of the second line."""
        if not self.node.value:
            return
        right = self._right() - (self._mark_width() + 6 if self.node.mark else 2)
        width = self._value_width()
        place = QRectF(right - width, self._box.bottom() - 21, width, 16)
        painter.setPen(self._ink.text)
        painter.setFont(self._ink.mark_font)
        painter.drawText(place, Qt.AlignmentFlag.AlignRight, self.node.value)

    def _value_width(self) -> float:
        return self._ink.mark_metrics.horizontalAdvance(self.node.value) + 2

    def _right(self) -> float:
        """Where the second line ends."""
        return self.button.left() - 4 if self.node.toggle else self._box.right() - 8

    def _paint_mark(self, painter: QPainter) -> None:
        if not self.node.mark:
            return
        ink, width, right = self._ink, self._mark_width(), self._right()
        pill = QRectF(right - width, self._box.bottom() - 20.5, width, 15)
        painter.setPen(ink.warn)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(pill, 4, 4)
        painter.setPen(ink.warn_text)
        painter.setFont(ink.mark_font)
        painter.drawText(pill, Qt.AlignmentFlag.AlignCenter, self.node.mark)

    def _mark_width(self) -> float:
        return self._ink.mark_metrics.horizontalAdvance(self.node.mark) + 10

    def _paint_button(self, painter: QPainter) -> None:
        """Plus opens, minus closes."""
        spot = self.button
        if spot.isEmpty():
            return
        ink, center = self._ink, spot.center()
        painter.setPen(ink.hover)
        painter.setBrush(ink.active_badge_fill if self.active else ink.badge_fill)
        painter.drawRoundedRect(spot, 4, 4)
        painter.setPen(ink.sign)
        painter.drawLine(center - QPointF(3.5, 0), center + QPointF(3.5, 0))
        if self.node.shape != "frame":
            painter.drawLine(center - QPointF(0, 3.5), center + QPointF(0, 3.5))

    def _paint_frame(self, painter: QPainter, scale: float) -> None:
        ink, box = self._ink, self._box
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._outline())
        painter.setBrush(ink.frame_fill)
        painter.drawRoundedRect(box, 2 * RADIUS, 2 * RADIUS)
        if scale < FAR:
            return
        if self._texts is None:
            self._texts = self._elide_frame()
        title, subtitle, width = self._texts
        painter.setPen(ink.text)
        painter.setFont(ink.title_font)
        painter.drawText(QPointF(box.left() + 14, box.top() + 20), title)
        painter.setPen(ink.muted)
        painter.setFont(ink.small_font)
        painter.drawText(QPointF(box.left() + 14 + width + 8, box.top() + 20), subtitle)
        self._paint_button(painter)

    def _elide_frame(self) -> tuple[str, str, float]:
        """Title, name and the width of the title."""
        ink, node = self._ink, self.node
        room = self._box.width() - 14 - BUTTON - 16
        title = ink.title_metrics.elidedText(node.title, Qt.TextElideMode.ElideRight, room)
        width = ink.title_metrics.horizontalAdvance(title)
        left = max(0.0, room - width - 8)
        middle = Qt.TextElideMode.ElideMiddle
        return title, ink.small_metrics.elidedText(node.subtitle, middle, left), width

    def _paint_io(self, painter: QPainter) -> None:
        ink, box = self._ink, self._box
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._outline())
        painter.setBrush(ink.selected_fill if self.active else ink.io_fill)
        painter.drawRoundedRect(box, box.height() / 2, box.height() / 2)
        text = f"{self.node.title}  {self.node.subtitle}".strip()
        painter.setPen(ink.muted)
        painter.setFont(ink.small_font)
        text = ink.small_metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, box.width() - 24)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)

    def _elide(self) -> tuple[str, str, float]:
        ink, node = self._ink, self.node
        badge = ink.badge_metrics.horizontalAdvance(node.badge) + 16 if node.badge else 0.0
        room = self._box.width() - 16 - 10
        middle = Qt.TextElideMode.ElideMiddle
        title_room = room - (badge + 6 if badge else 0.0)
        title = ink.title_metrics.elidedText(node.title, Qt.TextElideMode.ElideRight, title_room)
        if node.toggle:
            room -= BUTTON + 4
        if node.mark:
            room -= self._mark_width() + 6
        if node.value:
            room -= self._value_width() + 8
        return title, ink.small_metrics.elidedText(node.subtitle, middle, room), badge


class EdgeChunk(QGraphicsItem):
    """Several lines as one path: one item to cull, one call to draw."""

    def __init__(self, path: QPainterPath, ink: Ink) -> None:
        super().__init__()
        self._path = path
        self._bounds = path.boundingRect().adjusted(-2, -2, 2, 2)
        self._ink = ink
        self.setZValue(0)

    def set_ink(self, ink: Ink) -> None:
        self._ink = ink
        self.update()

    def boundingRect(self) -> QRectF:
        return self._bounds

    def paint(
        self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None
    ) -> None:
        far = painter.worldTransform().m11() < FAR
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, not far)
        painter.setPen(self._ink.edge)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(self._path)


class ActiveEdges(QGraphicsItem):
    """The lines into and out of the selected box; a label that many lines share is shown once."""

    LABELS = 12

    def __init__(self, ink: Ink) -> None:
        super().__init__()
        self._ink = ink
        self._path = QPainterPath()
        self._labels: list[tuple[QPointF, str]] = []
        self.setZValue(1)

    def set_ink(self, ink: Ink) -> None:
        self._ink = ink
        self.update()

    def set_edges(self, edges: Iterable[tuple[Sequence[Point], str]]) -> None:
        self.prepareGeometryChange()
        self._path = QPainterPath()
        self._labels = []
        for points, label in edges:
            if not points:
                continue
            line = smooth(points)
            self._path.addPath(line)
            if label and label not in self.labels and len(self._labels) < self.LABELS:
                self._labels.append((line.pointAtPercent(0.5), label))
        self.update()

    @property
    def labels(self) -> list[str]:
        """The texts drawn beside the lines."""
        return [text for _, text in self._labels]

    def boundingRect(self) -> QRectF:
        if self._path.isEmpty():
            return QRectF()
        return self._path.boundingRect().adjusted(-4, -12, 212, 12)

    def paint(
        self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None
    ) -> None:
        ink = self._ink
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(ink.active_edge)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(self._path)
        if painter.worldTransform().m11() < 0.7:
            return
        painter.setFont(ink.small_font)
        for point, label in self._labels:
            text = ink.small_metrics.elidedText(label, Qt.TextElideMode.ElideMiddle, 190)
            width = ink.small_metrics.horizontalAdvance(text) + 10
            pad = QRectF(point.x() + 5, point.y() - 8, width, 16)
            painter.setPen(_NO_PEN)
            painter.setBrush(ink.theme.color("background"))
            painter.drawRoundedRect(pad, 4, 4)
            painter.setPen(ink.muted)
            painter.drawText(pad, Qt.AlignmentFlag.AlignCenter, text)


def smooth(points: Sequence[Point]) -> QPainterPath:
    """A curve through `points` that leaves and enters each of them vertically."""
    path = QPainterPath(QPointF(*points[0]))
    for (x0, y0), (x1, y1) in pairwise(points):
        if abs(x0 - x1) < 0.5:
            path.lineTo(x1, y1)
        else:
            middle = (y0 + y1) / 2
            path.cubicTo(x0, middle, x1, middle, x1, y1)
    return path


def chunks(polylines: Sequence[Sequence[Point]]) -> list[QPainterPath]:
    """All lines as few paths, neighbours together; a line that runs far has a path of its own."""
    result: list[QPainterPath] = []
    near = sorted((line for line in polylines if line), key=lambda line: line[0][1])
    current, count = QPainterPath(), 0
    for line in near:
        if abs(line[-1][1] - line[0][1]) > 1500:
            result.append(smooth(line))
            continue
        current.addPath(smooth(line))
        count += 1
        if count == CHUNK:
            result.append(current)
            current, count = QPainterPath(), 0
    if count:
        result.append(current)
    return result


def _pen(color: QColor, width: float) -> QPen:
    pen = QPen(color, width)
    pen.setCosmetic(True)
    return pen


def _mix(first: QColor, second: QColor, part: float) -> QColor:
    pairs = zip(first.getRgb()[:3], second.getRgb()[:3], strict=True)  # type: ignore[index]
    return QColor(*(round(a + (b - a) * part) for a, b in pairs))
