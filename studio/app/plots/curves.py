"""Curves over the steps or epochs of a training, with labelled axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPoint, QPointF, Signal
from PySide6.QtWidgets import QToolTip, QWidget

from studio.app.plots.bars import Array
from studio.app.plots.frame import NumberAxis, PlotFrame, short_number
from studio.app.theme import Theme, current_theme, ui_font

LABEL_PIXELS = "11px"


class CurvePlot(PlotFrame):
    """One curve over `x_name`, and perhaps a faint one behind it. The wheel and dragging zoom and
    pan sideways, a double click shows all again."""

    def __init__(
        self, name: str, x_name: str, y_name: str, empty: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(name, empty, parent)
        self.x_name, self.y_name = x_name, y_name
        self._x = self._y = self._behind = np.zeros(0)
        self._end = 0.0
        self.start = 0.0  # of the x axis
        bottom = NumberAxis("bottom")
        self.canvas.getPlotItem().setAxisItems({"bottom": bottom})
        self.canvas.showAxis("bottom")
        bottom.setHeight(38)
        bottom.setStyle(tickTextOffset=4)
        self.canvas.getAxis("left").setWidth(62)
        self.faint = pg.PlotCurveItem()
        self.line = pg.PlotCurveItem()
        for item in (self.faint, self.line):
            self.canvas.addItem(item)
        self.canvas.hovered.connect(self._hover)
        self.canvas.left.connect(QToolTip.hideText)
        self.canvas.reset.connect(self.reset_zoom)
        self.show_empty(True)

    def set_curve(
        self, x: Sequence[float] | Array, y: Array, end: float, behind: Array | None = None
    ) -> None:
        """`x`, `y` and what is drawn faint `behind` have shape (n,); the axis goes up to `end`."""
        self._x, self._y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self._behind = np.zeros(0) if behind is None else np.asarray(behind, np.float64)
        self.line.setData(self._x, self._y)
        self.faint.setData(self._x[: len(self._behind)], self._behind)
        self.show_empty(not len(self._x))
        if end != self._end:
            self._end = end
            self.reset_zoom()
        self._scale_y(np.concatenate([self._y, self._behind]))

    def clear(self, text: str = "") -> None:
        """Back to the empty state; `text` replaces the usual one."""
        self.set_curve((), np.zeros(0), 0.0)
        self.show_empty(True, text)

    @property
    def points(self) -> int:
        """Number of points drawn."""
        return len(self._x)

    def reset_zoom(self) -> None:
        """Show all steps."""
        box = self.canvas.getViewBox()
        end = max(self._end, self.start + 1)
        margin = 0.02 * (end - self.start)
        box.setLimits(xMin=self.start - margin, xMax=end + margin)
        box.setXRange(self.start - margin, end + margin, padding=0)

    def _scale_y(self, values: Array) -> None:
        known = values[np.isfinite(values)]
        if not len(known):
            return
        low, high = float(known.min()), float(known.max())
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        self.canvas.getViewBox().setYRange(low - margin, high + margin, padding=0)

    def set_y_name(self, name: str) -> None:
        """Name and unit of the vertical axis."""
        if name != self.y_name:
            self.y_name = name
            self._name_axes(current_theme())

    def show_empty(self, empty: bool, text: str = "") -> None:
        super().show_empty(empty, text)
        self.canvas.getAxis("bottom").setOpacity(0.0 if empty else 1.0)

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        bottom = self.canvas.getAxis("bottom")
        bottom.setPen(pg.mkPen(theme.border_strong))
        bottom.setTextPen(pg.mkPen(theme.muted))
        bottom.setTickFont(ui_font(11))
        self._name_axes(theme)
        self.line.setPen(pg.mkPen(theme.accent, width=1))
        self.faint.setPen(pg.mkPen(theme.edge, width=1))

    def _name_axes(self, theme: Theme) -> None:
        style = {"color": theme.muted, "font-size": LABEL_PIXELS}
        self.canvas.getAxis("bottom").setLabel(self.x_name, **style)
        self.canvas.getAxis("left").setLabel(self.y_name, **style)

    def _hover(self, point: QPointF, place: QPoint) -> None:
        words = self.words_at(point)
        if words:
            QToolTip.showText(place, words, self.canvas)
        else:
            QToolTip.hideText()

    def words_at(self, point: QPointF) -> str:
        """What the tooltip says at `point` (data coordinates)."""
        if not len(self._x):
            return ""
        index = int(np.argmin(np.abs(self._x - point.x())))
        return (
            f"{self.x_name} {short_number(self._x[index])}: "
            f"{self.y_name} {short_number(self._y[index])}"
        )


class ResultPlot(CurvePlot):
    """A metric over epochs: a dot for each, and a labelled mark at the best."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Metric", "epoch", "metric", "Measured at the end of each epoch.", parent)
        self.start = 0.5
        self.dots = pg.ScatterPlotItem(size=6)
        self.best = pg.ScatterPlotItem(size=13, symbol="star")
        self.label = pg.TextItem(anchor=(0.5, 1.25))
        self.label.setFont(ui_font(11))
        for item in (self.dots, self.best, self.label):
            self.canvas.addItem(item)
        self._best_text = ""
        self.follow_theme()

    def set_results(
        self, epochs: Sequence[float], values: Sequence[float], best: int, end: float, text: str
    ) -> None:
        """`best` is the index of the best result, -1 for none, and `text` its label."""
        heights = np.asarray(values, np.float64)
        self.set_curve(epochs, heights, end + 0.5)
        self.dots.setData(np.asarray(epochs, np.float64), heights)
        self.best.setData(*(([epochs[best]], [values[best]]) if best >= 0 else ([], [])))
        self._best_text = text if best >= 0 else ""
        self.label.setVisible(best >= 0)
        if best >= 0:
            self.label.setText(text, color=current_theme().text)
            place = (epochs[best] - self.start) / max(end - self.start, 1e-9)
            self.label.setAnchor((0.0 if place < 0.2 else 1.0 if place > 0.8 else 0.5, 1.25))
            self.label.setPos(epochs[best], values[best])

    @property
    def best_text(self) -> str:
        """The label at the best result; "" while there is none."""
        return self._best_text

    def clear(self, text: str = "") -> None:
        self.set_results((), (), -1, 0.0, "")
        self.show_empty(True, text)

    def _scale_y(self, values: Array) -> None:
        known = values[np.isfinite(values)]
        if len(known):
            low, high = float(known.min()), float(known.max())
            span = high - low or 0.1 * abs(high) or 1.0
            # Room above for the label of the best.
            self.canvas.getViewBox().setYRange(low - 0.12 * span, high + 0.3 * span, padding=0)

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        self.dots.setBrush(pg.mkBrush(theme.accent))
        self.dots.setPen(pg.mkPen(None))
        self.best.setBrush(pg.mkBrush(theme.warn_mark))
        self.best.setPen(pg.mkPen(theme.background))
        if self._best_text:
            self.label.setText(self._best_text, color=theme.text)


