"""The plot area all our plots share: caption, axis, grid, empty state, theme."""

from __future__ import annotations

import math

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from studio.app.theme import Theme, current_theme, notifier, show_keyboard_focus, ui_font


def short_number(value: float) -> str:
    """At most about five characters: 0, 0.05, 3, -12.5, 1.2k, 3e-05."""
    size = abs(value)
    if not math.isfinite(value):
        return "–"
    if size < 1e-12:
        return "0"
    if size < 1e-3:
        return f"{value:.0e}"
    if size >= 1e6:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    if size >= 1e4:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


class NumberAxis(pg.AxisItem):
    """An axis with our number format, without lines or SI prefixes."""

    def __init__(self, orientation: str) -> None:
        super().__init__(orientation)
        self.enableAutoSIPrefix(False)
        self.setStyle(tickLength=0, tickTextOffset=8, maxTickLevel=0)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        return [short_number(value * scale) for value in values]


class Canvas(pg.PlotWidget):
    """The drawing area; reports the pointer and keys in place of pyqtgraph's own menus."""

    hovered = Signal(QPointF, QPoint)  # data coordinates, global position
    clicked = Signal(QPointF)
    left = Signal()
    reset = Signal()  # double click
    stepped = Signal(int)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, axisItems={"left": NumberAxis("left")})
        self.setMenuEnabled(False)
        self.hideButtons()
        self.setAntialiasing(False)
        self.setFrameShape(pg.PlotWidget.Shape.NoFrame)
        self.hideAxis("bottom")
        box = self.getViewBox()
        box.setMouseEnabled(x=True, y=False)
        box.disableAutoRange()
        box.setDefaultPadding(0.0)
        self.setMouseTracking(True)
        self._press: QPointF | None = None

    def to_data(self, point: QPointF) -> QPointF:
        """Widget coordinates to data coordinates."""
        return self.getViewBox().mapSceneToView(self.mapToScene(point.toPoint()))

    def to_widget(self, x: float, y: float) -> QPointF:
        """Data coordinates to widget coordinates."""
        return QPointF(self.mapFromScene(self.getViewBox().mapViewToScene(QPointF(x, y))))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        self.hovered.emit(self.to_data(event.position()), event.globalPosition().toPoint())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._press = event.position()
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        start, self._press = self._press, None
        moved = start is None or (event.position() - start).manhattanLength() > 4
        if event.button() == Qt.MouseButton.LeftButton and not moved:
            self.clicked.emit(self.to_data(event.position()))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.reset.emit()

    def focusInEvent(self, event: QFocusEvent) -> None:
        show_keyboard_focus(self, event.reason())
        super().focusInEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        self.left.emit()
        super().leaveEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
        if event.key() in steps:
            self.stepped.emit(steps[Qt.Key(event.key())])
        else:
            event.ignore()


class PlotFrame(QWidget):
    """A caption over a `Canvas`, and a text in its middle while there is nothing to draw."""

    def __init__(self, name: str, empty: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.caption = QLabel(self)
        self.caption.setProperty("role", "caption")
        self.caption.setTextFormat(Qt.TextFormat.PlainText)
        self.canvas = Canvas(self)
        self.canvas.setAccessibleName(name)
        axis = self.canvas.getAxis("left")
        axis.setWidth(46)
        axis.setTickDensity(1.4)
        self.canvas.getPlotItem().setContentsMargins(0, 0, 12, 0)
        axis.setZValue(-1)  # the grid lies behind the bars
        self.canvas.showGrid(y=True, alpha=1.0)
        self.header = QHBoxLayout()
        self.header.setContentsMargins(12, 4, 12, 0)
        self.header.addWidget(self.caption, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(2)
        layout.addLayout(self.header)
        layout.addWidget(self.canvas, 1)
        self._empty_text = empty
        self._empty = QLabel(empty, self.canvas)
        self._empty.setProperty("role", "muted")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._empty.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setMinimumHeight(110)
        self.set_caption(name)

    def set_caption(self, text: str, detail: str = "") -> None:
        """Title in capitals, then `detail` as it is."""
        self.caption.setText(text.upper() + (f" · {detail}" if detail else ""))

    @property
    def empty_text(self) -> str:
        """The text shown now in place of a plot; "" when something is drawn."""
        return "" if self._empty.isHidden() else self._empty.text()

    def show_empty(self, empty: bool, text: str = "") -> None:
        """Show the empty state (`text`, else the usual one) or the plot."""
        self._empty.setText(text or self._empty_text)
        self._empty.setVisible(empty)
        self.canvas.getAxis("left").setOpacity(0.0 if empty else 1.0)

    def resizeEvent(self, event: object) -> None:
        self._empty.setGeometry(self.canvas.rect().adjusted(20, 0, -20, 0))

    def showEvent(self, event: object) -> None:
        self._empty.setGeometry(self.canvas.rect().adjusted(20, 0, -20, 0))

    def follow_theme(self) -> None:
        """Take the colours of the theme now and after every change; call once, when built."""
        self.apply_theme(current_theme())
        notifier.theme_changed.connect(self.apply_theme)

    def apply_theme(self, theme: Theme) -> None:
        self.canvas.setBackground(theme.background)
        axis = self.canvas.getAxis("left")
        axis.setPen(pg.mkPen(None))
        axis.setTickPen(pg.mkPen(theme.grid, width=1))
        axis.setTextPen(pg.mkPen(theme.muted))
        axis.setTickFont(ui_font(11))
