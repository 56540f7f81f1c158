"""The settings of a layer in the inspector: what is offered, what is written, what it came from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from window_helpers import idle

from studio.quant.grid import FloatGrid
from studio.sim.config import LayerSettings


@pytest.fixture
def inspector(window, calibrated):
    window.session.show(calibrated)
    window.session.select(("down.conv",))
    return window.workspace.inspector


def offered(box) -> list[str]:
    return [box.itemText(row) for row in range(box.count())]


def choose(box, text: str) -> None:
    row = box.findText(text)
    assert row >= 0, f"{text} is not among {offered(box)}"
    box.setCurrentIndex(row)
    box.activated.emit(row)


def settings(window, layer: str = "down.conv") -> LayerSettings:
    return window.session.document.plan.layer(layer).settings


def weight(window):
    document = window.session.document
    return document.encodings[document.plan.layer("down.conv").weights[0]]


def test_a_float_format_gives_new_encodings_at_once(window, inspector, qtbot):
    choose(inspector.weights.boxes["number"], "fp8 e4m3")
    qtbot.waitUntil(idle(window), timeout=20000)
    assert weight(window).grid == FloatGrid("float8e4m3fn")
    assert window.session.undo_stack.undoText() == "Set weight number of down.conv to fp8 e4m3"
    assert not inspector.weights.boxes["symmetry"].isVisible(), "floats have no zero point"
    assert inspector.weights.boxes["granularity"].isVisible()
    window.session.undo_stack.undo()
    assert inspector.weights.boxes["number"].currentText() == "int8"
    assert inspector.weights.boxes["symmetry"].isVisible()


def test_symmetry_is_one_choice_of_several_settings(window, inspector):
    box = inspector.activation.boxes["symmetry"]
    assert offered(box) == ["asymmetric", "symmetric", "strict symmetric", "unsigned symmetric"]
    choose(box, "unsigned symmetric")
    found = settings(window)
    assert (found.act_symmetric, found.act_strict, found.act_unsigned_symmetric) == (
        True,
        False,
        True,
    )
    choose(box, "strict symmetric")
    found = settings(window)
    assert (found.act_symmetric, found.act_strict, found.act_unsigned_symmetric) == (
        True,
        True,
        False,
    )
    assert box.currentText() == "strict symmetric"
    choose(box, "asymmetric")
    assert settings(window).act_symmetric is False


def test_only_what_the_target_can_do_is_offered(window, inspector, digits):
    window.workspace.top_bar.set_target("openvino")
    numbers = offered(inspector.activation.boxes["number"])
    assert numbers == ["int8", "off"], "OpenVINO has no other activations"
    weights = offered(inspector.weights.boxes["number"])
    assert "int8" in weights and "int4" in weights
    assert "int16" not in weights and "fp8 e4m3" not in weights
    window.workspace.top_bar.set_target("tensorrt")
    assert "asymmetric" not in offered(inspector.activation.boxes["symmetry"])
    assert "fp8 e4m3" in offered(inspector.weights.boxes["number"])
    window.workspace.top_bar.set_target("custom")
    assert "bf16" in offered(inspector.activation.boxes["number"])


def test_blocks_are_offered_for_matrices_only(window, inspector, qtbot):
    window.workspace.top_bar.set_target("custom")
    linear = next(layer for layer in window.session.document.plan.layers if "Gemm" in layer.ops)
    box = inspector.weights.boxes["granularity"]
    assert offered(box) == ["per tensor", "per channel"], "a convolution of 3 × 3"
    window.session.select((linear.name,))
    assert "blocks of 16" in offered(box)
    choose(box, "LPBQ, blocks of 16")
    found = settings(window, linear.name)
    assert (found.weight_block_size, found.weight_lpbq) == (16, True)
    assert not window.session.document.plan.impossible
    qtbot.waitUntil(idle(window), timeout=20000)
    block = next(item for item in inspector.blocks if item.title.text().startswith("Weight"))
    rows = dict(block.grid.rows())
    assert rows["Grid"].startswith("int8 symmetric")
    encoding = window.session.document.encodings[linear.weights[0]]
    assert rows["blocks"] == f"{encoding.channels:,} of 16 values"
    integers = encoding.integer_scale
    assert rows["LPBQ integers"] == f"{integers.min()} … {integers.max()}"
    choose(box, "per channel")
    assert settings(window, linear.name).weight_block_size == 0


def test_a_value_of_its_own_can_be_taken_back(window, inspector):
    row = inspector.activation.rows["observer"]
    assert not row.reset.isVisible()
    assert inspector.activation.origin.text() == "All from: target onnxruntime."
    choose(row.box, "entropy")
    assert row.reset.isVisible()
    assert row.box.toolTip() == "Set for this layer"
    assert row.box.property("role") == "changed"
    said = inspector.activation.origin.text()
    assert said == "Observer: set for this layer. The rest: target onnxruntime."
    row.reset.click()
    assert row.box.currentText() == "MSE"
    assert not row.reset.isVisible()
    assert not window.session.document.config.layers


def test_what_a_pattern_set_is_said_and_not_reset_here(window, inspector):
    layers = {"down.*": LayerSettings(weight_bits=4)}
    window.session.edit(
        "pattern",
        lambda doc: doc.with_config(doc.config.model_copy(update={"layers": layers})),
    )
    row = inspector.weights.rows["number"]
    assert row.box.currentText() == "int4"
    assert "'down.*'" in row.box.toolTip()
    assert "'down.*'" in inspector.weights.origin.text()
    assert not row.reset.isVisible()


def test_percentile_has_a_value(window, inspector, qtbot):
    form = inspector.activation
    assert not form.percentile.isVisible()
    choose(form.boxes["observer"], "percentile")
    assert form.percentile.isVisible()
    qtbot.waitUntil(idle(window), timeout=20000)
    output = window.session.document.plan.layer("down.conv").output
    before = float(window.session.document.encodings[output].maximum)
    form.percentile.setValue(90.0)
    assert settings(window).act_percentile == 90.0
    qtbot.waitUntil(idle(window), timeout=20000)
    assert float(window.session.document.encodings[output].maximum) < before


def test_rare_settings_are_folded(window, inspector, qtbot):
    form = inspector.weights
    box = form.boxes["scales"]
    assert not box.isVisible()
    form.more.click()
    choose(box, "powers of two")
    qtbot.waitUntil(idle(window), timeout=20000)
    exponents = np.log2(weight(window).scale.astype(np.float64))
    assert np.array_equal(exponents, np.rint(exponents))
    form.more.setChecked(False)
    assert box.isVisible(), "what is not usual is always shown"


def test_off_and_on_again(window, inspector):
    box = inspector.activation.boxes["number"]
    choose(box, "off")
    assert settings(window).act_enabled is False
    assert not inspector.activation.boxes["observer"].isEnabled()
    choose(box, "int8")
    assert not window.session.document.config.layers


def test_what_the_target_cannot_do_is_still_shown(window, calibrated):
    config = calibrated.config.with_layers(["down.conv"], act_bits=4).with_target("openvino")
    window.session.show(replace(calibrated.with_config(config), path=None))
    window.session.select(("down.conv",))
    box = window.workspace.inspector.activation.boxes["number"]
    assert box.currentText() == "int4"
    rows = window.workspace.problems.model.rows
    assert any("act_bits=4 is not possible on OpenVINO" in row.cells[1] for row in rows)


def test_many_layers_at_once(window, inspector):
    window.session.select(("stem.conv", "block1", "down.conv"))
    choose(inspector.weights.boxes["number"], "int4")
    assert window.session.undo_stack.undoText() == "Set weight number of 2 layers to int4"
    assert settings(window, "stem.conv").weight_bits == 4
    assert settings(window, "block1").weight_bits is None
