"""What the target will run in integers: tab, table column, graph, inspector."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from window_helpers import idle

from studio.analysis.forecast import forecast
from studio.analysis.kernel_rules import Runs
from studio.app.forecast_panel import forecast_rows
from studio.app.layers.columns import RUNS_IN
from studio.exporting.summary import KernelCheck
from studio.sim.target import load_target


@pytest.fixture
def mixed(window, calibrated, qtbot):
    """A window on a model with one layer that onnxruntime cannot run in integers."""
    config = calibrated.config.with_layers(["down.conv"], weight_format="float8e4m3fn")
    window.session.show(calibrated.with_config(config))
    window.actions_table["forecast"].trigger()
    forecasts = window.session.forecasts
    qtbot.waitUntil(idle(window), timeout=20000)
    qtbot.waitUntil(
        lambda: (row := forecasts.layer("down.conv")) is not None and row.runs is Runs.FLOAT,
        timeout=20000,
    )
    return window


def test_the_tab_says_what_runs_in_float_and_why(mixed, qtbot):
    space = mixed.workspace
    panel = space.forecast
    assert space.bottom.title("forecast") == "Forecast 1 float"
    document = mixed.session.document
    truth = forecast(
        document.graph,
        document.plan,
        load_target("onnxruntime"),
        document.encodings,
    )
    assert panel.table.model.rowCount() == len(truth.layers)
    assert "1 in float" in panel.summary.text()
    button = next(b for b in panel.buttons.buttons() if b.text() == "Float 1")
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert panel.table.filter.rowCount() == 1
    row = panel.table.model.rows[0]
    assert row.cells[:3] == ("float", "down.conv", "Conv + Relu")
    assert truth.layer("down.conv").reason[1:] in row.cells[-1]
    mixed.session.select(("stem.conv",))
    panel.table.table.selectRow(0)
    assert mixed.session.current == "down.conv"


def test_table_graph_and_inspector_say_it_too(mixed):
    space = mixed.workspace
    model = space.layers.model
    index = model.index(model.row("down.conv"), RUNS_IN)
    assert index.data() == "! float"
    assert "float8e4m3fn" in index.data(Qt.ItemDataRole.ToolTipRole)
    assert model.index(model.row("stem.conv"), RUNS_IN).data() == "integers"
    assert space.graph.view.node("down.conv").mark == "float"
    assert "Runs in float" in space.graph.view.node("down.conv").tooltip
    assert space.graph.view.node("stem.conv").mark == ""
    mixed.session.select(("down.conv",))
    assert dict(space.inspector.facts.rows())["Runs in"].startswith("float")
    assert space.inspector.runs.text().startswith("ONNX Runtime has no Conv")
    mixed.session.select(("stem.conv",))
    assert dict(space.inspector.facts.rows())["Runs in"] == "integers (QLinearConv)"
    assert not space.inspector.runs.isVisible()


def test_the_graph_is_coloured_by_it(mixed):
    mixed.actions_table["color_runs"].trigger()
    view = mixed.workspace.graph.view
    assert view.node("down.conv").color != view.node("stem.conv").color
    assert (view.legend.low, view.legend.high) == ("float", "integers")


def test_it_follows_the_settings(mixed, qtbot):
    mixed.session.undo_stack.clear()
    space = mixed.workspace
    space.layers.reset()
    mixed.session.select(("down.conv",))
    space.layers.reset()
    qtbot.waitUntil(lambda: space.bottom.title("forecast") == "Forecast", timeout=20000)
    assert space.graph.view.node("down.conv").mark == ""
    assert "none in float" in space.forecast.summary.text()


def test_after_an_export_the_rows_say_what_really_ran(calibrated, tmp_path):
    from studio.project import steps

    document = steps.export(calibrated, tmp_path)
    found = forecast(document.graph, document.plan, load_target("onnxruntime"), document.encodings)
    assert {row.cells[4] for row in forecast_rows(found, document)} <= {"as forecast", ""}
    check = KernelCheck("stem.conv", Runs.INTEGER, "QLinearConv", Runs.FLOAT, "FusedConv")
    verification = replace(document.export.verification, kernels=(check,))
    other = replace(document, export=replace(document.export, verification=verification))
    row = next(row for row in forecast_rows(found, other) if row.layer == "stem.conv")
    assert row.cells[4] == "FusedConv (float)"
    assert row.role == "warn"
