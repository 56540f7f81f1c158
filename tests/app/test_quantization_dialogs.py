"""Overrides, targets of one's own, encodings files and the options of an export."""

from __future__ import annotations

import json

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QFileDialog, QLabel, QMessageBox
from window_helpers import idle, visible

from studio.app.dialogs.encodings_match import EncodingsMatchDialog
from studio.app.dialogs.export_options import ExportDialog
from studio.app.dialogs.export_summary import ExportSummaryDialog
from studio.app.dialogs.overrides import OverridesDialog, parsed, settings_text
from studio.errors import ConfigError
from studio.sim.aimet_config import aimet_config
from studio.sim.config import LayerSettings
from studio.sim.target import load_target


def dialog_of(qtbot, kind: type[QDialog]):
    qtbot.waitUntil(lambda: visible(kind) is not None, timeout=60000)
    return visible(kind)


def write(dialog: OverridesDialog, row: int, pattern: str, words: str) -> None:
    dialog.table.item(row, 0).setText(pattern)
    dialog.table.item(row, 1).setText(words)


# -- overrides ---------------------------------------------------------------------------------


def test_overrides_are_edited_in_order(window, digits, qtbot):
    window.session.show(digits)
    window.actions_table["overrides"].trigger()
    dialog = dialog_of(qtbot, OverridesDialog)
    assert dialog.empty.isVisible()
    dialog.buttons["Add"].click()
    write(dialog, 0, "block1.*", "weight_bits=4")
    dialog.buttons["Add"].click()
    write(dialog, 1, "op:Conv", "weight_bits=6, act_observer=entropy")
    dialog.buttons["Add"].click()
    write(dialog, 2, "nothing.*", "act_bits=16")
    qtbot.waitUntil(lambda: dialog.table.item(2, 2).text() == "! no layer", timeout=10000)
    convs = [layer.name for layer in digits.plan.layers if "Conv" in layer.ops]
    assert dialog.table.item(1, 2).text() == f"{len(convs)} layers"
    assert dialog.table.item(1, 2).toolTip() == ", ".join(convs)
    dialog.table.selectRow(2)
    dialog.buttons["Remove"].click()
    dialog.table.selectRow(1)
    assert not dialog.buttons["Down"].isEnabled()
    dialog.buttons["Up"].click()
    assert dialog.entry(0) == ("op:Conv", "weight_bits=6, act_observer=entropy")
    dialog.apply.click()
    plan = window.session.document.plan
    assert list(window.session.document.config.layers) == ["op:Conv", "block1.*"]
    assert plan.layer("stem.conv").settings.weight_bits == 6
    assert plan.layer("block1.pointwise").settings.weight_bits == 4, "the last match wins"
    assert plan.layer("block1.pointwise").settings.act_observer == "entropy"
    window.session.undo_stack.undo()
    assert not window.session.document.config.layers


@pytest.mark.parametrize(
    ("pattern", "words", "said"),
    [
        ("", "weight_bits=4", "names no layers"),
        ("a", "", "no setting"),
        ("a", "weight_bit=4", "weight_bit"),
        ("a", "weight_bits=99", "weight_bits"),
        ("a", "weight_bits", "key=value"),
    ],
)
def test_a_bad_override_is_named_and_cannot_be_applied(window, digits, qtbot, pattern, words, said):
    window.session.show(digits)
    window.actions_table["overrides"].trigger()
    dialog = dialog_of(qtbot, OverridesDialog)
    dialog.buttons["Add"].click()
    write(dialog, 0, pattern, words)
    assert said in dialog.problem.text()
    assert dialog.problem.text().startswith("Row 1")
    assert not dialog.apply.isEnabled()
    dialog.reject()


def test_settings_are_written_as_they_are_read():
    settings = LayerSettings(weight_bits=4, act_enabled=False, weight_format="float8e5m2")
    assert parsed(settings_text(settings)) == settings
    with pytest.raises(ConfigError):
        parsed("x")


