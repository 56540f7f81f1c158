"""Opening what runs code or needs to know its inputs: the questions asked before and after."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMessageBox, QPushButton
from window_helpers import idle, visible

from studio.app.dialogs.consent import ConsentDialog
from studio.app.dialogs.inputs import InputsDialog
from studio.app.tasks import OpenRequest
from studio.graph.sources.kinds import CONSENT, Kind
from studio.graph.sources.source import ExampleInput, ModelSource

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x, rate: int, mask=None):
        if rate != 8:
            raise ValueError(f"unknown rate {rate}")
        return self.fc(x) * rate
"""


@pytest.mark.parametrize("kind", list(CONSENT))
def test_one_wording_for_each_kind(kind: Kind, qtbot, tmp_path):
    source = ModelSource(None, "", "") if kind is Kind.PACKAGE else ModelSource(tmp_path / "a.bin")
    dialog = ConsentDialog(OpenRequest(source), kind)
    qtbot.addWidget(dialog)
    dialog.show()
    severe = kind is Kind.PICKLE
    assert dialog.windowTitle() == CONSENT[kind].title
    assert dialog.sure.isVisible() == severe
    assert dialog.run.isEnabled() != severe
    dialog.sure.setChecked(True)
    assert dialog.run.isEnabled()
    assert dialog.request is None
    assert len({consent.risk for consent in CONSENT.values()}) == len(CONSENT)


def pickled(folder: Path) -> Path:
    import torch

    path = folder / "net.pt"
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)), path)
    return path


def test_a_pickle_needs_a_tick(window, qtbot, tmp_path):
    window.files.open_path(pickled(tmp_path))
    dialog = visible(ConsentDialog)
    assert "can run anything" in dialog.windowTitle()
    dialog.run.click()  # not yet
    assert dialog.isVisible()
    QTest.keyClick(dialog.inputs, Qt.Key.Key_Return)
    assert dialog.isVisible()
    dialog.sure.setChecked(True)
    dialog.run.click()
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=60000)
    assert window.session.document.graph.example_shape("input") == (1, 4)


def test_weights_alone_are_refused_at_once(window, qtbot, tmp_path):
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "w.pth")
    window.files.open_path(tmp_path / "w.pth")
    assert visible(ConsentDialog) is None
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None, timeout=30000)
    assert "weights only" in visible(QMessageBox).text()
    visible(QMessageBox).close()


def test_an_installed_model(window, qtbot):
    qtbot.mouseClick(window.start_page.package, Qt.MouseButton.LeftButton)
    dialog = visible(ConsentDialog)
    for text, problem in (("", "Name the function"), ("net.onnx", "package.module")):
        dialog.factory.setText(text)
        dialog.run.click()
        assert problem in dialog.problem.text()
    dialog.factory.setText("torch.nn:Linear(in_features=4, out_features=2)")
    dialog.inputs.setText("1,4")
    dialog.fixed_size.setChecked(True)
    dialog.run.click()
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=60000)
    source = window.session.document.graph.source
    assert (source.module, source.fixed_size) == ("torch.nn", True)
    assert window.settings.recent() == []


def test_inputs_are_asked_for_and_problems_shown(window, qtbot, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    window.files.open_path(tmp_path / "net.py")
    visible(ConsentDialog).run.click()
    qtbot.waitUntil(lambda: visible(InputsDialog) is not None, timeout=60000)
    dialog = visible(InputsDialog)
    x, rate, _ = dialog.fields
    assert [fields.row.name for fields in dialog.fields] == ["x", "rate", "mask"]
    assert x.shape.text() == "1,5"  # the guess, which lacked a rate
    dialog.open_button.click()
    assert "rate" in dialog.problem.text()
    rate.fixed.setText("seven")
    dialog.open_button.click()
    assert "seven" in dialog.problem.text()
    rate.fixed.setText("7")
    dialog.open_button.click()
    qtbot.waitUntil(lambda: visible(InputsDialog) not in (None, dialog), timeout=60000)
    dialog = visible(InputsDialog)
    assert "unknown rate 7" in dialog.problem.text()
    assert dialog.fields[1].fixed.text() == "7"
    dialog.fields[1].fixed.setText("8")
    dialog.open_button.click()
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=60000)
    source = window.session.document.graph.source
    assert source.inputs == (ExampleInput((1, 5), "x", "float32"),)
    assert source.fixed_inputs == {"rate": 8}
    assert [value.name for value in window.session.document.graph.inputs] == ["x"]


def test_inputs_of_an_open_model_can_be_changed(window, qtbot, tmp_path):
    window.files.open_path(pickled(tmp_path))
    visible(ConsentDialog).sure.setChecked(True)
    visible(ConsentDialog).run.click()
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=60000)
    qtbot.waitUntil(idle(window), timeout=60000)
    first = window.session.document
    window.actions_table["inputs"].trigger()
    dialog = visible(InputsDialog)
    (row,) = dialog.fields
    assert (row.shape.text(), row.dtype.currentText()) == ("1,4", "float32")
    row.shape.setText("1,7,4")
    dialog.open_button.click()
    qtbot.waitUntil(lambda: window.session.document is not first, timeout=60000)
    assert window.session.document.graph.example_shape("input") == (1, 7, 4)


def test_a_project_names_the_model_that_would_run(window, qtbot, tmp_path):
    from studio.project import steps
    from studio.project.store import save_project

    document = steps.open_document(pickled(tmp_path), trust=True)
    save_project(document, tmp_path / "p.qstudio")
    window.files.open_path(tmp_path / "p.qstudio")
    qtbot.waitUntil(lambda: visible(ConsentDialog) is not None, timeout=60000)
    dialog = visible(ConsentDialog)
    texts = " ".join(found.text() for found in dialog.findChildren(type(dialog.problem)))
    assert "Unpickle net.pt?" in texts
    assert not dialog.run.isEnabled()
    assert isinstance(dialog.focusWidget(), QPushButton) and dialog.focusWidget() is not dialog.run
    dialog.reject()
    assert window.session.document is None


@pytest.mark.parametrize("name", ["a.pt2", "a.pt", "a.pth", "a.ckpt", "a.bin", "a.torchscript"])
def test_all_kinds_can_be_dropped(name: str, window):
    from studio.app.files import OPEN_FILTER, OPENABLE

    assert os.path.splitext(name)[1] in OPENABLE
    assert f"*{os.path.splitext(name)[1]}" in OPEN_FILTER
