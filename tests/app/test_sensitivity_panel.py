"""The sensitivity pane: analysed by its button, the layer chosen in it is chosen everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import QPointF, Qt
from window_helpers import SlowStep, idle, press

from studio.analysis.sensitivity import SensitivityOptions
from studio.app import tasks, theme
from studio.app.overlay import layer_sensitivity, sensitivity_scale
from studio.app.sensitivity.measures import MEASURES, relative_error
from studio.app.theme import DARK, LIGHT, contrast
from studio.project import steps


@pytest.fixture(scope="session")
def analysed(coarse):  # type: ignore[no-untyped-def]
    """The bundled example with few bits, analysed."""
    return steps.sensitivity(coarse, SensitivityOptions(samples=24))


@pytest.fixture
def panel(window, analysed):  # type: ignore[no-untyped-def]
    window.session.show(analysed)
    window.actions_table["sensitivity"].trigger()
    result = window.workspace.sensitivity
    assert result.isVisible()
    return result


def column(panel: Any, number: int) -> list[str]:
    table = panel.tables["Layers"].table
    model = table.model()
    return [model.index(row, number).data() for row in range(model.rowCount())]


def test_before_an_analysis_the_pane_says_what_to_do(window: Any, digits: Any) -> None:
    window.session.show(replace(digits, data=None))
    window.actions_table["sensitivity"].trigger()
    panel = window.workspace.sensitivity
    assert panel.analyse.isVisible()
    assert not panel.analyse.isEnabled()
    assert panel.state.text() == "Calibrate first."
    assert not panel.tables["Layers"].isVisible()


def test_the_button_analyses_in_the_background(window: Any, qtbot: Any, coarse: Any) -> None:
    window.session.show(coarse)
    window.actions_table["sensitivity"].trigger()
    panel = window.workspace.sensitivity
    press(qtbot, panel.analyse)
    assert window.session.busy
    assert panel.cancel.isVisible()
    qtbot.waitUntil(idle(window), timeout=60000)
    found = window.session.document.sensitivity
    assert found is not None
    assert found.float_top1 is not None
    assert panel.tables["Layers"].isVisible()
    worst = min(found.layers, key=lambda layer: layer.alone.sqnr_db)
    assert column(panel, 0)[0] == worst.layer
    assert len(column(panel, 0)) == len(found.layers)
    assert window.session.modified


def test_progress_is_shown_and_cancel_leaves_all_as_it_was(
    window: Any, qtbot: Any, coarse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowStep()
    monkeypatch.setattr(tasks, "sensitivity", slow)
    window.session.show(coarse)
    window.actions_table["sensitivity"].trigger()
    panel = window.workspace.sensitivity
    press(qtbot, panel.analyse)
    qtbot.waitUntil(lambda: "16 of 64" in panel.state.text(), timeout=5000)
    press(qtbot, panel.cancel)
    qtbot.waitUntil(lambda: not window.session.busy, timeout=5000)
    assert window.session.document.sensitivity is None
    assert panel.analyse.isEnabled()


def test_the_row_that_is_clicked_is_selected_everywhere(
    window: Any, qtbot: Any, panel: Any
) -> None:
    table = panel.tables["Layers"].table
    row = len(column(panel, 0)) - 2
    name = column(panel, 0)[row]
    table.scrollTo(table.model().index(row, 0))
    place = table.visualRect(table.model().index(row, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert window.session.selection == (name,)
    assert window.workspace.graph.view.current == name
    assert panel.plot.highlighted == name
    assert window.workspace.inspector.name.text() == name


def test_a_selection_elsewhere_is_followed_and_not_changed(window: Any, panel: Any) -> None:
    names = tuple(layer.layer for layer in window.session.document.sensitivity.layers[-3:-1])
    window.session.select(names)
    assert window.session.selection == names
    table = panel.tables["Layers"].table
    assert table.currentIndex().data() is not None
    assert column(panel, 0)[table.currentIndex().row()] == names[-1]
    assert panel.plot.highlighted == names[-1]


def test_a_bar_is_clicked_where_it_is(window: Any, qtbot: Any, panel: Any) -> None:
    name = panel.plot.layers[2]
    canvas = panel.plot.canvas
    place = canvas.to_widget(2, 0.5 * canvas.getViewBox().viewRange()[1][1]).toPoint()
    qtbot.mouseClick(canvas.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert window.session.current == name
    assert panel.plot.label_text.startswith(name)
    qtbot.keyClick(canvas, Qt.Key.Key_Right)
    assert window.session.current == panel.plot.layers[3]


def test_bars_are_sorted_by_what_they_show(qtbot: Any, panel: Any) -> None:
    in_order = list(panel.plot.layers)
    press(qtbot, panel.sorted)
    found = panel._session.document.sensitivity
    worst = sorted(found.layers, key=lambda layer: layer.alone.sqnr_db)
    assert panel.plot.layers == [layer.layer for layer in worst]
    panel.show_measure("left")
    gains = sorted(found.layers, key=lambda layer: -round(found.gain_db(layer), 3))
    assert panel.plot.layers[0] == gains[0].layer
    press(qtbot, panel.sorted)
    assert panel.plot.layers == in_order
    assert relative_error(20.0) == pytest.approx(10.0)
    assert MEASURES["left"].words(-0.01) == "0.0 dB"


def test_the_graph_is_painted_with_numbers_and_a_legend(window: Any, panel: Any) -> None:
    window.actions_table["color_sensitivity"].trigger()
    document = window.session.document
    values = layer_sensitivity(document)
    scale = sensitivity_scale(values)
    graph = window.workspace.graph
    boxes = graph._nodes(document, graph._boxes.visible(graph._opened))
    painted = {box.id: box for box in boxes if box.color is not None}
    assert set(painted) == set(values)
    for name, box in painted.items():
        assert box.color == scale.color(values[name])
        assert box.value.split(" ")[0] in (f"{values[name]:.1f}", "exact", f"−{-values[name]:.1f}")
    legend = graph.view.legend
    assert legend.isVisible()
    assert legend.title == "alone, in dB"
    window.actions_table["color_none"].trigger()
    assert not legend.isVisible()


def test_a_changed_setting_drops_the_figures(window: Any, panel: Any) -> None:
    session = window.session
    session.edit("W8", lambda d: d.with_config(d.config.with_defaults(weight_bits=8)))
    assert session.document.sensitivity is None
    assert panel.analyse.isVisible()
    session.undo_stack.undo()
    assert panel.tables["Layers"].isVisible()


def test_outliers_have_the_room_to_say_what_helps(qtbot: Any, panel: Any) -> None:
    press(qtbot, panel.buttons.button(1))
    assert panel.tables["Outliers"].isVisible()
    assert not panel.plot.isVisible()
    press(qtbot, panel.buttons.button(0))
    assert panel.plot.isVisible()


def test_bars_stand_out_in_both_themes(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for which in (LIGHT, DARK):
        monkeypatch.setattr(theme, "_current", which)
        panel.plot.apply_theme(which)
        for color in panel.plot._item._colors:
            assert contrast(color, which.background) >= 2.2


def test_nothing_is_cut_off_in_a_small_window(window: Any, panel: Any, qtbot: Any) -> None:
    window.resize(1280, 800)
    qtbot.wait(20)
    for widget in (panel.again, panel.measure, panel.sorted, *panel.tiles, panel.note):
        corner = widget.mapTo(panel, widget.rect().bottomRight())
        assert panel.rect().contains(corner)
    assert QPointF(panel.plot.width(), 0).x() >= panel.plot.minimumWidth()
    assert window.workspace.inspector.width() >= 300
