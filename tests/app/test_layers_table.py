"""The layer table: what it shows, edits of one and many rows, filters."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QItemSelectionModel, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QComboBox, QMenu
from window_helpers import idle

from studio.app.layers.columns import (
    A_BITS,
    A_OBSERVER,
    COLUMNS,
    LAYER,
    RANGE,
    RUNS_IN,
    SQNR,
    W_BITS,
    W_GRANULARITY,
)


@pytest.fixture
def panel(window, evaluated):
    window.session.show(evaluated)
    return window.workspace.layers


def shown(panel, name: str, column: int) -> str:
    return panel.model.index(panel.model.row(name), column).data()


def names(panel) -> list[str]:
    return [panel.filter.index(row, LAYER).data() for row in range(panel.filter.rowCount())]


def select(panel, *layers: str) -> None:
    panel.table.clearSelection()
    flags = QItemSelectionModel.SelectionFlag
    for layer in layers:
        index = panel.filter.mapFromSource(panel.model.index(panel.model.row(layer), 0))
        panel.table.selectionModel().setCurrentIndex(index, flags.Select | flags.Rows)


def edit_with_editor(panel, qtbot, layer: str, column: int, choice: str) -> None:
    """Open the editor of a cell as a user does, and choose an entry."""
    index = panel.filter.mapFromSource(panel.model.index(panel.model.row(layer), column))
    panel.table.edit(index)
    editor = panel.table.viewport().findChild(QComboBox)
    assert editor is not None, "the cell has no editor"
    row = editor.findText(choice)
    assert row >= 0, f"{choice} is not offered"
    editor.setCurrentIndex(row)
    editor.activated.emit(row)
    qtbot.wait(1)


def test_model_keeps_qts_rules(panel, qtmodeltester):
    qtmodeltester.check(panel.model)
    qtmodeltester.check(panel.filter)


def test_rows_show_settings_encodings_and_errors(panel, evaluated):
    assert panel.model.rowCount() == len(evaluated.plan.layers)
    encoding = evaluated.encodings[evaluated.plan.layer("stem.conv").output]
    assert shown(panel, "stem.conv", W_BITS) == "8"
    assert shown(panel, "stem.conv", W_GRANULARITY) == "per channel"
    assert shown(panel, "stem.conv", RANGE) == f"0.00 … {float(encoding.maximum):.2f}"
    sqnr = {item.layer: item.distance.sqnr_db for item in evaluated.evaluation.layers}
    assert shown(panel, "stem.conv", SQNR) == f"{sqnr['stem.conv']:.1f} dB"
    index = panel.model.index(panel.model.row("stem.conv"), SQNR)
    assert index.data(Qt.ItemDataRole.DecorationRole).isValid()
    assert shown(panel, "block1", W_BITS) == "—"
    add = panel.model.index(panel.model.row("block1"), W_BITS)
    assert "no weights" in add.data(Qt.ItemDataRole.ToolTipRole)
    assert not panel.model.flags(add) & Qt.ItemFlag.ItemIsEditable


def test_editor_changes_one_layer(panel, window, qtbot):
    select(panel, "down.conv")
    edit_with_editor(panel, qtbot, "stem.conv", W_BITS, "int4")
    assert shown(panel, "stem.conv", W_BITS) == "4"
    assert shown(panel, "down.conv", W_BITS) == "8"
    index = panel.model.index(panel.model.row("stem.conv"), W_BITS)
    assert index.data(Qt.ItemDataRole.FontRole).bold()
    assert panel.changed.text() == "1 changed"
    assert window.session.undo_stack.undoText() == "Set weight number of stem.conv to int4"
    assert window.session.document.config.layers["stem.conv"].weight_bits == 4
    qtbot.waitUntil(idle(window), timeout=20000)
    weight = window.session.document.plan.layer("stem.conv").weights[0]
    assert window.session.document.encodings[weight].grid.bits == 4


def test_editor_changes_all_selected_layers(panel, window, qtbot):
    select(panel, "stem.conv", "down.conv", "block1")
    edit_with_editor(panel, qtbot, "down.conv", W_BITS, "int4")
    assert [shown(panel, name, W_BITS) for name in ("stem.conv", "down.conv", "block1")] == [
        "4",
        "4",
        "—",
    ]
    assert window.session.undo_stack.undoText() == "Set weight number of 2 layers to int4"
    assert window.session.undo_stack.count() == 1


def test_bulk_menu_switches_weights_off_and_resets(panel, window):
    select(panel, "stem.conv", "down.conv")
    menu = QMenu()
    panel.fill_menu(menu)
    entries = {action.text(): action for action in menu.actions()}
    entries["Keep weights in float"].trigger()
    assert shown(panel, "stem.conv", W_BITS) == "off"
    assert shown(panel, "down.conv", W_BITS) == "off"
    assert shown(panel, "stem.conv", W_GRANULARITY) == "—"
    panel.fill_menu(menu)
    entries = {action.text(): action for action in menu.actions()}
    entries["Reset to default"].trigger()
    assert shown(panel, "stem.conv", W_BITS) == "8"
    assert not window.session.document.config.layers


def test_off_then_bits_is_on_again(panel, window, qtbot):
    select(panel, "stem.conv")
    edit_with_editor(panel, qtbot, "stem.conv", A_BITS, "off")
    assert shown(panel, "stem.conv", A_BITS) == "off"
    edit_with_editor(panel, qtbot, "stem.conv", A_BITS, "int8")
    assert shown(panel, "stem.conv", A_BITS) == "8"
    assert not window.session.document.config.layers, "back at the default: nothing is overridden"


def test_filters(panel):
    everything = names(panel)
    panel.search.setText("depthwise")
    assert names(panel) == [name for name in everything if "depthwise" in name]
    panel.search.setText("add")
    assert "block1" in names(panel), "operators are searched too"
    panel.search.setText("no such layer")
    assert names(panel) == []
    assert panel.empty.isVisible()
    panel.search.clear()
    panel.set_limit(34)
    assert names(panel)
    assert all(float(shown(panel, name, SQNR).split()[0]) < 34 for name in names(panel))
    assert len(names(panel)) < len(everything)
    panel.set_limit(None)
    panel.changed.setChecked(True)
    assert names(panel) == []
    panel.model.edit([panel.model.row("stem.conv")], W_BITS, "int4")
    assert names(panel) == ["stem.conv"]


def test_sorting_by_error(panel):
    panel.table.sortByColumn(SQNR, Qt.SortOrder.AscendingOrder)
    values = [panel.filter.index(row, SQNR).data() for row in range(panel.filter.rowCount())]
    measured = [float(value.split()[0]) for value in values if value != "—"]
    assert measured == sorted(measured)
    assert len(measured) > 5


@pytest.mark.parametrize("width", [1280, 1600])
def test_every_column_is_in_view_unless_the_user_made_them_wider(window, evaluated, width, qtbot):
    window.session.show(evaluated)
    window.resize(width, 800)
    table = window.workspace.layers.table
    qtbot.waitUntil(lambda: not table.horizontalScrollBar().isVisible())
    assert table.columnViewportPosition(SQNR) + table.columnWidth(SQNR) <= table.viewport().width()
    assert table.isColumnHidden(A_OBSERVER) == (width == 1280), "the inspector has it as well"
    assert not table.isColumnHidden(RUNS_IN)
    for column in range(W_BITS, SQNR):
        if table.isColumnHidden(column):
            continue
        assert table.sizeHintForColumn(column) <= table.columnWidth(column), COLUMNS[column].title
    table.setColumnWidth(SQNR, 300)
    window.resize(width - 40, 800)
    assert table.columnWidth(SQNR) == 300


def test_copy_as_tsv(panel, qtbot):
    select(panel, "stem.conv", "down.conv")
    qtbot.keyClick(panel.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == [column.title for column in COLUMNS]
    assert [line.split("\t")[0] for line in lines[1:]] == ["stem.conv", "down.conv"]


def test_keyboard_opens_the_editor(panel, qtbot):
    row = panel.model.row("stem.conv")
    panel.table.setFocus()
    panel.table.setCurrentIndex(panel.filter.mapFromSource(panel.model.index(row, W_BITS)))
    qtbot.keyClick(panel.table, Qt.Key.Key_Return)
    assert panel.table.viewport().findChild(QComboBox) is not None
