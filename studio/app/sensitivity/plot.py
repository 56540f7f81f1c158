"""One bar a layer: how much its quantization harms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPoint, QPointF, Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QToolTip, QWidget

from studio.app.plots.bars import BarsItem
from studio.app.plots.frame import PlotFrame
from studio.app.theme import Theme, contrast, current_theme, ui_font

BAR = 0.62  # width of a bar; its slot is 1
LEAST_CONTRAST = 2.2


@dataclass(frozen=True)
class Bar:
    """A layer, how high its bar is (nan: none), its colour, what its label and what the pointer
    over it tells."""

    layer: str
    height: float
    color: QColor
    words: str
    tip: str


def _visible(color: QColor) -> QColor:
    """`color`, towards that of text as far as a bar must be to stand out."""
    theme = current_theme()
    ink = theme.color("text")
    for step in range(10):
        part = 0.08 * step
        mixed = QColor(
            round(color.red() + (ink.red() - color.red()) * part),
            round(color.green() + (ink.green() - color.green()) * part),
            round(color.blue() + (ink.blue() - color.blue()) * part),
        )
        if contrast(mixed, theme.background) >= LEAST_CONTRAST:
            break
    return mixed


class SensitivityPlot(PlotFrame):
    """Bars in the order given. The selected one stands on a band and is labelled, else the highest
    is labelled. `selected` carries the layer of the bar that was clicked, or reached by the left
    and right keys."""

    selected = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Sensitivity", "Nothing to draw.", parent)
        self._bars: list[Bar] = []
        self._chosen = -1
        self._band = BarsItem()
        self._item = BarsItem()
        self._zero = pg.InfiniteLine(angle=0, pos=0.0)
        self._label = pg.TextItem(anchor=(0, 0.5))
        self._label.setFont(ui_font(11))
        for item in (self._band, self._zero, self._item, self._label):
            self.canvas.addItem(item)
        self.canvas.hovered.connect(self._hover)
        self.canvas.left.connect(QToolTip.hideText)
        self.canvas.reset.connect(self.reset_zoom)
        self.canvas.clicked.connect(self._click)
        self.canvas.stepped.connect(self._step)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.show_empty(True)
        self.follow_theme()

    def set_bars(self, what: str, unit: str, bars: Sequence[Bar]) -> None:
        """Bars in their order; `what` they show, in which unit."""
        chosen, same = self.highlighted, len(bars) == len(self._bars)
        self.set_caption(what, unit)
        self._bars = list(bars)
        self._chosen = self._place(chosen)
        heights = [bar.height for bar in bars if math.isfinite(bar.height)]
        self.show_empty(not heights)
        self._zero.setVisible(bool(heights))
        if heights:
            low, high = min(min(heights), 0.0), max(max(heights), 0.0)
            margin = 0.1 * (high - low) or 1.0
            self.canvas.getViewBox().setYRange(low - (margin if low else 0), high + margin)
        if not same:
            self.reset_zoom()
        self._draw()

    def highlight(self, layer: str) -> None:
        """Mark the bar of `layer`; none if it has no bar."""
        self._chosen = self._place(layer)
        self._draw()

    @property
    def highlighted(self) -> str:
        return self._bars[self._chosen].layer if self._chosen >= 0 else ""

    @property
    def layers(self) -> list[str]:
        """The layers in the order of their bars."""
        return [bar.layer for bar in self._bars]

    @property
    def label_text(self) -> str:
        """The text beside the labelled bar; "" when there is none."""
        return self._label.toPlainText() if self._label.isVisible() else ""

    def reset_zoom(self) -> None:
        """Show all bars."""
        count = max(len(self._bars), 1)
        box = self.canvas.getViewBox()
        box.setLimits(xMin=-1, xMax=count, minXRange=min(count, 6))
        box.setXRange(-1, count, padding=0)

    def _place(self, layer: str) -> int:
        return next((i for i, bar in enumerate(self._bars) if bar.layer == layer), -1)

    def _draw(self) -> None:
        center = np.arange(len(self._bars), dtype=np.float64)
        heights = np.array([bar.height for bar in self._bars], dtype=np.float64)
        none = np.zeros(len(self._bars))
        self._item.set_colors([_visible(bar.color) for bar in self._bars])
        self._item.set_bars(
            center - BAR / 2,
            center + BAR / 2,
            np.minimum(heights, none),
            np.maximum(heights, none),
            np.arange(len(self._bars), dtype=np.intp),
        )
        ends = self.canvas.getViewBox().viewRange()[1]
        one = center[[self._chosen]] if self._chosen >= 0 else center[:0]
        low, high = np.full(len(one), ends[0]), np.full(len(one), ends[1])
        self._band.set_bars(one - 0.5, one + 0.5, low, high, np.zeros(len(one), dtype=np.intp))
        self._draw_label()

    def _draw_label(self) -> None:
        known = [i for i, bar in enumerate(self._bars) if math.isfinite(bar.height)]
        index = max(known, key=lambda i: self._bars[i].height, default=-1)
        if self._chosen in known:
            index = self._chosen
        self._label.setVisible(index >= 0)
        if index < 0:
            return
        bar = self._bars[index]
        name = bar.layer if len(bar.layer) <= 40 else f"{bar.layer[:12]}…{bar.layer[-27:]}"
        self._label.setText(f"{name}  {bar.words}", color=current_theme().text)
        right = index > 0.5 * len(self._bars)
        self._label.setAnchor((1 if right else 0, 1.0))
        top = self.canvas.getViewBox().viewRange()[1][1]
        self._label.setPos(index + (-0.6 if right else 0.6), min(max(bar.height, 0), 0.84 * top))

    def tooltip_text(self, index: int) -> str:
        """What the pointer over bar `index` tells."""
        return f"{self._bars[index].layer}\n{self._bars[index].tip}"

    def _index(self, x: float) -> int:
        index = round(x)
        return index if 0 <= index < len(self._bars) else -1

    def _hover(self, point: QPointF, where: QPoint) -> None:
        index = self._index(point.x())
        if index < 0:
            QToolTip.hideText()
        else:
            QToolTip.showText(where, self.tooltip_text(index), self.canvas)

    def _choose(self, index: int) -> None:
        self._chosen = index
        self._draw()
        self.selected.emit(self._bars[index].layer)

    def _click(self, point: QPointF) -> None:
        index = self._index(point.x())
        if index >= 0:
            self._choose(index)

    def _step(self, step: int) -> None:
        if self._bars:
            self._choose(min(max(self._chosen + step, 0), len(self._bars) - 1))

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        fill = theme.color("background")
        fill.setAlpha(215)  # the label lies over other bars
        self._label.fill = pg.mkBrush(fill)
        self._band.set_colors([theme.color("selection")])
        self._zero.setPen(pg.mkPen(theme.border_strong, width=1))
        self._draw()
