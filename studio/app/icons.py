"""Line icons that follow the theme.

The SVG files in `resources/icons` are drawn in one colour, `currentColor`; an icon engine fills in
the theme's colour when it paints, so an icon handed out once is right after every theme change.
"""

from __future__ import annotations

from functools import cache, lru_cache

from PySide6.QtCore import QByteArray, QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QIconEngine, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from studio.app.theme import current_theme
from studio.resource_files import resource

ICONS = resource("icons")


def icon(name: str, color: str = "text") -> QIcon:
    """The icon `name` (a file in `resources/icons`) in the theme colour `color`.

    Raises FileNotFoundError for a name that does not exist.
    """
    _source(name)
    return QIcon(_ThemedEngine(name, color))


def app_icon() -> QIcon:
    """The application's own mark, the same in both themes."""
    result = QIcon()
    for size in (16, 24, 32, 48, 64, 128, 256):
        result.addPixmap(_render("app", "", size, size))
    return result


def pixmap(name: str, size: int, color: str = "text", ratio: float = 1.0) -> QPixmap:
    """The icon drawn `size` logical pixels square for a screen of the given pixel ratio."""
    edge = round(size * ratio)
    result = QPixmap(_render(name, getattr(current_theme(), color), edge, edge))
    result.setDevicePixelRatio(ratio)
    return result


class _ThemedEngine(QIconEngine):
    def __init__(self, name: str, color: str) -> None:
        super().__init__()
        self._name = name
        self._color = color

    def _hex(self, mode: QIcon.Mode) -> str:
        disabled = mode == QIcon.Mode.Disabled
        value: str = getattr(current_theme(), "disabled" if disabled else self._color)
        return value

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        ratio = painter.device().devicePixelRatioF()
        image = _render(
            self._name, self._hex(mode), round(rect.width() * ratio), round(rect.height() * ratio)
        )
        painter.drawPixmap(rect, image)

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        return _render(self._name, self._hex(mode), size.width(), size.height())

    def clone(self) -> QIconEngine:
        return _ThemedEngine(self._name, self._color)

    def key(self) -> str:
        return "themed"


@cache
def _source(name: str) -> str:
    return (ICONS / f"{name}.svg").read_text(encoding="utf-8")


@lru_cache(maxsize=512)
def _render(name: str, color: str, width: int, height: int) -> QPixmap:
    result = QPixmap(max(1, width), max(1, height))
    result.fill(Qt.GlobalColor.transparent)
    edge = min(result.width(), result.height())
    left_top = QPoint((result.width() - edge) // 2, (result.height() - edge) // 2)
    painter = QPainter(result)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    svg = QSvgRenderer(QByteArray(_source(name).replace("currentColor", color).encode()))
    svg.render(painter, QRectF(left_top.x(), left_top.y(), edge, edge))
    painter.end()
    return result
