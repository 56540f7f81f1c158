"""The chart of what was applied, and taking over one of its points."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPointF, Qt
from window_helpers import idle, press

from studio.app.improve.applied import point_blocked
from studio.app.improve.chart import ChartPlot
from studio.app.improve.form import OptionsForm
from studio.app.theme import LIGHT, apply_theme
from studio.ptq.options import AutoQuantOptions
from studio.techniques.technique import Chart, Point


@pytest.fixture(scope="session")
def mixed(calibrated):  # type: ignore[no-untyped-def]
    """The bundled example after mixed precision."""
    from studio.project.techniques import apply_technique, parse_options

    options = {
        "candidates": ["w3a8", "w8a8"],
        "share": 0.7,
        "points": 3,
        "refinements": 0,
        "evaluation": 100,
    }
    return apply_technique(calibrated, "mixed_precision", parse_options("mixed_precision", options))


CHART = Chart(
    "Size against accuracy",
    "model size, MB",
    "top-1, %",
    (
        Point(1.0, 50.0, "small", "1 MB and 50 %", settings={"a": {"weight_bits": 4}}),
        Point(2.0, 80.0, "middle", chosen=True),
        Point(2.5, 60.0, "uniform", aside=True),
        Point(4.0, 82.0, "large"),
    ),
    target=75.0,
)


@pytest.fixture
def plot(qtbot) -> ChartPlot:  # type: ignore[no-untyped-def]
    result = ChartPlot()
    qtbot.addWidget(result)
    result.resize(420, 300)
    result.show()
    qtbot.waitExposed(result)
    result.set_chart(CHART)
    return result


def click(qtbot, plot: ChartPlot, point: Point) -> None:  # type: ignore[no-untyped-def]
    place = plot.canvas.to_widget(point.x, point.y).toPoint()
    qtbot.mouseClick(plot.canvas.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_what_is_drawn(plot):
    assert list(plot.line.getData()[0]) == [1.0, 2.0, 4.0], "not through what is aside"
    assert list(plot.dots.getData()[0]) == [1.0, 4.0]
    assert list(plot.aside.getData()[0]) == [2.5]
    assert list(plot.chosen.getData()[0]) == [2.0]
    assert plot.target.value() == 75.0
    assert plot.target.isVisible()
    assert plot.caption.text() == "SIZE AGAINST ACCURACY"
    assert (plot.current, plot.name.toPlainText()) == (1, "middle")
    (left, right), (bottom, top) = plot.canvas.getViewBox().viewRange()
    assert all(left < p.x < right and bottom < p.y < top for p in CHART.points)
    assert plot.empty_text == ""
    plot.set_chart(Chart("Nothing", "x", "y", ()))
    assert plot.empty_text == "There are no points to show."
    assert plot.point is None


def test_the_tooltip_tells_the_point(plot):
    assert plot.words_at(QPointF(1.0, 50.0)) == "small\n1 MB and 50 %"
    assert plot.words_at(QPointF(4.0, 82.0)) == "large\nmodel size, MB 4, top-1, % 82"
    assert plot.words_at(QPointF(3.3, 55.0)) == ""


def test_points_are_picked_by_mouse_and_keys(plot, qtbot):
    picked = []
    plot.picked.connect(picked.append)
    click(qtbot, plot, CHART.points[0])
    click(qtbot, plot, Point(3.3, 55.0))
    assert (picked, plot.current) == ([0], 0)
    for _ in range(4):
        qtbot.keyClick(plot.canvas, Qt.Key.Key_Right)
    assert picked[1:] == [1, 2, 3, 3]
    qtbot.keyClick(plot.canvas, Qt.Key.Key_Left)
    assert plot.point is CHART.points[2]
    assert list(plot.ring.getData()[0]) == [2.5]


def test_one_point_and_both_themes(plot, qapp):
    plot.set_chart(Chart("One", "x", "y", (Point(3.0, 7.0, "only", chosen=True),)))
    (left, right), (bottom, top) = plot.canvas.getViewBox().viewRange()
    assert left < 3.0 < right
    assert bottom < 7.0 < top
    assert not plot.target.isVisible()
    apply_theme(qapp, LIGHT)
    assert plot.dots.opts["brush"].color().name() == LIGHT.accent


def test_a_point_is_taken_over_and_back(window, mixed, qtbot):
    session = window.session
    session.show(mixed)
    window.actions_table["improve"].trigger()
    applied = window.workspace.improve.applied
    assert applied.chart.isVisible()
    assert applied.use.isVisible()
    assert not applied.use.isEnabled()
    assert applied.use.toolTip() == "The layers have these settings."
    chart = mixed.applied[0].chart
    assert chart.points[applied.chart.current].chosen
    smallest = min(chart.points, key=lambda point: point.x)
    assert smallest.label == "W3A8"
    applied.chart.pick(chart.points.index(smallest))
    assert applied.about_point.text() == smallest.note
    press(qtbot, applied.use)
    bits = {layer.settings.weight_bits for layer in session.document.plan.layers if layer.weights}
    assert bits == {3}
    assert session.undo_stack.undoText() == "Use the point W3A8"
    assert not applied.use.isEnabled()
    assert applied.chart.point == smallest, "the point stays picked"
    qtbot.waitUntil(idle(window), timeout=20000)
    assert session.document.calibrated, "nothing has to be calibrated again"
    window.actions_table["undo"].trigger()
    assert session.document.config == mixed.config
    assert applied.use.isEnabled()


def test_why_a_point_cannot_be_used(mixed):
    point = mixed.applied[0].chart.points[0]
    assert point_blocked(mixed, None) == "Click a point first."
    assert "no choice of settings" in point_blocked(mixed, Point(1.0, 2.0))
    other = Point(1.0, 2.0, settings={"gone": {"weight_bits": 4}})
    assert "not in the model" in point_blocked(mixed, other)
    assert point_blocked(mixed, point) == ""


def test_it_is_saved_with_the_project(mixed, tmp_path):
    from studio.project.store import load_project, save_project

    save_project(mixed, tmp_path / "mine.qstudio")
    opened = load_project(tmp_path / "mine.qstudio")
    assert opened.applied[0].chart == mixed.applied[0].chart
    assert opened.config == mixed.config


def test_the_button_shows_autoquant(window, calibrated, qtbot):
    window.session.show(calibrated)
    panel = window.workspace.improve
    panel.choose("qat")
    window.actions_table["autoquant"].trigger()
    assert panel.isVisible()
    assert panel.technique.name == "autoquant"
    assert panel.list.currentItem().font().bold()
    assert {"allowed_drop", "minutes"} <= panel.form.fields.keys()
    assert panel.apply.isEnabled()


def test_a_narrow_form_puts_descriptions_below(qtbot):
    form = OptionsForm(AutoQuantOptions)
    qtbot.addWidget(form)
    form.resize(700, 300)
    form.show()
    qtbot.waitExposed(form)
    field = form.fields["minutes"]
    assert field.about.x() > field.input.geometry().right()
    form.resize(380, 300)
    qtbot.waitUntil(lambda: field.about.y() > field.input.y() + 5)
    assert field.about.y() >= field.input.geometry().bottom()
    assert field.about.geometry().right() <= form.width()
    form.resize(700, 300)
    qtbot.waitUntil(lambda: field.about.x() > field.input.geometry().right())