# -- targets -----------------------------------------------------------------------------------


def target_entries(window) -> dict:
    menu = window.workspace.top_bar.target.menu()
    menu.aboutToShow.emit()
    return {action.text(): action for action in menu.actions() if action.text()}


def test_every_target_is_in_the_menu_with_its_description(window, digits):
    from studio.sim.target import target_names

    window.session.show(digits)
    entries = target_entries(window)
    for name in target_names():
        target = load_target(name)
        assert entries[target.title].toolTip().split() == target.description.split()
    entries["TensorRT"].trigger()
    assert window.session.document.config.target == "tensorrt"


def test_a_rule_file_of_ones_own(window, digits, monkeypatch, tmp_path, qtbot):
    own = tmp_path / "mine.json"
    own.write_text(
        json.dumps({"extends": "onnxruntime", "name": "mine", "title": "My chip"}),
        encoding="utf-8",
    )
    window.session.show(digits)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(own), ""))
    target_entries(window)["Load rule file…"].trigger()
    assert window.workspace.top_bar.target.text() == "Target: mine"
    assert target_entries(window)["My chip (mine.json)"].isChecked()
    own.write_text(json.dumps({"extends": "onnxruntime", "wieghts": {}}), encoding="utf-8")
    window.session.undo_stack.undo()
    window.actions_table["load_target"].trigger()
    box = dialog_of(qtbot, QMessageBox)
    assert "mine.json" in box.text() and "wieghts" in box.text()
    box.close()
    assert window.session.document.config.target == "onnxruntime"


def test_the_target_as_an_aimet_configuration(window, digits, monkeypatch, tmp_path, qtbot):
    path = tmp_path / "htp.json"
    window.session.show(digits)
    window.workspace.top_bar.set_target("qualcomm-htp-v66")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    window.actions_table["save_aimet"].trigger()
    box = visible(QMessageBox)
    if box is None:
        target = load_target("qualcomm-htp-v66")
        assert json.loads(path.read_text(encoding="utf-8")) == aimet_config(target)
    else:
        with pytest.raises(ConfigError):
            aimet_config(load_target("qualcomm-htp-v66"))
        box.close()
    window.workspace.top_bar.set_target("weight-only")
    window.actions_table["save_aimet"].trigger()
    box = dialog_of(qtbot, QMessageBox)
    assert "AIMET" in box.text() and "bits" in box.text()
    box.close()


# -- encodings ---------------------------------------------------------------------------------


@pytest.fixture
def encodings_file(calibrated, tmp_path):
    """The example's own encodings at 7 bits, as a file."""
    from studio.exporting.encodings import encodings_document
    from studio.project import steps

    changed = calibrated.with_config(calibrated.config.with_defaults(act_bits=7))
    changed = steps.refresh_encodings(changed)
    document = encodings_document(changed.plan, changed.encodings, version="1.0.0")
    path = tmp_path / "model.encodings"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path, changed.encodings


def test_encodings_are_loaded_and_taken_back(window, calibrated, encodings_file, qtbot):
    path, truth = encodings_file
    window.session.show(calibrated)
    window.quantization.match_encodings(path)
    dialog = dialog_of(qtbot, EncodingsMatchDialog)
    assert dialog.whole.isEnabled() and dialog.whole.isChecked()
    assert "fit the model" in dialog.summary.text()
    dialog.load_button.click()
    qtbot.waitUntil(
        lambda: window.session.undo_stack.undoText() == "Load model.encodings", timeout=20000
    )
    qtbot.waitUntil(idle(window), timeout=20000)
    document = window.session.document
    output = document.plan.layer("stem.conv").output
    assert document.encodings[output].grid.bits == 7
    assert float(document.encodings[output].scale) == pytest.approx(float(truth[output].scale))
    window.session.undo_stack.undo()
    qtbot.waitUntil(idle(window), timeout=20000)
    assert window.session.document.encodings[output].grid.bits == 8


