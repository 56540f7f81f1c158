"""Ranges as vertical bars: of every activation, and of every channel of a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPoint, QPointF, Qt, Signal
from PySide6.QtWidgets import QToolTip, QWidget

from studio.app.plots.bars import Array, BarsItem
from studio.app.plots.frame import PlotFrame
from studio.app.theme import Theme, current_theme, ui_font

NORMAL, WAITING, OUTLIER, CHOSEN = range(4)
BAR = 0.56  # width of a bar; its slot is 1


def outliers(minimum: Array, maximum: Array) -> NDArray[np.bool_]:
    """Which ranges are far out: width above Q3 + 3 IQR (Tukey) and above twice the median.

    Boolean, shape (n,); nan is never far out. Fewer than eight ranges say nothing.
    """
    width = np.maximum(np.abs(minimum), np.abs(maximum))
    known = width[np.isfinite(width)]
    if len(known) < 8:
        return np.zeros(len(width), dtype=bool)
    q1, middle, q3 = np.quantile(known, (0.25, 0.5, 0.75))
    with np.errstate(invalid="ignore"):
        return (width > q3 + 3 * (q3 - q1)) & (width > 2 * middle)


def _short(name: str) -> str:
    """`name` in at most 40 characters, its end more telling than its middle."""
    return name if len(name) <= 40 else f"{name[:12]}…{name[-27:]}"


class _BarPlot(PlotFrame):
    """Bars side by side with one slot each, a zero line, a label at the widest outlier.

    The wheel and dragging zoom and pan sideways, a double click shows all again.
    """

    def __init__(self, name: str, empty: str, parent: QWidget | None) -> None:
        super().__init__(name, empty, parent)
        self._names: list[str] = []
        self._minimum = self._maximum = np.zeros(0)
        self._fresh = np.zeros(0, dtype=bool)
        self._outlier = np.zeros(0, dtype=bool)
        self._chosen = -1
        self._bars = BarsItem()
        self._zero = pg.InfiniteLine(angle=0, pos=0.0)
        self._label = pg.TextItem(anchor=(0, 0.5))
        for item in (self._zero, self._bars, self._label):
            self.canvas.addItem(item)
        self._label.setFont(ui_font(11))
        self.canvas.hovered.connect(self._hover)
        self.canvas.left.connect(QToolTip.hideText)
        self.canvas.reset.connect(self.reset_zoom)
        self.show_empty(True)
        self._zero.hide()
        self.follow_theme()

    def _set(
        self, names: Sequence[str], minimum: object, maximum: object, fresh: object = None
    ) -> None:
        low = np.asarray(minimum, dtype=np.float64)
        high = np.asarray(maximum, dtype=np.float64)
        if not len(names) == len(low) == len(high):
            raise ValueError(f"{len(names)} names, {len(low)} minima, {len(high)} maxima")
        same = len(names) == len(self._names) and list(names) == self._names
        self._names, self._minimum, self._maximum = list(names), low, high
        known = np.isfinite(low) & np.isfinite(high)
        self._fresh = known if fresh is None else known & np.asarray(fresh, dtype=bool)
        shown = np.where(self._fresh, 1.0, np.nan)
        self._outlier = outliers(low * shown, high * shown)
        if not same:
            self._chosen = -1
            self.reset_zoom()
        self._scale_y()
        self._draw()

    def reset_zoom(self) -> None:
        """Show all bars."""
        count = max(len(self._names), 1)
        box = self.canvas.getViewBox()
        box.setLimits(xMin=-1, xMax=count, minXRange=min(count, 6))
        box.setXRange(-1, count, padding=0)

    def _scale_y(self) -> None:
        known = np.isfinite(self._minimum) & np.isfinite(self._maximum)
        if not known.any():
            self.show_empty(True)
            self._zero.hide()
            return
        self.show_empty(False)
        self._zero.show()
        low = min(float(self._minimum[known].min()), 0.0)
        high = max(float(self._maximum[known].max()), 0.0)
        margin = 0.12 * (high - low) or 1.0
        self.canvas.getViewBox().setYRange(low - margin, high + margin, padding=0)

    def _kinds(self) -> NDArray[np.intp]:
        kind = np.where(self._fresh, NORMAL, WAITING).astype(np.intp)
        kind[self._outlier] = OUTLIER
        if 0 <= self._chosen < len(kind):
            kind[self._chosen] = CHOSEN
        return kind

    def _draw(self) -> None:
        center = np.arange(len(self._names), dtype=np.float64)
        half = BAR / 2
        low, high = np.minimum(self._minimum, self._maximum), self._maximum
        self._bars.set_bars(center - half, center + half, low, high, self._kinds())
        self._draw_label()

    def _draw_label(self) -> None:
        index = self._labelled()
        self._label.setVisible(index >= 0)
        if index < 0:
            return
        low, high = float(self._minimum[index]), float(self._maximum[index])
        value = high if abs(high) >= abs(low) else low
        theme = current_theme()
        color = self._label_color(theme) if self._outlier[index] else theme.text
        self._label.setText(
            f"{_short(self._names[index])} {value:.3g}".replace(" -", " −"), color=color
        )
        right = index > 0.6 * len(self._names)
        self._label.setAnchor((1 if right else 0, 0.5))
        self._label.setPos(index + (-0.6 if right else 0.6), value * 0.97)

    def _labelled(self) -> int:
        """Index of the bar that gets the label: the chosen one, else the widest outlier."""
        if 0 <= self._chosen < len(self._names) and np.isfinite(self._maximum[self._chosen]):
            return self._chosen
        if not self._outlier.any():
            return -1
        width = np.maximum(np.abs(self._minimum), np.abs(self._maximum))
        return int(np.argmax(np.where(self._outlier, width, -1.0)))

    @property
    def label_text(self) -> str:
        """The text beside the labelled bar; "" when there is none."""
        return self._label.toPlainText() if self._label.isVisible() else ""

    def _index(self, x: float) -> int:
        index = round(x)
        return index if 0 <= index < len(self._names) else -1

    def tooltip_text(self, index: int) -> str:
        """What the pointer over bar `index` tells."""
        low, high = float(self._minimum[index]), float(self._maximum[index])
        if not np.isfinite(low):
            return self.tr("{0}\nnot calibrated yet").format(self._names[index])
        text = f"{self._names[index]}\nmin {low:.5g}   max {high:.5g}"
        return text if self._fresh[index] else text + "\n" + self.tr("from the step before")

    def _hover(self, point: QPointF, where: QPoint) -> None:
        index = self._index(point.x())
        if index < 0:
            QToolTip.hideText()
        else:
            QToolTip.showText(where, self.tooltip_text(index), self.canvas)

    def _colors(self, theme: Theme) -> tuple[str, str]:
        """Colours of a usual bar and of an outlier."""
        return theme.accent, theme.bad_mark

    def _label_color(self, theme: Theme) -> str:
        return theme.bad

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        fill = theme.color("background")
        fill.setAlpha(215)  # the label lies over other bars
        self._label.fill = pg.mkBrush(fill)
        normal, outlier = self._colors(theme)
        waiting = theme.border_strong if theme.dark else theme.border
        names = (normal, waiting, outlier, theme.text)
        self._bars.set_colors([pg.mkColor(name) for name in names])
        self._zero.setPen(pg.mkPen(theme.border_strong, width=1))
        self._draw_label()


class RangePlot(_BarPlot):
    """Activation ranges, one bar from min to max for each tensor, cheap to update while running.

    Tensors without values (nan) have no bar; values that are not `fresh` are grey. Outliers are
    red, the widest one labelled. `selected` carries the name of the bar clicked, or reached with
    the left and right keys.
    """

    selected = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Activation ranges", "Calibrate to see the range of every tensor.", parent)
        self.canvas.clicked.connect(self._click)
        self.canvas.stepped.connect(self._step)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def set_ranges(
        self,
        names: Sequence[str],
        minimum: Sequence[float] | Array,
        maximum: Sequence[float] | Array,
        fresh: Sequence[bool] | None = None,
    ) -> None:
        """All of length n. `fresh` is False for values of an earlier run (default: all fresh).

        Raises ValueError if the lengths differ.
        """
        self._set(names, minimum, maximum, fresh)

    def clear(self) -> None:
        """Back to the empty state."""
        self._set([], [], [])

    def highlight(self, name: str) -> None:
        """Mark the bar `name`; "" or an unknown name: none."""
        self._chosen = self._names.index(name) if name in self._names else -1
        self._draw()

    @property
    def highlighted(self) -> str:
        return self._names[self._chosen] if 0 <= self._chosen < len(self._names) else ""

    def _choose(self, index: int) -> None:
        self._chosen = index
        self._draw()
        self.selected.emit(self._names[index])

    def _click(self, point: QPointF) -> None:
        index = self._index(point.x())
        if index >= 0:
            self._choose(index)

    def _step(self, step: int) -> None:
        if self._names:
            self._choose(min(max(self._chosen + step, 0), len(self._names) - 1))


class WeightRangePlot(_BarPlot):
    """Range of each output channel of a weight; channels far out are marked."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Weight ranges per channel", "Select a layer that has weights.", parent)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)

    def set_channels(
        self, layer: str, minimum: Sequence[float] | Array, maximum: Sequence[float] | Array
    ) -> None:
        """Per-channel minima and maxima, shape (channels,)."""
        names = [self.tr("channel {0}").format(i) for i in range(len(minimum))]
        self._set(names, minimum, maximum)
        self.set_caption("Weight ranges per channel", layer)

    def clear(self) -> None:
        self.set_channels("", [], [])

    def _colors(self, theme: Theme) -> tuple[str, str]:
        return theme.good_mark, theme.warn_mark

    def _label_color(self, theme: Theme) -> str:
        return theme.warn
