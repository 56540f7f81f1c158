"""Calibration methods compared in the inspector: the numbers, the lines, the choice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PySide6.QtCore import Qt
from window_helpers import idle

from studio.sim.choices import OBSERVERS


@pytest.fixture
def inspector(window, calibrated, qtbot):
    window.session.show(calibrated)
    window.session.select(("down.conv",))
    found = window.workspace.inspector
    found.compare.button.click()
    qtbot.waitUntil(lambda: bool(found.compare.results), timeout=20000)
    return found


def test_every_method_is_there_with_range_and_error(window, inspector, calibrated):
    table = inspector.compare.table
    shown = [table.item(row, 0).text().removeprefix("✓ ") for row in range(table.rowCount())]
    assert shown == [words for words, _ in OBSERVERS.values()] or set(shown) == {
        words for words, _ in OBSERVERS.values()
    }
    assert [row for row in range(table.rowCount()) if "✓" in table.item(row, 0).text()] == [
        shown.index("MSE")
    ]
    found = {result.observer: result for result in inspector.compare.results}
    output = calibrated.plan.layer("down.conv").output
    statistics = calibrated.calibration.statistics[output]
    assert found["minmax"].maximum == pytest.approx(statistics.maximum, rel=1e-5)
    assert found["minmax"].clipped == 0.0
    best = max(result.sqnr_db for result in found.values())
    assert found["mse"].sqnr_db == pytest.approx(best, abs=0.1), "it searches for just that"
    assert all(math.isfinite(result.sqnr_db) for result in found.values())
    assert found["percentile"].maximum < found["minmax"].maximum
    assert found["percentile"].clipped > 0.0


def test_the_histogram_shows_all_ranges_and_the_one_looked_at(inspector, qtbot):
    plot = inspector.histogram
    assert len(plot._ranges) == len(inspector.compare.results)
    low, high = plot._limits
    inspector.compare.table.looked_at.emit("percentile")
    result = next(item for item in inspector.compare.results if item.observer == "percentile")
    assert plot.shown_limits == (result.minimum, result.maximum)
    assert plot.note.text().startswith("percentile: ")
    inspector.compare.table.looked_at.emit("")
    assert plot.shown_limits == (low, high)
    assert not plot.note.text().startswith("percentile")


def test_a_click_chooses_the_observer(window, inspector, qtbot):
    table = inspector.compare.table
    names = [result.observer for result in table.results]
    row = names.index("percentile")
    before = window.session.document.encodings
    where = table.visualItemRect(table.item(row, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    document = window.session.document
    assert document.plan.layer("down.conv").settings.act_observer == "percentile"
    assert window.session.undo_stack.undoText() == (
        "Set activation observer of down.conv to percentile"
    )
    qtbot.waitUntil(idle(window), timeout=20000)
    output = document.plan.layer("down.conv").output
    after = window.session.document.encodings[output]
    assert float(after.maximum) < float(before[output].maximum)
    assert float(after.maximum) == pytest.approx(table.results[row].maximum)
    assert "✓" in table.item(row, 0).text()
    assert inspector.activation.boxes["observer"].currentText() == "percentile"


def test_the_keyboard_chooses_too(window, inspector, qtbot):
    table = inspector.compare.table
    names = [result.observer for result in table.results]
    table.setFocus()
    table.setCurrentCell(names.index("minmax"), 0)
    qtbot.keyClick(table, Qt.Key.Key_Return)
    assert window.session.document.plan.layer("down.conv").settings.act_observer == "minmax"


def test_weights_are_compared_on_the_weights_themselves(window, inspector, calibrated, qtbot):
    compare = inspector.compare_weights
    compare.button.click()
    qtbot.waitUntil(lambda: bool(compare.results), timeout=20000)
    found = {result.observer: result for result in compare.results}
    name = calibrated.plan.layer("down.conv").weights[0]
    exact = calibrated.graph.constant(name).astype(np.float64)
    rounded = calibrated.encodings[name].quantize_dequantize(exact.astype(np.float32))
    noise = np.mean((rounded - exact) ** 2)
    assert found["minmax"].mse == pytest.approx(noise)
    assert found["minmax"].sqnr_db == pytest.approx(10 * np.log10(np.mean(exact**2) / noise))


def test_nothing_to_compare_without_statistics(window, digits):
    window.session.show(digits)
    window.session.select(("down.conv",))
    inspector = window.workspace.inspector
    assert not inspector.compare.isVisible()
    assert inspector.compare_weights.isVisible(), "weights need no data"
    window.session.select(("image",))
    assert not inspector.compare_weights.isVisible()
