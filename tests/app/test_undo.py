"""Undo takes a document back, results included."""

from __future__ import annotations

from window_helpers import idle

from studio.app.edits import describe_edit, reset_layers, set_layers


def test_undo_and_redo_restore_settings_and_results(window, evaluated, qtbot):
    session = window.session
    session.show(evaluated)
    session.edit("Set bits", lambda document: set_layers(document, ["stem.conv"], weight_bits=4))
    assert session.document.evaluation is None, "measured under other settings"
    assert window.windowTitle() == "digits • — Quantization Studio"
    assert window.actions_table["undo"].text() == "Undo: Set bits"
    qtbot.waitUntil(idle(window), timeout=20000)
    window.actions_table["undo"].trigger()
    assert session.document.config == evaluated.config
    assert session.document.evaluation is evaluated.evaluation
    assert session.document.encodings == evaluated.encodings
    assert window.windowTitle() == "digits — Quantization Studio"
    window.actions_table["redo"].trigger()
    assert session.document.plan.layer("stem.conv").settings.weight_bits == 4
    qtbot.waitUntil(idle(window), timeout=20000)
    assert session.document.calibrated


def test_undo_after_a_later_calibration_keeps_the_new_statistics(window, digits, qtbot):
    session = window.session
    session.show(digits)
    session.edit("Set bits", lambda document: set_layers(document, ["stem.conv"], weight_bits=4))
    session.calibrate()
    qtbot.waitUntil(idle(window), timeout=30000)
    statistics = session.document.calibration
    session.undo_stack.undo()
    qtbot.waitUntil(idle(window), timeout=20000)
    assert session.document.calibration is statistics
    assert session.document.config == digits.config
    assert session.document.calibrated, "encodings follow the settings"


def test_fast_edits_end_with_encodings_of_the_last(window, calibrated, qtbot):
    session = window.session
    session.show(calibrated)
    for bits in (7, 6, 5, 4, 3):
        session.edit("bits", lambda d, bits=bits: set_layers(d, ["stem.conv"], act_bits=bits))
    qtbot.waitUntil(idle(window), timeout=20000)
    output = session.document.plan.layer("stem.conv").output
    assert session.document.encodings[output].grid.bits == 3
    assert session.document.calibrated


def test_an_edit_that_changes_nothing_is_no_edit(window, digits):
    window.session.show(digits)
    assert not window.session.edit("same", lambda d: set_layers(d, ["stem.conv"], weight_bits=8))
    assert window.session.undo_stack.count() == 0


def test_edits_are_pure(digits):
    changed = set_layers(digits, ["stem.conv", "down.conv"], weight_symmetric=False)
    assert changed.config.layers.keys() == {"stem.conv", "down.conv"}
    assert not digits.config.layers
    assert reset_layers(changed, ["stem.conv"]).config.layers.keys() == {"down.conv"}
    back = set_layers(changed, ["stem.conv", "down.conv"], weight_symmetric=True)
    assert back.config == digits.config, "the default is not written down"


def test_edits_are_described():
    words = "Set weight number of 3 layers to int4"
    assert describe_edit(["a", "b", "c"], "weight number", "int4") == words
    words = "Set weight granularity of a to per tensor"
    assert describe_edit(["a"], "weight granularity", "per tensor") == words
