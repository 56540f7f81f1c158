"""What a technique has to show as a plot: points that tell more on hover and can be picked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPoint, QPointF, Qt, Signal
from PySide6.QtWidgets import QToolTip, QWidget

from studio.app.plots.frame import NumberAxis, PlotFrame, short_number
from studio.app.theme import Theme, current_theme, ui_font

if TYPE_CHECKING:
    from studio.techniques.technique import Chart, Point

NEAR = 14
"""Pixels from a point within which the pointer means it."""


class ChartPlot(PlotFrame):
    """The points of a `Chart`: on the line filled, aside hollow, the chosen one a star, the picked
    one ringed. `picked` carries the index of the point that was clicked or reached with the arrow
    keys."""

    picked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Chart", "There are no points to show.", parent)
        self._points: tuple[Point, ...] = ()
        self._x_name = self._y_name = ""
        self.current = -1
        bottom = NumberAxis("bottom")
        self.canvas.getPlotItem().setAxisItems({"bottom": bottom})
        self.canvas.showAxis("bottom")
        bottom.setHeight(38)
        bottom.setStyle(tickTextOffset=4)
        self.canvas.getAxis("left").setWidth(58)
        self.canvas.getViewBox().setMouseEnabled(x=False, y=False)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.line = pg.PlotCurveItem()
        self.target = pg.InfiniteLine(angle=0)
        self.target_name = pg.TextItem(anchor=(0.0, 0.0))
        self.ring = pg.ScatterPlotItem(size=18)
        self.dots = pg.ScatterPlotItem(size=8)
        self.aside = pg.ScatterPlotItem(size=8)
        self.chosen = pg.ScatterPlotItem(size=14, symbol="star")
        self.name = pg.TextItem()
        for text in (self.name, self.target_name):
            text.setFont(ui_font(11))
        for item in (
            self.line,
            self.target,
            self.ring,
            self.aside,
            self.dots,
            self.chosen,
            self.target_name,
            self.name,
        ):
            self.canvas.addItem(item)
        self.canvas.hovered.connect(self._hover)
        self.canvas.left.connect(QToolTip.hideText)
        self.canvas.clicked.connect(self._click)
        self.canvas.stepped.connect(self._step)
        self.canvas.getViewBox().sigResized.connect(self._resized)
        self.setMinimumHeight(220)
        self.follow_theme()

    # -- showing -------------------------------------------------------------------------------

    def set_chart(self, chart: Chart) -> None:
        """Show `chart`, its chosen point picked."""
        self._points = chart.points
        self._x_name, self._y_name = chart.x, chart.y
        self.set_caption(chart.title)
        joined = [point for point in chart.points if not point.aside]
        others = [point for point in chart.points if point.aside]
        self.line.setData(*_places(joined if chart.line else []))
        self.dots.setData(*_places([point for point in joined if not point.chosen]))
        self.aside.setData(*_places(others))
        self.chosen.setData(*_places([point for point in joined if point.chosen]))
        self._scale(chart)
        shown = chart.target is not None
        self.target.setVisible(shown)
        self.target_name.setVisible(shown)
        if chart.target is not None:
            (left, _), _ = self.canvas.getViewBox().viewRange()
            self.target.setValue(chart.target)
            self.target_name.setPos(left, chart.target)
        self.show_empty(not chart.points)
        self._mark(next((i for i, point in enumerate(chart.points) if point.chosen), -1))
        self.apply_theme(current_theme())

    def _scale(self, chart: Chart) -> None:
        """Everything in view, with room above for names."""
        if not chart.points:
            return
        x, y = (np.array(values) for values in _places(chart.points))
        levels = y if chart.target is None else np.append(y, chart.target)
        wide = float(np.ptp(x)) or abs(float(x[0])) or 1.0
        high = float(np.ptp(levels)) or 0.1 * abs(float(levels[0])) or 1.0
        box = self.canvas.getViewBox()
        box.setXRange(float(x.min()) - 0.06 * wide, float(x.max()) + 0.06 * wide, padding=0)
        box.setYRange(
            float(levels.min()) - 0.1 * high, float(levels.max()) + 0.38 * high, padding=0
        )

    def _mark(self, index: int) -> None:
        """Ring a point and name it."""
        self.current = index
        point = self.point
        self.ring.setData(*_places([] if point is None else [point]))
        self.name.setVisible(point is not None and bool(point.label))
        if point is not None:
            self.name.setText(point.label, color=current_theme().text)
            self._place_name(point)

    def _place_name(self, point: Point) -> None:
        """Beside the point, where there is room."""
        (left, right), _ = self.canvas.getViewBox().viewRange()
        across = (point.x - left) / ((right - left) or 1.0)
        anchor = 0.0 if across < 0.3 else 1.0 if across > 0.7 else 0.5
        room = self.canvas.to_widget(point.x, point.y).y()
        self.name.setAnchor((anchor, 1.5 if room > 34 else -0.5))
        self.name.setPos(point.x, point.y)

    def _resized(self) -> None:
        if self.point is not None:
            self._place_name(self.point)

    @property
    def point(self) -> Point | None:
        """The point that is picked."""
        return self._points[self.current] if 0 <= self.current < len(self._points) else None

    @property
    def usable(self) -> bool:
        """True if a point stands for settings."""
        return any(point.settings is not None for point in self._points)

    def show_empty(self, empty: bool, text: str = "") -> None:
        super().show_empty(empty, text)
        self.canvas.getAxis("bottom").setOpacity(0.0 if empty else 1.0)

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        style = {"color": theme.muted, "font-size": "11px"}
        bottom = self.canvas.getAxis("bottom")
        bottom.setPen(pg.mkPen(theme.border_strong))
        bottom.setTextPen(pg.mkPen(theme.muted))
        bottom.setTickFont(ui_font(11))
        bottom.setLabel(self._x_name, **style)
        self.canvas.getAxis("left").setLabel(self._y_name, **style)
        self.line.setPen(pg.mkPen(theme.accent, width=1))
        self.dots.setPen(pg.mkPen(None))
        self.dots.setBrush(pg.mkBrush(theme.accent))
        self.aside.setPen(pg.mkPen(theme.muted, width=1))
        self.aside.setBrush(pg.mkBrush(theme.background))
        self.chosen.setPen(pg.mkPen(theme.background))
        self.chosen.setBrush(pg.mkBrush(theme.warn_mark))
        self.ring.setPen(pg.mkPen(theme.text, width=1))
        self.ring.setBrush(pg.mkBrush(None))
        self.target.setPen(pg.mkPen(theme.good_mark, width=1, style=Qt.PenStyle.DashLine))
        self.target_name.setText("wanted", color=theme.good)
        if self.point is not None:
            self.name.setText(self.point.label, color=theme.text)

    # -- pointing ------------------------------------------------------------------------------

    def nearest(self, place: QPointF) -> int:
        """Index of the point drawn within `NEAR` pixels of `place` (data coordinates), else -1."""
        here = self.canvas.to_widget(place.x(), place.y())
        best, index = float(NEAR), -1
        for number, point in enumerate(self._points):
            there = self.canvas.to_widget(point.x, point.y) - here
            away = (there.x() ** 2 + there.y() ** 2) ** 0.5
            if away <= best:
                best, index = away, number
        return index

    def words_at(self, place: QPointF) -> str:
        """What the tooltip says at `place` (data coordinates)."""
        index = self.nearest(place)
        if index < 0:
            return ""
        point = self._points[index]
        where = f"{self._x_name} {short_number(point.x)}, {self._y_name} {short_number(point.y)}"
        return "\n".join(filter(None, (point.label, point.note or where)))

    def _hover(self, point: QPointF, place: QPoint) -> None:
        words = self.words_at(point)
        if words:
            QToolTip.showText(place, words, self.canvas)
        else:
            QToolTip.hideText()

    def _click(self, point: QPointF) -> None:
        index = self.nearest(point)
        if index >= 0:
            self.pick(index)

    def _step(self, by: int) -> None:
        """Go to the next point to the left or right."""
        if not self._points:
            return
        order = sorted(range(len(self._points)), key=lambda i: self._points[i].x)
        at = order.index(self.current) + by if self.current >= 0 else 0
        self.pick(order[min(max(at, 0), len(order) - 1)])

    def pick(self, index: int) -> None:
        """Ring the point `index` and tell so."""
        self._mark(index)
        self.picked.emit(index)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.x for point in points], [point.y for point in points]
