"""The Validation tab: what a user reads before calibrating."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt

from studio.app.theme import current_theme


def shown(window: Any, qtbot: Any) -> Any:
    window.actions_table["validation"].trigger()
    panel = window.workspace.validation
    qtbot.waitUntil(lambda: panel.report is not None and not panel.state.text(), timeout=15000)
    return panel


def column(table: Any, index: int) -> list[str]:
    model = table.filter
    return [model.index(row, index).data() for row in range(model.rowCount())]


def test_totals_are_those_of_the_layers(window: Any, digits: Any, qtbot: Any) -> None:
    window.session.show(digits)
    panel = shown(window, qtbot)
    costs = [layer.cost for layer in panel.report.layers]
    assert panel.report.macs == sum(cost.macs for cost in costs) > 0
    assert panel.tiles[0].figure.text() == f"{panel.report.macs / 1e3:.1f}\N{NO-BREAK SPACE}k"
    assert "→" in panel.tiles[3].figure.text()


def test_costs_sort_by_number(window: Any, digits: Any, qtbot: Any) -> None:
    window.session.show(digits)
    panel = shown(window, qtbot)
    qtbot.mouseClick(panel.buttons.button(1), Qt.MouseButton.LeftButton)
    table = panel.tables["Layers"]
    assert panel.stack.currentWidget() is table
    table.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    most = max(panel.report.layers, key=lambda layer: layer.cost.macs)
    assert column(table, 0)[0] == most.name


def test_a_change_of_settings_shows_at_once(window: Any, digits: Any, qtbot: Any) -> None:
    window.session.show(digits)
    panel = shown(window, qtbot)
    before, measured = panel.report, panel._measured[2]
    layer = next(layer.name for layer in digits.plan.layers if layer.weights)
    window.session.edit(
        "4 bits", lambda doc: doc.with_config(doc.config.with_layers([layer], weight_bits=4))
    )
    qtbot.waitUntil(lambda: panel.report is not before, timeout=15000)
    assert panel.report.quantized_bytes < before.quantized_bytes
    assert panel._measured[2] is measured  # the model was not run again


def test_a_float_layer_is_a_finding_that_leads_to_it(window: Any, digits: Any, qtbot: Any) -> None:
    layer = next(layer.name for layer in digits.plan.layers if layer.weights)
    config = digits.config.with_layers([layer], weight_enabled=False)
    window.session.show(digits.with_config(config))
    panel = shown(window, qtbot)
    table = panel.tables["Findings"]
    row = next(i for i, words in enumerate(column(table, 2)) if layer in words)
    table.table.selectRow(row)
    assert window.session.selection == (layer,)
    assert column(table, 0)[row] == "warning"
    assert window.workspace.bottom.title("validation").startswith("Validation ")
    colour = table.model.data(table.model.index(0, 0), Qt.ItemDataRole.ForegroundRole)
    assert colour == current_theme().color("warn")
