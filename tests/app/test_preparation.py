"""The rules of preparation in the window: counted, switched off, undone."""

from __future__ import annotations

from PySide6.QtCore import Qt
from window_helpers import idle

from studio.project import steps

ROLE = Qt.ItemDataRole.CheckStateRole
OFF = Qt.CheckState.Unchecked
RULE = "fold batch norm"


def row_of(panel, name):  # type: ignore[no-untyped-def]
    return next(i for i, rule in enumerate(panel.rules.rules) if rule.name == name)


def shown(window, document):  # type: ignore[no-untyped-def]
    window.session.show(document)
    window.actions_table["preparation"].trigger()
    return window.workspace.preparation


def test_rules_are_listed_with_their_counts(window, digits):  # type: ignore[no-untyped-def]
    panel = shown(window, digits)
    counts = {rule.name: rule.count for rule in panel.rules.rules}
    assert sum(counts.values()) == len(digits.graph.changes)
    assert panel.rules.index(row_of(panel, RULE), 1).data() == str(counts[RULE])
    applied = [rule.count > 0 for rule in panel.rules.rules]
    assert applied == sorted(applied, reverse=True), "those that did something come first"
    assert panel.rules.index(row_of(panel, "names"), 0).data(ROLE) is None, "always done"


def test_a_rule_shows_its_changes_and_a_change_its_layer(window, digits):  # type: ignore[no-untyped-def]
    panel = shown(window, digits)
    assert panel.changes.model.rowCount() == len(digits.graph.changes)
    panel.list.selectRow(row_of(panel, RULE))
    changes = [change for change in digits.graph.changes if change.rule == RULE]
    assert [row.cells[2] for row in panel.changes.model.rows] == [c.detail for c in changes]
    panel.changes.table.selectRow(1)
    assert window.session.current == changes[1].layer


def test_a_rule_is_switched_off_and_back_on_by_undo(window, calibrated, qtbot):  # type: ignore[no-untyped-def]
    panel, session = shown(window, calibrated), window.session
    index = panel.rules.index(row_of(panel, RULE), 0)
    assert panel.rules.setData(index, OFF, ROLE)
    qtbot.waitUntil(idle(window), timeout=30000)
    document = session.document
    assert document.graph.source.without == (RULE,)
    assert any(node.op_type == "BatchNormalization" for node in document.graph.nodes())
    assert panel.rules.index(row_of(panel, RULE), 0).data(ROLE) is OFF
    assert panel.rules.index(row_of(panel, RULE), 1).data() == "off"
    statistics = document.calibration.statistics
    assert 0 < len(statistics) <= len(calibrated.calibration.statistics)
    assert all(document.graph.has_value(name) for name in statistics)
    assert window.actions_table["undo"].text() == f"Undo: Switch '{RULE}' off"
    session.undo_stack.undo()
    assert session.document.graph is calibrated.graph
    assert session.document.calibrated
    assert panel.rules.index(row_of(panel, RULE), 0).data(ROLE) is Qt.CheckState.Checked
    session.undo_stack.redo()
    assert session.document.graph.source.without == (RULE,)
    qtbot.waitUntil(idle(window), timeout=30000)


def test_nothing_is_switched_while_a_job_runs(window, digits, qtbot):  # type: ignore[no-untyped-def]
    panel, session = shown(window, digits), window.session
    index = panel.rules.index(row_of(panel, RULE), 0)
    session.start("Waiting", lambda emit, cancel: None, lambda _result: None)
    assert not panel.rules.setData(index, OFF, ROLE)
    qtbot.waitUntil(idle(window), timeout=30000)
    assert session.document is digits


def test_the_graph_stays_where_it_is_when_a_rule_is_switched(window, digits, qtbot):  # type: ignore[no-untyped-def]
    panel, view = shown(window, digits), window.workspace.graph.view
    view.set_zoom(1.0)
    view.select("classifier")
    spot = view.node_rect("classifier")
    assert view.rect().contains(spot.center().toPoint())
    panel.rules.setData(panel.rules.index(row_of(panel, RULE), 0), OFF, ROLE)
    qtbot.waitUntil(idle(window), timeout=30000)
    assert len(window.session.document.plan.layers) > len(digits.plan.layers)
    assert view.zoom == 1.0
    moved = view.node_rect("classifier").topLeft() - spot.topLeft()
    assert moved.manhattanLength() <= 2
    window.session.undo_stack.undo()
    moved = view.node_rect("classifier").topLeft() - spot.topLeft()
    assert moved.manhattanLength() <= 4


def test_another_model_starts_at_its_first_box(window, digits, tmp_path):  # type: ignore[no-untyped-def]
    shown(window, digits)
    view = window.workspace.graph.view
    view.set_zoom(1.0)
    view.select("classifier")
    other = steps.open_document(digits.graph.source.path)
    window.session.show(other)
    first = next(iter(view._items))
    assert view.rect().contains(view.node_rect(first).center().toPoint())