def test_what_does_not_match_is_shown_before_anything_changes(
    window, calibrated, encodings_file, qtbot
):
    path, _ = encodings_file
    document = json.loads(path.read_text(encoding="utf-8"))
    entries = document["activation_encodings"]
    entries[0]["name"] += "_x"
    gone = entries.pop()["name"]
    path.write_text(json.dumps(document), encoding="utf-8")
    window.session.show(calibrated)
    window.quantization.match_encodings(path)
    dialog = dialog_of(qtbot, EncodingsMatchDialog)
    rows = {row.cells[1]: row.cells for row in dialog.table.model.rows}
    assert rows["image_x"][0] == "unknown"
    assert "'image'" in rows["image_x"][2], "the nearest name is suggested"
    assert rows[gone][0] == "missing"
    assert not dialog.whole.isEnabled(), "an entry cannot be used"
    assert dialog.partial
    dialog.reject()
    assert window.session.document is calibrated
    assert not window.session.undo_stack.canUndo()


def test_a_file_that_is_none_is_said(window, calibrated, tmp_path, qtbot):
    path = tmp_path / "some.encodings"
    path.write_text("[]", encoding="utf-8")
    window.session.show(calibrated)
    window.quantization.match_encodings(path)
    box = dialog_of(qtbot, QMessageBox)
    assert "some.encodings" in box.text()
    box.close()
    assert window.session.document is calibrated


# -- export ------------------------------------------------------------------------------------


def test_export_with_options(window, evaluated, tmp_path, qtbot):
    window.session.show(evaluated)
    window.actions_table["export"].trigger()
    dialog = dialog_of(qtbot, ExportDialog)
    assert dialog.boxes["format"].currentText() == "as the target: Q/DQ"
    assert dialog.tips["format"].text()
    dialog.path.setText(str(tmp_path / "out"))
    dialog.choose("format", "qoperator")
    dialog.checks["2.0.0"].setChecked(True)
    dialog.checks["state_dict"].setChecked(True)
    assert not dialog.problem.isVisible()
    dialog.export_button.click()
    summary = dialog_of(qtbot, ExportSummaryDialog)
    import onnx

    ops = {node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node}
    assert "QLinearConv" in ops
    written = json.loads((tmp_path / "out" / "model.encodings").read_text(encoding="utf-8"))
    assert written["version"] == "2.0.0"
    assert (tmp_path / "out" / "model_state_dict.safetensors").exists()
    said = "\n".join(item.text() for item in summary.findChildren(QLabel))
    assert "Latency" in said and "OTHER RUNTIMES" in said
    commands = [field.text() for field in summary.commands]
    assert any(command.startswith("trtexec --onnx=model.onnx") for command in commands)
    summary.close()


def test_choices_that_exclude_each_other_are_named_at_once(window, evaluated, qtbot):
    window.session.show(evaluated)
    window.actions_table["export"].trigger()
    dialog = dialog_of(qtbot, ExportDialog)
    dialog.path.setText("somewhere")
    dialog.choose("format", "qoperator")
    dialog.choose("weights", "float")
    assert "integer weights" in dialog.problem.text()
    assert not dialog.export_button.isEnabled()
    dialog.choose("weights", None)
    assert dialog.export_button.isEnabled()
    dialog.choose("format", None)
    dialog.choose("opset", 10)
    assert "Opset 10 cannot express" in dialog.problem.text()
    dialog.choose("opset", 21)
    assert dialog.export_button.isEnabled()
    dialog.path.setText(" ")
    assert dialog.problem.text() == "Choose a folder."
    dialog.reject()


def test_browsing_for_a_folder(window, evaluated, qtbot, tmp_path):
    dialog = ExportDialog(evaluated, "", window, browse=lambda *_: str(tmp_path))
    qtbot.addWidget(dialog)
    assert not dialog.export_button.isEnabled()
    button = next(
        b for b in dialog.findChildren(type(dialog.export_button)) if "Browse" in b.text()
    )
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert dialog.folder == tmp_path
    assert dialog.export_button.isEnabled()
