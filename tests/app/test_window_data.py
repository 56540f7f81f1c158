"""The data dialog: what was found, what is wrong, what is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from window_helpers import idle, visible

from studio.app.dialogs.data import DataDialog
from studio.app.dialogs.preprocess_form import PreprocessForm, numbers
from studio.errors import ConfigError
from studio.resource_files import resource

TEST_DATA = resource("examples", "digits", "test.npz")


@pytest.fixture
def dialog(window, digits):
    window.session.show(digits.with_data(None))
    window.actions_table["data"].trigger()
    result = visible(DataDialog)
    yield result
    if visible(DataDialog) is not None:
        result.reject()


def settled(dialog) -> bool:
    return not dialog._timer.isActive() and dialog._job is None


def test_arrays_are_previewed_and_used(dialog, window, qtbot):
    qtbot.waitUntil(lambda: settled(dialog))
    assert not dialog.use.isEnabled(), "nothing is chosen yet"
    dialog.set_path(TEST_DATA)
    qtbot.waitUntil(lambda: dialog.use.isEnabled(), timeout=10000)
    assert dialog.preview.summary.text() == "360 samples"
    assert "labels" in dialog.preview.detail.text()
    assert not dialog.preview.thumbs[0].pixmap().isNull()
    assert not dialog.form.isVisible(), "arrays are not preprocessed"
    dialog.calibration.setValue(32)
    dialog.use.click()
    data = window.session.document.data
    assert (data.path, data.calibration_size) == (TEST_DATA, 32)
    assert window.session.undo_stack.undoText() == "Use test.npz"


def test_pictures_are_previewed(dialog, qtbot, tmp_path):
    from PIL import Image

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((12, 10), 90, np.uint8)).save(tmp_path / name / "a.png")
    dialog.set_path(tmp_path)
    qtbot.waitUntil(lambda: dialog.use.isEnabled(), timeout=10000)
    assert dialog.preview.summary.text() == "2 samples"
    assert "2 classes" in dialog.preview.detail.text()
    assert dialog.form.isVisible()
    assert dialog.form.preprocess().channels == "GRAY"
    dialog.form.choices["channels"].setCurrentText("RGB")
    dialog.form.changed.emit()
    qtbot.waitUntil(lambda: "GRAY" in dialog.preview.problem.text(), timeout=10000)
    assert not dialog.use.isEnabled()


def test_missing_folder_is_said_in_the_dialog(dialog, qtbot, tmp_path):
    dialog.set_path(tmp_path / "nowhere")
    qtbot.waitUntil(lambda: "nowhere" in dialog.preview.problem.text(), timeout=10000)
    assert not dialog.use.isEnabled()


def test_random_data_has_to_be_asked_for(dialog, window, qtbot):
    assert not dialog.warning.isVisible()
    dialog.random.setChecked(True)
    assert "nothing about real data" in dialog.warning.text().replace("say nothing", "nothing")
    assert dialog.warning.isVisible()
    qtbot.waitUntil(lambda: dialog.use.isEnabled(), timeout=10000)
    dialog.use.click()
    assert window.session.document.data.path is None
    window.session.calibrate()
    qtbot.waitUntil(idle(window), timeout=30000)
    assert window.session.document.calibration.synthetic
    assert any("random" in row.cells[1] for row in window.workspace.problems.model.rows)
    assert window.workspace.top_bar.random.isVisible()
    window.session.undo_stack.undo()


def test_other_data_to_calibrate_and_train_on(dialog, window, qtbot, tmp_path):
    assert not dialog.training_row.isVisible()
    dialog.set_path(TEST_DATA)
    dialog.other.setChecked(True)
    assert dialog.training_row.isVisible()
    qtbot.waitUntil(lambda: "train on" in dialog.preview.summary.text(), timeout=10000)
    assert not dialog.use.isEnabled(), "it is not chosen yet"
    dialog._take(str(tmp_path / "nowhere.npz"), training=True)
    qtbot.waitUntil(lambda: "nowhere.npz" in dialog.preview.problem.text(), timeout=10000)
    arrays = np.load(TEST_DATA)
    np.savez(tmp_path / "train.npz", **{name: array[:50] for name, array in arrays.items()})
    dialog._take(str(tmp_path / "train.npz"), training=True)
    qtbot.waitUntil(lambda: dialog.use.isEnabled(), timeout=10000)
    assert dialog.preview.summary.text() == "360 samples"
    assert "50 other samples to calibrate and train on" in dialog.preview.detail.text()
    dialog.use.click()
    assert window.session.document.data.training_path == tmp_path / "train.npz"
    window.actions_table["data"].trigger()
    again = visible(DataDialog)
    assert again.other.isChecked()
    assert again.training.text() == str(tmp_path / "train.npz")
    again.random.setChecked(True)
    assert again.chosen().training_path is None
    again.reject()


def test_calibrate_without_data_asks_for_it_first(window, digits, qtbot):
    window.session.show(digits.with_data(None))
    window.actions_table["calibrate"].trigger()
    dialog = visible(DataDialog)
    dialog.set_path(TEST_DATA)
    qtbot.waitUntil(lambda: dialog.use.isEnabled(), timeout=10000)
    dialog.use.click()
    qtbot.waitUntil(lambda: window.session.document.calibration is not None, timeout=30000)


def test_preprocess_form_round_trip(qtbot, tmp_path):
    from studio.data.preprocess import Preprocess

    form = PreprocessForm()
    qtbot.addWidget(form)
    value = Preprocess(resize=256, crop=(224, 224), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25))
    form.show_preprocess(value)
    assert form.preprocess() == value
    odd = Preprocess(crop=(32, 32), mean=(127 / 255,), std=(128 / 255,))
    form.show_preprocess(odd)
    assert form.preprocess() == odd, "no digit is lost"
    form.show_preprocess(value)
    form.fields["mean"].setText("127/255")
    assert form.preprocess().mean == pytest.approx((127 / 255,))
    form.fields["crop"].setText("200")
    assert form.preprocess().crop == (200, 200)
    form.fields["std"].setText("0.5 wrong")
    with pytest.raises(ConfigError, match="Std"):
        form.preprocess()
    path = tmp_path / "bad.json"
    path.write_text('{"resiez": 3}')
    form.load(path, Preprocess)
    assert "resiez" in form.problem.text()


def test_numbers():
    assert numbers("0.485, 0.456 0.406", "Mean") == [0.485, 0.456, 0.406]
    with pytest.raises(ConfigError):
        numbers("1/0", "Mean")