class DriftPlot(CurvePlot):
    """A curve for each learned range, one of them in front. `chosen` carries the name of the one
    that was clicked."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        empty = "Ranges are drawn here while they are learned."
        super().__init__("Learned ranges", "step", "width (% of start)", empty, parent)
        self._names: tuple[str, ...] = ()
        self._widths = np.zeros((0, 0))
        self.front = ""
        self.all = pg.PlotCurveItem(connect="finite")
        self.all.setZValue(-1)
        self.canvas.addItem(self.all)
        self.canvas.clicked.connect(self._click)
        self.follow_theme()

    def set_drift(
        self, steps: Sequence[int], names: tuple[str, ...], widths: Array, front: str, end: float
    ) -> None:
        """`widths` has shape (steps, names), in percent; `front` is drawn in the accent colour."""
        self._names, self._widths, self.front = names, widths, front
        x = np.asarray(steps, np.float64)
        shown = widths[:, names.index(front)] if front in names else np.full(len(x), np.nan)
        self.set_curve(x, shown, end)
        gap = np.full((1, len(names)), np.nan)
        self.all.setData(
            np.tile(np.append(x, np.nan), len(names)), np.concatenate([widths, gap]).T.ravel()
        )
        self.line.setVisible(front in names)
        self._scale_y(widths.ravel())
        self.show_empty(not names or not len(x))

    def clear(self, text: str = "") -> None:
        self.set_drift((), (), np.zeros((0, 0)), "", 0.0)
        self.show_empty(True, text)

    @property
    def curves(self) -> int:
        """Number of ranges drawn."""
        return len(self._names)

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        self.all.setPen(pg.mkPen(theme.edge, width=1))

    def _nearest(self, point: QPointF) -> tuple[int, int] | None:
        """Snapshot and tensor drawn nearest to `point`; None if none is near."""
        if not self._widths.size:
            return None
        row = int(np.argmin(np.abs(self._x - point.x())))
        column = int(np.argmin(np.abs(self._widths[row] - point.y())))
        at = self.canvas.to_widget(self._x[row], self._widths[row, column])
        away = abs(at.y() - self.canvas.to_widget(point.x(), point.y()).y())
        return (row, column) if away < 12 else None

    def words_at(self, point: QPointF) -> str:
        found = self._nearest(point)
        if found is None:
            return ""
        row, column = found
        return f"{self._names[column]}, step {self._x[row]:.0f}: {self._widths[row, column]:.1f} %"

    def _click(self, point: QPointF) -> None:
        found = self._nearest(point)
        if found is not None:
            self.chosen.emit(self._names[found[1]])
