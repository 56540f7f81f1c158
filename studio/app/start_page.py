"""The first screen: open a file, a recent one, or the example."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QBrush, QEnterEvent, QFont, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractButton,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from studio.app.icons import pixmap
from studio.app.settings import ViewSettings
from studio.app.theme import current_theme, notifier, ui_font
from studio.app.widgets import label

EXAMPLE = (
    "Handwritten digits",
    "A small network with 360 test images, ready to quantize.",
)
WHAT_IT_IS = "Decide how each layer of a trained model is quantized. Export it."


class Card(QAbstractButton):
    """A rounded box with title and detail; greyed where `missing`."""

    def __init__(self, title: str, detail: str, missing: bool = False) -> None:
        super().__init__()
        self.setText(title)
        self.detail = detail
        self.missing = missing
        self.setAccessibleName(title + (" (missing)" if missing else ""))
        self.setAccessibleDescription(detail)
        self.setToolTip(detail)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        notifier.theme_changed.connect(self._repaint)

    def _repaint(self) -> None:
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(320, 52)

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self.update()

    def background(self) -> str:
        return "raised" if self.underMouse() and not self.missing else "background"

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.setPen(QPen(theme.color("accent") if self.hasFocus() else Qt.PenStyle.NoPen))
        painter.setBrush(theme.color(self.background()))
        painter.drawRoundedRect(box, 6, 6)
        self.paint_text(painter, 12)
        painter.end()

    def paint_text(self, painter: QPainter, left: int) -> None:
        theme = current_theme()
        width = self.width() - left - 12
        middle = self.height() / 2
        painter.setFont(ui_font(13, QFont.Weight.DemiBold))
        painter.setPen(theme.color("muted" if self.missing else "text"))
        title = painter.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, width)
        painter.drawText(QPointF(left, middle - 4), title)
        painter.setFont(ui_font(12))
        painter.setPen(theme.color("muted"))
        mode = Qt.TextElideMode.ElideMiddle
        painter.drawText(
            QPointF(left, middle + 15), painter.fontMetrics().elidedText(self.detail, mode, width)
        )


class ExampleCard(Card):
    """The example, with a drawn digit."""

    DIGIT = ("..###.", ".#...#", ".....#", "...##.", ".....#", ".#...#", "..###.")

    def sizeHint(self) -> QSize:
        return QSize(320, 84)

    def background(self) -> str:
        return "raised" if self.underMouse() else "surface"

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.setPen(QPen(theme.color("accent" if self.hasFocus() else "border")))
        painter.setBrush(theme.color(self.background()))
        painter.drawRoundedRect(box, 8, 8)
        tile = QRectF(16, 16, 52, 52)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("accent_soft"))
        painter.drawRoundedRect(tile, 6, 6)
        for y, row in enumerate(self.DIGIT):
            for x, cell in enumerate(row):
                if cell == "#":
                    painter.fillRect(
                        QRectF(tile.left() + 8 + 5.5 * x, tile.top() + 7 + 5.5 * y, 5, 5),
                        theme.color("link"),
                    )
        self.paint_text(painter, 84)
        painter.end()


class DropHint(QWidget):
    """A dashed frame that says what may be dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.setMinimumHeight(110)
        notifier.theme_changed.connect(self._repaint)

    def _repaint(self) -> None:
        self.update()

    def set_active(self, on: bool) -> None:
        self.active = on
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        pen = QPen(theme.color("accent" if self.active else "border_strong"), 1.2)
        pen.setDashPattern([5, 4])
        painter.setPen(pen)
        fill = QBrush(theme.color("selection")) if self.active else QBrush(Qt.BrushStyle.NoBrush)
        painter.setBrush(fill)
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 8, 8)
        painter.setFont(ui_font(13))
        painter.setPen(theme.color("text" if self.active else "muted"))
        words = "Drop a model here\n.onnx, PyTorch (.py, .pt2, .pt, .pth) or a project (.qstudio)"
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, words)
        painter.end()


