"""The inspector says what the document says of the selected layer."""

from __future__ import annotations

from window_helpers import idle

from studio.app.inspector.facts import coarser
from studio.app.text import number


def test_empty_until_a_layer_is_selected(window, digits):
    window.session.show(digits)
    inspector = window.workspace.inspector
    window.session.select(())
    assert inspector.empty.isVisible()
    window.session.select(("stem.conv",))
    assert not inspector.empty.isVisible()


def test_facts_settings_and_encodings(window, evaluated):
    window.session.show(evaluated)
    window.session.select(("stem.conv",))
    inspector = window.workspace.inspector
    assert inspector.name.text() == "stem.conv"
    assert inspector.subtitle.text().startswith("Conv 3×3 + Relu")
    rows = dict(inspector.facts.rows())
    assert rows["Input"] == "N×1×8×8"
    assert rows["Output"] == "N×24×8×8"
    assert rows["Parameters"].startswith("240 ")
    assert inspector.weights.boxes["number"].currentText() == "int8"
    assert inspector.weights.boxes["granularity"].currentText() == "per channel"
    block = inspector.blocks[0]
    layer = evaluated.plan.layer("stem.conv")
    encoding = evaluated.encodings[layer.output]
    values = dict(block.grid.rows())
    assert values["Grid"] == "uint8 asymmetric"
    assert values["min / max"] == f"0 / {number(float(encoding.maximum))}"
    assert block.reason.text() == evaluated.plan.tensors[layer.output].reason
    assert inspector.histogram.isVisible()
    assert inspector.quality.text().endswith("output SQNR") or "layers" in inspector.quality.text()


def test_worst_layer_is_marked(window, evaluated):
    window.session.show(evaluated)
    worst = min(evaluated.evaluation.layers, key=lambda item: item.distance.sqnr_db)
    window.session.select((worst.layer,))
    words = window.workspace.inspector.quality.text()
    assert f"lowest of {len(evaluated.evaluation.layers)} layers" in words
    assert f"{worst.distance.sqnr_db:.1f} dB" in words


def test_a_combo_box_edits_the_document(window, evaluated, qtbot):
    window.session.show(evaluated)
    window.session.select(("stem.conv",))
    box = window.workspace.inspector.weights.boxes["number"]
    row = box.findText("int4")
    box.setCurrentIndex(row)
    box.activated.emit(row)
    assert window.session.document.config.layers["stem.conv"].weight_bits == 4
    assert box.toolTip() == "Set for this layer"
    qtbot.waitUntil(idle(window), timeout=20000)
    window.session.undo_stack.undo()
    assert box.currentText() == "int8"


def test_layers_without_weights_have_no_weight_settings(window, digits):
    window.session.show(digits)
    window.session.select(("block1",))
    inspector = window.workspace.inspector
    assert not inspector.weights.isVisible()
    assert inspector.activation.isVisible()


def test_coarser_bins_keep_every_count():
    import numpy as np

    counts = np.arange(2048)
    edges = np.linspace(-2.0, 6.0, 2049)
    merged, wide = coarser(counts, edges, -2.0, 6.0)
    assert merged.sum() == counts.sum()
    assert len(merged) <= 160
    assert len(wide) == len(merged) + 1
    assert wide[0] == edges[0]
    assert abs(wide[-1] - edges[-1]) < wide[1] - wide[0]
