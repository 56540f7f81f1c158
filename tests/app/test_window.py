"""The window as a whole: selection, graph, tables, theme, accessibility, shortcuts."""

from __future__ import annotations

import sys

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import QLabel, QMenu, QWidget
from window_helpers import visible

from studio.app.command_palette import CommandPalette
from studio.app.commands import COMMANDS
from studio.app.theme import current_theme


@pytest.fixture
def full(window, evaluated):
    """The window with everything in it that there is to see."""
    window.session.show(evaluated)
    return window


def table_selection(window) -> list[str]:
    panel = window.workspace.layers
    return [panel.model.name(row) for row in panel.selected_rows()]


def test_selection_is_the_same_everywhere(full, qtbot):
    space = full.workspace
    space.graph.view.selected.emit("down.conv")
    assert table_selection(full) == ["down.conv"]
    assert space.graph.view.current == "down.conv"
    assert space.inspector.name.text() == "down.conv"
    assert space.ranges.plot.highlighted == "down.conv"
    qtbot.waitUntil(lambda: "down.conv" in space.ranges.weights.caption.text())
    space.layers.table.selectRow(space.layers.model.row("stem.conv"))
    assert full.session.current == "stem.conv"
    assert space.graph.view.current == "stem.conv"
    assert space.inspector.name.text() == "stem.conv"
    space.ranges.plot.selected.emit("block1")
    assert full.session.current == "block1"
    assert table_selection(full) == ["block1"]


def test_from_a_box_to_its_row_and_menu(full, qtbot):
    space = full.workspace
    space.layers.search.setText("stem")
    space.graph.view.selected.emit("down.conv")
    space.graph.view.context_menu_requested.emit("down.conv", full.mapToGlobal(QPoint(400, 300)))
    menu = visible(QMenu)
    off = next(action for action in menu.actions() if action.text() == "Keep weights in float")
    off.trigger()
    menu.close()
    assert full.session.document.plan.layer("down.conv").settings.weight_enabled is False
    space.layers.search.clear()
    full.actions_table["log"].trigger()
    space.graph.view.activated.emit("block1")
    assert space.bottom.current == "layers"
    assert table_selection(full) == ["block1"]


def test_netron_gets_the_prepared_model_and_the_selection(full, qtbot, monkeypatch):
    import onnx

    from studio.app import netron_tab

    class Pane(QWidget):
        def __init__(self, parent=None):
            super().__init__(parent)
            self.shown, self.nodes = [], []

        def show_model(self, name, data):
            self.shown.append((name, data))

        def select_node(self, name):
            self.nodes.append(name)

        def clear(self):
            self.shown.clear()

        def close_browser(self):
            pass

    monkeypatch.setattr(netron_tab, "NetronPane", Pane)
    full.actions_table["netron"].trigger()
    pane = full.workspace.netron.pane
    qtbot.waitUntil(lambda: bool(pane.shown), timeout=10000)
    name, data = pane.shown[0]
    assert name == "digits.onnx"
    nodes = [node.name for node in onnx.load_from_string(data).graph.node]
    assert nodes == [node.name for node in full.session.document.graph.nodes()]
    full.session.select(("down.conv",))
    first = full.session.document.plan.layer("down.conv").nodes[0]
    qtbot.waitUntil(lambda: pane.nodes[-1:] == [first])


def test_graph_follows_the_document(full):
    view = full.workspace.graph.view
    node = view.node("stem.conv")
    assert (node.title, node.subtitle, node.badge) == ("Conv + Relu", "stem.conv", "W8 A8")
    assert node.color is not None, "coloured by SQNR after evaluation"
    assert view.legend.isVisible()
    model = full.workspace.layers.model
    model.edit([model.row("stem.conv")], 2, "int4")
    assert view.node("stem.conv").badge == "W4 A8"
    assert view.node("stem.conv").color is None, "the evaluation was of other settings"
    full.actions_table["color_bits"].trigger()
    assert view.node("stem.conv").color != view.node("down.conv").color
    full.actions_table["color_none"].trigger()
    assert view.node("down.conv").color is None
    assert not view.legend.isVisible()