class StartPage(QWidget):
    """`open_requested`: the user wants a file dialog. `package_requested`: they want to name an
    installed model. `path_chosen`: a recent file."""

    open_requested = Signal()
    package_requested = Signal()
    example_requested = Signal()
    path_chosen = Signal(object)

    def __init__(self, settings: ViewSettings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._settings = settings
        self.recent_cards: list[Card] = []
        self.mark = QLabel()
        title = label("Quantization Studio", "title")
        title.setFont(ui_font(26, QFont.Weight.DemiBold))
        what = label(WHAT_IT_IS, "muted", wrap=True)
        what.setFont(ui_font(14))
        self.open = QPushButton("Open a model…")
        self.open.setProperty("role", "primary")
        self.open.setToolTip("ONNX file, PyTorch code or model, or project  (Ctrl+O)")
        self.open.setMinimumHeight(36)
        self.open.clicked.connect(self.open_requested)
        self.package = QPushButton("Installed model…")
        self.package.setToolTip("A PyTorch model of an installed Python package")
        self.package.setMinimumHeight(36)
        self.package.clicked.connect(self.package_requested)
        self.example = ExampleCard(*EXAMPLE)
        self.example.clicked.connect(self.example_requested)
        self.drop = DropHint()
        left = QVBoxLayout()
        left.setSpacing(10)
        left.addWidget(self.mark)
        left.addWidget(title)
        left.addWidget(what)
        left.addSpacing(14)
        buttons = QHBoxLayout()
        buttons.setSpacing(10)
        buttons.addWidget(self.open)
        buttons.addWidget(self.package)
        buttons.addStretch(1)
        left.addLayout(buttons)
        left.addSpacing(6)
        left.addWidget(self.drop)
        left.addSpacing(14)
        left.addWidget(label("EXAMPLE", "caption"))
        left.addWidget(self.example)
        left.addStretch(1)
        self._recent = QVBoxLayout()
        self._recent.setSpacing(2)
        right = QVBoxLayout()
        right.setSpacing(8)
        right.addSpacing(64)
        right.addWidget(label("RECENT", "caption"))
        right.addLayout(self._recent)
        right.addStretch(1)
        columns = QHBoxLayout()
        columns.setSpacing(56)
        for side, width in ((left, 440), (right, 360)):
            holder = QWidget()
            holder.setLayout(side)
            side.setContentsMargins(0, 0, 0, 0)
            holder.setFixedWidth(width)
            columns.addWidget(holder)
        centre = QHBoxLayout()
        centre.addStretch(1)
        centre.addLayout(columns)
        centre.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(32, 24, 32, 24)
        layout.addStretch(2)
        layout.addLayout(centre)
        layout.addStretch(3)
        self.nothing = label("Nothing opened yet.", "muted")
        self._recent.addWidget(self.nothing)
        notifier.theme_changed.connect(self._draw_mark)
        self._draw_mark()
        self.refresh()

    def _draw_mark(self) -> None:
        self.mark.setPixmap(pixmap("app", 48, ratio=self.devicePixelRatioF()))

    def refresh(self) -> None:
        """Show the recent files; missing ones are greyed, a click removes them."""
        for card in self.recent_cards:
            self._recent.removeWidget(card)
            card.deleteLater()
        self.recent_cards = []
        for path in self._settings.recent()[:7]:
            missing = not path.exists()
            where = f"{path.parent} · missing, click to remove" if missing else str(path.parent)
            card = Card(path.name, where, missing)
            card.clicked.connect(lambda _checked=False, path=path: self._choose(path))
            self._recent.addWidget(card)
            self.recent_cards.append(card)
        self.nothing.setVisible(not self.recent_cards)

    def _choose(self, path: Path) -> None:
        if path.exists():
            self.path_chosen.emit(path)
        else:
            self._settings.remove_recent(path)
            self.refresh()
