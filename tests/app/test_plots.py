"""The plots: right bars in the right place and colour, labels, pointer, keys, speed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from studio.app.plots import HistogramPlot, RangePlot, WeightRangePlot
from studio.app.plots.frame import PlotFrame, short_number
from studio.app.plots.histogram import clipped_share
from studio.app.plots.ranges import outliers
from studio.app.theme import DARK, LIGHT, apply_theme


def shown(plot: PlotFrame, qtbot) -> PlotFrame:  # type: ignore[no-untyped-def]
    qtbot.addWidget(plot)
    plot.resize(640, 240)
    plot.show()
    qtbot.waitExposed(plot)
    return plot


def color_at(plot: PlotFrame, x: float, y: float) -> str:
    """The colour drawn at data coordinates."""
    QApplication.processEvents()
    spot = plot.canvas.to_widget(x, y).toPoint()
    return plot.canvas.grab().toImage().pixelColor(spot).name()


def all_colors(plot: PlotFrame) -> set[str]:
    QApplication.processEvents()
    image = plot.canvas.grab().toImage()
    return {
        image.pixelColor(x, y).name()
        for x, y in itertools.product(range(image.width()), range(image.height()))
    }


@pytest.fixture
def ranges(qtbot) -> RangePlot:  # type: ignore[no-untyped-def]
    plot = RangePlot()
    shown(plot, qtbot)
    plot.set_ranges(["a", "b", "c", "d"], [-1, 0, -2, np.nan], [3, 2, 1, np.nan], [1, 1, 0, 0])
    return plot


def test_bars_run_from_min_to_max(ranges: RangePlot) -> None:
    assert ranges.empty_text == ""
    for y, inside in ((-1.3, False), (-0.8, True), (1.5, True), (2.8, True), (3.2, False)):
        assert (color_at(ranges, 0, y) == DARK.accent) is inside, y
    assert color_at(ranges, 1, 1.0) == DARK.accent
    assert color_at(ranges, 1, -0.5) != DARK.accent
    assert color_at(ranges, 0.5, 1.0) != DARK.accent


def test_values_of_an_earlier_run_are_grey_and_unknown_ones_absent(ranges: RangePlot) -> None:
    assert color_at(ranges, 2, -1.5) == DARK.border_strong
    assert color_at(ranges, 3, 0.5) == DARK.background
    assert "not calibrated" in ranges.tooltip_text(3)
    assert "step before" in ranges.tooltip_text(2)
    assert ranges.tooltip_text(0) == "a\nmin -1   max 3"


def test_live_updates_move_the_bars(ranges: RangePlot) -> None:
    ranges.set_ranges(["a", "b", "c", "d"], [-9, 0, 0, 0], [9, 1, 1, 1])
    assert color_at(ranges, 0, 8) == DARK.accent
    assert color_at(ranges, 3, 0.6) == DARK.accent


def test_an_outlier_is_red_and_named(ranges: RangePlot) -> None:
    assert ranges.label_text == ""
    high = np.full(20, 3.0) + np.linspace(0, 0.5, 20)
    high[15] = 30.0
    ranges.set_ranges([f"layer{i}" for i in range(20)], -high / 2, high)
    assert ranges.label_text == "layer15 30"
    assert color_at(ranges, 15, 20) == DARK.bad_mark
    assert color_at(ranges, 14, 2) == DARK.accent


def test_outliers_are_far_beyond_the_rest() -> None:
    usual = np.linspace(3, 5, 20)
    assert not outliers(-usual, usual).any()
    usual[4], usual[7] = 90.0, np.nan
    assert np.flatnonzero(outliers(-usual, usual)).tolist() == [4]
    assert not outliers(np.zeros(3), np.array([1.0, 1.0, 100.0])).any()


def test_click_selects_a_bar(ranges: RangePlot, qtbot) -> None:  # type: ignore[no-untyped-def]
    spot = ranges.canvas.to_widget(1, 1.0).toPoint()
    with qtbot.waitSignal(ranges.selected) as signal:
        QTest.mouseClick(ranges.canvas.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert signal.args == ["b"]
    assert ranges.highlighted == "b"
    assert color_at(ranges, 1, 1.0) == DARK.text
    assert ranges.label_text == "b 2"


def test_keys_go_from_bar_to_bar(ranges: RangePlot) -> None:
    seen: list[str] = []
    ranges.selected.connect(seen.append)
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Left, Qt.Key.Key_Left):
        QTest.keyClick(ranges.canvas, key)
    assert seen == ["a", "b", "a", "a"]


def test_a_double_click_shows_all_bars_again(ranges: RangePlot) -> None:
    box = ranges.canvas.getViewBox()
    all_bars = box.viewRange()[0]
    box.setXRange(0, 1, padding=0)
    assert box.viewRange()[0] != all_bars
    QTest.mouseDClick(ranges.canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(200, 50))
    assert box.viewRange()[0] == pytest.approx(all_bars)


def test_highlight_is_silent(ranges: RangePlot, qtbot) -> None:  # type: ignore[no-untyped-def]
    with qtbot.assertNotEmitted(ranges.selected):
        ranges.highlight("c")
    assert ranges.highlighted == "c"
    ranges.highlight("unknown")
    assert ranges.highlighted == ""


def test_empty_plots_say_what_to_do(ranges: RangePlot, qtbot) -> None:  # type: ignore[no-untyped-def]
    ranges.clear()
    assert ranges.empty_text == "Calibrate to see the range of every tensor."
    ranges.set_ranges(["a"], [np.nan], [np.nan])
    assert ranges.empty_text
    assert WeightRangePlot().empty_text == "Select a layer that has weights."
    assert HistogramPlot().empty_text.startswith("Calibrate")


def test_the_pointer_tells_the_values(ranges: RangePlot, qtbot, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    told: list[str] = []
    monkeypatch.setattr(
        "studio.app.plots.ranges.QToolTip.showText", lambda _, text, *__: told.append(text)
    )
    spot = ranges.canvas.to_widget(0, 1.0).toPoint()
    QTest.mouseMove(ranges.canvas.viewport(), spot)
    ranges.canvas.hovered.emit(QPointF(0.2, 1.0), QPoint(0, 0))
    assert "a\nmin -1   max 3" in told


def test_wrong_lengths_are_refused(ranges: RangePlot) -> None:
    with pytest.raises(ValueError, match="2 names"):
        ranges.set_ranges(["a", "b"], [0.0], [1.0, 2.0])


def test_the_theme_recolours(ranges: RangePlot, qapp) -> None:  # type: ignore[no-untyped-def]
    apply_theme(qapp, LIGHT)
    assert color_at(ranges, 0, 1.5) == LIGHT.accent
    assert color_at(ranges, 3, 2.5) in (LIGHT.background, LIGHT.grid)


def test_many_channels_all_leave_a_pixel(qtbot) -> None:  # type: ignore[no-untyped-def]
    plot = WeightRangePlot()
    shown(plot, qtbot)
    low, high = np.full(3000, -0.1), np.full(3000, 0.1)
    high[1500] = 9.0
    plot.set_channels("conv", low, high)
    assert DARK.warn_mark in all_colors(plot)
    assert plot.caption.text() == "WEIGHT RANGES PER CHANNEL · conv"
    assert plot.label_text == "channel 1500 9"


@pytest.fixture
def histogram(qtbot) -> HistogramPlot:  # type: ignore[no-untyped-def]
    plot = HistogramPlot()
    shown(plot, qtbot)
    return plot


COUNTS = np.array([50.0, 100.0, 100.0, 0.0, 2.0])
EDGES = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def test_histogram_bars_and_limits(histogram: HistogramPlot) -> None:
    histogram.set_histogram(COUNTS, EDGES, 1.0, 3.0)
    assert color_at(histogram, 0.5, 0.3) == DARK.bad_mark
    assert color_at(histogram, 0.5, 0.6) == DARK.background
    assert color_at(histogram, 1.5, 0.9) == DARK.accent
    assert color_at(histogram, 3.5, 0.001) == DARK.background
    assert color_at(histogram, 3.0, 0.5) == DARK.warn_mark
    assert [label.toPlainText() for label in histogram._labels] == ["1", "3"]
    assert histogram.note.text() == "20.6 % of values clipped"
    assert histogram.note.property("role") == "bad"


def test_logarithmic_counts_show_rare_values(histogram: HistogramPlot) -> None:
    histogram.set_histogram(COUNTS, EDGES, 0.0, 5.0)
    assert color_at(histogram, 4.5, 0.1) == DARK.background
    histogram.log.setChecked(True)
    assert color_at(histogram, 4.5, 0.1) == DARK.accent


def test_nothing_clipped_is_no_alarm(histogram: HistogramPlot) -> None:
    histogram.set_histogram(COUNTS, EDGES, 0.0, 5.0)
    assert histogram.note.text() == "0 % of values clipped"
    assert histogram.note.property("role") == "muted"
    assert DARK.bad_mark not in all_colors(histogram)


def test_without_limits_no_lines(histogram: HistogramPlot) -> None:
    histogram.set_histogram(COUNTS, EDGES)
    assert histogram.note.isHidden()
    assert DARK.warn_mark not in all_colors(histogram)
    histogram.clear("Not quantized.")
    assert histogram.empty_text == "Not quantized."


def test_histogram_needs_one_edge_more(histogram: HistogramPlot) -> None:
    with pytest.raises(ValueError, match="5 counts need 6 edges"):
        histogram.set_histogram(COUNTS, EDGES[:-1])


def test_clipped_share_agrees_with_the_values_themselves() -> None:
    values = np.random.default_rng(1).uniform(-2, 3, 200_000)
    counts, edges = np.histogram(values, 64)
    true = float(((values < -1.27) | (values > 2.41)).mean())
    assert clipped_share(counts.astype(float), edges, -1.27, 2.41) == pytest.approx(true, abs=2e-3)
    assert clipped_share(counts.astype(float), edges, -9, 9) == 0.0
    assert clipped_share(np.zeros(3), np.arange(4.0), 0, 1) == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.0, "3"), (-12.5, "-12.5"), (0.05, "0.05"), (12000, "12k"), (3e-5, "3e-05"),
     (2.5e6, "2.5e6"), (1e-15, "0"), (float("nan"), "–")],
)  # fmt: skip
def test_axis_numbers_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_plots_have_names_for_screen_readers(qtbot) -> None:  # type: ignore[no-untyped-def]
    for plot in (RangePlot(), WeightRangePlot(), HistogramPlot()):
        qtbot.addWidget(plot)
        assert plot.canvas.accessibleName()
