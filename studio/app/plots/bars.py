"""Many vertical bars as one item, drawn on whole pixels."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QRect, QRectF
from PySide6.QtGui import QColor, QPainter, QTransform
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget

Array = NDArray[np.float64]


class BarsItem(pg.GraphicsObject):
    """Bars from `low` to `high` between `left` and `right`, each in one of a few colours.

    Bars are widened to a pixel at least, so that none is lost where there are more than pixels.
    `gap` pixels are left free at the right of bars at least three pixels wide.
    """

    def __init__(self, gap: int = 0) -> None:
        super().__init__()
        self._gap = gap
        self._left = self._right = self._low = self._high = np.zeros(0)
        self._kind = np.zeros(0, dtype=np.intp)
        self._colors: list[QColor] = []
        self._bounds = QRectF()

    def set_bars(
        self, left: Array, right: Array, low: Array, high: Array, kind: NDArray[np.intp]
    ) -> None:
        """All arrays have shape (n,); `kind` indexes the colours; bars with nan are left out."""
        known = np.isfinite(low) & np.isfinite(high)
        self._left, self._right = left[known], right[known]
        self._low, self._high = low[known], high[known]
        self._kind = kind[known]
        self.prepareGeometryChange()
        self._bounds = QRectF()
        if known.any():
            x, y = float(self._left.min()), float(self._low.min())
            self._bounds = QRectF(
                x, y, float(self._right.max()) - x, max(float(self._high.max()) - y, 1e-12)
            )
        self.update()

    def set_colors(self, colors: list[QColor]) -> None:
        self._colors = colors
        self.update()

    def boundingRect(self) -> QRectF:
        return self._bounds

    def paint(
        self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None
    ) -> None:
        if not len(self._left):
            return
        to_pixel = painter.worldTransform()
        sx, sy, dx, dy = to_pixel.m11(), to_pixel.m22(), to_pixel.dx(), to_pixel.dy()
        x0 = np.rint(self._left * sx + dx).astype(np.int64)
        x1 = np.maximum(np.rint(self._right * sx + dx).astype(np.int64), x0 + 1)
        x1 -= np.where(x1 - x0 >= 3, self._gap, 0)
        first, second = self._low * sy + dy, self._high * sy + dy
        y0 = np.rint(np.minimum(first, second)).clip(-1e6, 1e6).astype(np.int64)
        y1 = np.rint(np.maximum(first, second)).clip(-1e6, 1e6).astype(np.int64)
        y1 = np.maximum(y1, y0 + 1)
        painter.setWorldTransform(QTransform())
        for kind, color in enumerate(self._colors):
            chosen = self._kind == kind
            columns = zip(
                x0[chosen].tolist(),
                y0[chosen].tolist(),
                (x1 - x0)[chosen].tolist(),
                (y1 - y0)[chosen].tolist(),
                strict=True,
            )
            for x, y, width, height in columns:
                painter.fillRect(QRect(x, y, width, height), color)
        painter.setWorldTransform(to_pixel)
