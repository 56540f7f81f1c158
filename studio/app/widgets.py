"""Small widgets used in several places."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QFrame,
    QLabel,
    QListWidget,
    QSizePolicy,
    QStyle,
    QStyleOption,
    QToolButton,
    QWidget,
)


class ElidedLabel(QLabel):
    """A label of one line that shortens its text with an ellipsis; the tooltip has all of it."""

    def __init__(
        self,
        text: str = "",
        mode: Qt.TextElideMode = Qt.TextElideMode.ElideRight,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(text, parent)
        self._mode = mode
        self._tip = ""
        self.setIndent(0)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def setToolTip(self, text: str) -> None:
        self._tip = text
        super().setToolTip(text)

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and not self._tip:
            full = self.fontMetrics().horizontalAdvance(self.text()) > self.width()
            super().setToolTip(self.text() if full else "")
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        option = QStyleOption()
        option.initFrom(self)
        self.style().drawPrimitive(QStyle.PrimitiveElement.PE_Widget, option, painter, self)
        text = self.fontMetrics().elidedText(self.text(), self._mode, self.contentsRect().width())
        self.style().drawItemText(
            painter,
            self.contentsRect(),
            int(self.alignment() | Qt.AlignmentFlag.AlignVCenter),
            self.palette(),
            self.isEnabled(),
            text,
            self.foregroundRole(),
        )


def label(text: str, role: str = "", wrap: bool = False) -> QLabel:
    """A plain-text label with a role of the style sheet."""
    result = QLabel(text)
    result.setIndent(0)
    result.setTextFormat(Qt.TextFormat.PlainText)
    result.setWordWrap(wrap)
    if role:
        result.setProperty("role", role)
    return result


def elided(text: str = "", role: str = "") -> ElidedLabel:
    result = ElidedLabel(text)
    if role:
        result.setProperty("role", role)
    return result


def set_role(widget: QWidget, role: str) -> None:
    """Give `widget` another role and style it anew."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def line(vertical: bool = False) -> QFrame:
    """A hairline between two areas."""
    result = QFrame()
    result.setProperty("role", "line")
    if vertical:
        result.setFixedWidth(1)
    else:
        result.setFixedHeight(1)
    return result


def fit_list(items: QListWidget, most: int) -> None:
    """As high as its entries are, `most` pixels at most."""
    rows = sum(items.sizeHintForRow(row) for row in range(items.count()))
    items.setFixedHeight(min(most, rows + 2 * items.frameWidth() + 2))


def menu_button(name: str, role: str = "") -> QToolButton:
    """A button that opens a menu."""
    result = QToolButton()
    result.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    result.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
    result.setAccessibleName(name)
    if role:
        result.setProperty("role", role)
    return result