def test_find_steps_through_the_matches(full, qtbot):
    full.actions_table["find"].trigger()
    graph = full.workspace.graph
    qtbot.keyClicks(graph.search, "depthwise")
    assert full.session.current == "block1.depthwise.conv"
    assert graph.found.text() == "1 of 2"
    qtbot.keyClick(graph.search, Qt.Key.Key_Return)
    assert full.session.current == "block2.depthwise.conv"
    qtbot.keyClick(graph.search, Qt.Key.Key_Return)
    assert graph.found.text() == "1 of 2"
    graph.search.clear()
    qtbot.keyClicks(graph.search, "nothing like it")
    assert graph.found.text() == "No match"


def test_reports(full, evaluated, qtbot):
    bottom = full.workspace.bottom
    full.actions_table["tensors"].trigger()
    tensors = full.workspace.tensors
    assert bottom.title("tensors") == f"Tensors {len(evaluated.plan.tensors)}"
    assert tensors.model.rowCount() == len(evaluated.plan.tensors)
    reasons = {row.cells[0]: row.cells[-1] for row in tensors.model.rows}
    assert all(reasons.values()), "every tensor says why"
    qtbot.keyClicks(tensors.search, "stem.conv.weight")
    assert tensors.filter.rowCount() == 1
    tensors.table.selectRow(0)
    assert full.session.current == "stem.conv"
    full.actions_table["preparation"].trigger()
    assert full.workspace.preparation.changes.model.rowCount() == len(evaluated.graph.changes)
    assert bottom.title("problems") == "Problems 0"
    assert full.workspace.problems.empty.isHidden() is False


def test_problems_say_that_data_was_random(window, evaluated):
    from dataclasses import replace

    synthetic = replace(evaluated.evaluation, synthetic=True)
    window.session.show(replace(evaluated, evaluation=synthetic))
    rows = window.workspace.problems.model.rows
    assert window.workspace.bottom.title("problems") == "Problems 1"
    assert "random data" in rows[0].cells[1]


def test_log_shows_what_happened(full, caplog):
    import logging

    from studio.app.crash import ring

    logging.getLogger().addHandler(ring)
    logging.getLogger("studio").warning("the sky is falling")
    full.actions_table["log"].trigger()
    assert "the sky is falling" in full.workspace.log.view.toPlainText()
    logging.getLogger().removeHandler(ring)


def test_defaults_in_the_top_bar(full):
    bar = full.workspace.top_bar
    assert (bar.target.text(), bar.weight_bits.text()) == ("Target: onnxruntime", "W 8")
    bar.weight_bits.menu().aboutToShow.emit()
    entries = {action.text(): action for action in bar.weight_bits.menu().actions()}
    entries["int4"].trigger()
    assert bar.weight_bits.text() == "W 4"
    assert full.workspace.graph.view.node("stem.conv").badge == "W4 A8"
    assert full.session.undo_stack.undoText() == "Set weight number of all layers to int4"
    bar.target.menu().aboutToShow.emit()
    titles = [action.text() for action in bar.target.menu().actions()]
    assert len(titles) >= 2
    bar.set_target("qualcomm-htp")
    assert bar.target.text() == "Target: qualcomm-htp"
    assert full.session.document.plan.target == "qualcomm-htp"


def test_theme_is_changed_and_remembered(full):
    before = current_theme()
    full.actions_table["theme"].trigger()
    assert current_theme().dark is not before.dark
    assert full.settings.theme == current_theme().name
    full.actions_table["theme"].trigger()
    assert current_theme() is before


