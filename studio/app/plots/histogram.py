"""Histogram of one tensor with the limits its encoding clips at."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtWidgets import QCheckBox, QLabel, QToolTip, QWidget

from studio.app.plots.bars import Array, BarsItem
from studio.app.plots.frame import PlotFrame, short_number
from studio.app.theme import Theme, current_theme, ui_font

INSIDE, CLIPPED = range(2)
FOOT, HEAD = 0.16, 1.06  # room below the bars for the labels, and the top; a full bar is 1


def clipped_share(counts: Array, edges: Array, low: float, high: float) -> float:
    """Share of values outside [low, high], 0 to 1; a bin that is cut counts in proportion.

    counts has shape (n,), edges (n + 1,).
    """
    total = float(counts.sum())
    if total <= 0:
        return 0.0
    width = np.maximum(np.diff(edges), np.finfo(np.float64).tiny)
    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    kept = float((counts * np.clip(inside / width, 0.0, 1.0)).sum())
    return max(0.0, 1.0 - kept / total)


class HistogramPlot(PlotFrame):
    """Counts as bars, clipped bins in red, the two limits as labelled lines."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Histogram", "Calibrate to see how the values are spread.", parent)
        self._counts, self._edges = np.zeros(0), np.zeros(1)
        self._limits: tuple[float, float] | None = None
        self._bars = BarsItem(gap=1)
        self._lines = [pg.InfiniteLine(angle=90, span=(FOOT / (FOOT + HEAD), 1)) for _ in range(2)]
        self._labels = [pg.TextItem(anchor=(0.5, 0)) for _ in range(2)]
        self.canvas.addItem(self._bars)
        for item in (*self._lines, *self._labels):
            self.canvas.addItem(item)
            item.hide()
        # Both ends of other ranges: dashes, and one of them looked at.
        self._others = pg.PlotCurveItem(connect="pairs")
        self._other = pg.PlotCurveItem(connect="pairs")
        self._ranges: list[tuple[float, float]] = []
        self._looked_at: tuple[float, float] | None = None
        self._name = ""
        for item in (self._others, self._other):
            self.canvas.addItem(item)
        for label in self._labels:
            label.setFont(ui_font(11))
        self.canvas.hideAxis("left")
        self.canvas.getViewBox().setMouseEnabled(x=False, y=False)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.log = QCheckBox(self.tr("log"), self)
        self.log.setToolTip(self.tr("Logarithmic counts: shows rare values"))
        self.log.setAccessibleName(self.tr("Logarithmic counts"))
        self.log.toggled.connect(self._draw)
        self.header.addWidget(self.log)
        self.note = QLabel(self)
        self.note.setWordWrap(True)
        self.note.setContentsMargins(12, 0, 12, 0)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self.note)
        self.canvas.hovered.connect(self._hover)
        self.canvas.left.connect(QToolTip.hideText)
        self.clear()
        self.follow_theme()

    def set_histogram(
        self,
        counts: Array,
        edges: Array,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """counts (n,), edges (n + 1,) rising; `low` and `high` are the limits, if known.

        Raises ValueError if the lengths do not fit.
        """
        counts = np.asarray(counts, dtype=np.float64)
        edges = np.asarray(edges, dtype=np.float64)
        if len(edges) != len(counts) + 1:
            raise ValueError(f"{len(counts)} counts need {len(counts) + 1} edges, not {len(edges)}")
        self._counts, self._edges = counts, edges
        self._limits = None if low is None or high is None else (float(low), float(high))
        self._draw()

    def set_other_ranges(self, ranges: list[tuple[float, float]]) -> None:
        """Ends (low, high) of ranges to compare the limits with."""
        self._ranges, self._looked_at, self._name = list(ranges), None, ""
        self._draw()

    def look_at(self, range_: tuple[float, float] | None, name: str = "") -> None:
        """Show one of the other ranges, called `name`, in front, or none."""
        if range_ == self._looked_at and name == self._name:
            return
        self._looked_at, self._name = range_, name
        self._draw()

    @property
    def shown_limits(self) -> tuple[float, float] | None:
        """The limits the note is about: those looked at, else those in force."""
        return self._looked_at or self._limits

    def clear(self, text: str = "") -> None:
        """Back to the empty state; `text` replaces the usual one."""
        self._counts, self._edges, self._limits = np.zeros(0), np.zeros(1), None
        self._draw()
        self.show_empty(True, text)

    @property
    def clipped(self) -> float:
        """Share of values outside the limits shown, 0 to 1; 0 without limits."""
        limits = self.shown_limits
        return 0.0 if limits is None else clipped_share(self._counts, self._edges, *limits)

    def _draw(self) -> None:
        counts, edges = self._counts, self._edges
        empty = not counts.sum() > 0
        self.show_empty(empty)
        self.log.setVisible(not empty)
        limits = None if empty else self._limits
        for item in (*self._lines, *self._labels):
            item.setVisible(limits is not None)
        self.note.setVisible(limits is not None)
        if empty:
            none = np.zeros(0)
            self._bars.set_bars(none, none, none, none, np.zeros(0, dtype=np.intp))
            self._draw_others()
            return
        height = np.log10(counts + 1) if self.log.isChecked() else counts
        height = height / height.max()
        kind = np.zeros(len(counts), dtype=np.intp)
        shown = self.shown_limits
        if shown is not None:
            middle = (edges[:-1] + edges[1:]) / 2
            kind[(middle < shown[0]) | (middle > shown[1])] = CLIPPED
        # Empty bins have no bar: a bar is a pixel high at least.
        low = np.where(counts > 0, 0.0, np.nan)
        self._bars.set_bars(edges[:-1], edges[1:], low, height, kind)
        self._place(limits)
        self._draw_others()
        if limits is not None:
            self._say_clipped()

    def _draw_others(self) -> None:
        shown = [] if self._counts.sum() <= 0 else self._ranges
        front = [self._looked_at] if self._looked_at is not None and shown else []
        for curve, ranges, top in ((self._others, shown, 0.55), (self._other, front, HEAD)):
            ends = [end for range_ in ranges for end in range_]
            x = np.repeat(np.asarray(ends, dtype=np.float64), 2)
            curve.setData(x, np.tile([0.0, top], len(ends)))

    def _place(self, limits: tuple[float, float] | None) -> None:
        used = np.flatnonzero(self._counts)
        left, right = float(self._edges[used[0]]), float(self._edges[used[-1] + 1])
        if limits is not None:
            left, right = min(left, limits[0]), max(right, limits[1])
        for low, high in self._ranges:
            left, right = min(left, low), max(right, high)
        margin = 0.06 * (right - left) or 1.0
        box = self.canvas.getViewBox()
        box.setRange(
            xRange=(left - margin, right + margin), yRange=(-FOOT, HEAD), padding=0, update=True
        )
        if limits is None:
            return
        near = abs(limits[1] - limits[0]) < 0.25 * (right - left)
        for line, label, value, side in zip(
            self._lines, self._labels, limits, (1.0, 0.0), strict=True
        ):
            line.setPos(value)
            label.setText(f"{value:.4g}".replace("-", "−"))
            edge = 0.0 if value < left + margin else 1.0 if value > right - margin else 0.5
            label.setAnchor((side if near else edge, 0))
            label.setPos(value, 0.0)

    def _say_clipped(self) -> None:
        share = self.clipped
        role = "bad" if share > 0.001 else "muted"
        percent = f"{100 * share:.1f}" if share >= 0.0005 else "< 0.1" if share > 1e-9 else "0"
        words = self.tr("{0} % of values clipped").format(percent)
        self.note.setText(f"{self._name}: {words}" if self._name else words)
        if self.note.property("role") != role:
            self.note.setProperty("role", role)
            self.note.style().unpolish(self.note)
            self.note.style().polish(self.note)

    def _hover(self, point: QPointF, where: QPoint) -> None:
        index = int(np.searchsorted(self._edges, point.x(), side="right")) - 1
        if not 0 <= index < len(self._counts):
            QToolTip.hideText()
            return
        low, high = short_number(self._edges[index]), short_number(self._edges[index + 1])
        text = self.tr("{0} to {1}: {2} values").format(low, high, f"{self._counts[index]:,.0f}")
        QToolTip.showText(where, text, self.canvas)

    def apply_theme(self, theme: Theme) -> None:
        super().apply_theme(theme)
        self._bars.set_colors([pg.mkColor(theme.accent), pg.mkColor(theme.bad_mark)])
        for line in self._lines:
            line.setPen(pg.mkPen(theme.warn_mark, width=1))
        dashes = Qt.PenStyle.DashLine
        self._others.setPen(pg.mkPen(theme.muted, width=1, style=dashes))
        self._other.setPen(pg.mkPen(theme.link, width=2))
        for label in self._labels:
            label.setColor(pg.mkColor(current_theme().muted))