def test_sizes_are_remembered(full, view_settings, qtbot):
    from studio.app.workspace import Workspace

    full.workspace.horizontal.setSizes([300, 900, 400])
    sizes = full.workspace.horizontal.sizes()
    full.workspace.save_state()
    again = Workspace(full.session, full.actions_table, view_settings)
    qtbot.addWidget(again)
    again.resize(full.workspace.size())
    again.show()
    qtbot.waitExposed(again)
    assert again.horizontal.sizes() == sizes


def test_save_and_open_a_project(full, qtbot, tmp_path):
    path = tmp_path / "digits.qstudio"
    model = full.workspace.layers.model
    model.edit([model.row("stem.conv")], 2, "int4")
    full.session.save(path)
    qtbot.waitUntil(lambda: not full.session.busy)
    assert path.exists()
    assert full.windowTitle() == "digits.qstudio — Quantization Studio"
    assert full.settings.recent()[0] == path
    full.session.close_document()
    assert full.pages.currentWidget() is full.start_page
    full.files.open_path(path)
    qtbot.waitUntil(lambda: full.session.document is not None, timeout=30000)
    assert full.session.document.plan.layer("stem.conv").settings.weight_bits == 4
    assert full.session.document.calibrated


def test_shortcuts_are_unique(window):
    keys = [key.toString() for action in window.actions_table.all() for key in action.shortcuts()]
    assert len(keys) == len(set(keys))
    assert len(keys) > 20
    assert all(command.text and command.tip for command in COMMANDS)


def test_command_palette_runs_a_command(full, qtbot):
    full.actions_table["palette"].trigger()
    palette = visible(CommandPalette)
    qtbot.keyClicks(palette.field, "light dark")
    assert palette.list.count() == 1
    before = current_theme()
    qtbot.keyClick(palette.field, Qt.Key.Key_Return)
    assert current_theme() is not before
    full.toggle_theme()


def test_command_palette_says_why_a_command_is_off(window, qtbot):
    window.show_palette()
    palette = visible(CommandPalette)
    qtbot.keyClicks(palette.field, "calibrate")
    row = palette.list.itemWidget(palette.list.item(0))
    assert "Open a model first." in [item.text() for item in row.findChildren(QLabel)]
    palette.close()


def unnamed(root: QWidget) -> list[str]:
    """Visible widgets that take the keyboard and have no accessible name."""
    found = []
    for widget in root.findChildren(QWidget):
        if widget.objectName().startswith("qt_") or not widget.isVisible():
            continue
        if not widget.focusPolicy() & Qt.FocusPolicy.TabFocus or widget.focusProxy() is not None:
            continue
        interface = QAccessible.queryAccessibleInterface(widget)
        if interface is None or not interface.text(QAccessible.Text.Name):
            found.append(f"{type(widget).__name__} {widget.objectName()}")
    return found


def test_everything_has_an_accessible_name(full, qtbot):
    assert unnamed(full) == []
    for page in ("tensors", "preparation", "problems", "log"):
        full.actions_table[page].trigger()
        assert unnamed(full) == [], page
    full.show_palette()
    assert unnamed(visible(CommandPalette)) == []
    visible(CommandPalette).close()


def test_start_page_has_accessible_names(window):
    assert unnamed(window) == []


@pytest.mark.parametrize("size", [(1280, 800), (1600, 1000)])
def test_fits(full, qtbot, size):
    full.resize(*size)
    qtbot.wait(20)
    assert (full.width(), full.height()) == size
    for button in full.workspace.top_bar.findChildren(QWidget):
        if button.isVisible() and button.objectName().startswith("button_"):
            assert button.width() >= button.minimumSizeHint().width(), button.objectName()


def test_no_references_to_none_are_lost(full, qtbot):
    """PySide6 6.12 loses one with each call on Python 3.11, and the process aborts."""
    names = [layer.name for layer in full.session.document.plan.layers]
    before = sys.getrefcount(None)
    for round_ in range(10):
        full.session.select((names[round_ % len(names)],))
        full.grab()
    qtbot.wait(1)
    assert sys.getrefcount(None) > before - 200
