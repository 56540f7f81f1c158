"""The first screen: what it offers, and what opening does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtTest import QTest
from window_helpers import visible

from studio.resource_files import resource

DIGITS = resource("examples", "digits", "digits.onnx")


def test_example_opens_with_one_click(window, qtbot):
    assert window.pages.currentWidget() is window.start_page
    assert window.start_page.example.text() == "Handwritten digits"
    qtbot.mouseClick(window.start_page.example, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=30000)
    assert window.pages.currentWidget() is window.workspace
    assert window.workspace.bottom.title("layers") == "Layers 12"
    assert window.windowTitle() == "digits — Quantization Studio"
    assert window.session.document.data.name == "test.npz"


def test_recent_files(window, qtbot, tmp_path):
    gone = tmp_path / "gone.onnx"
    window.settings.add_recent(DIGITS)
    window.settings.add_recent(gone)
    window.start_page.refresh()
    first, second = window.start_page.recent_cards
    assert (first.text(), first.missing) == ("gone.onnx", True)
    assert "missing" in first.detail
    assert (second.text(), second.missing) == ("digits.onnx", False)
    qtbot.mouseClick(first, Qt.MouseButton.LeftButton)
    assert window.settings.recent() == [DIGITS]
    assert [card.text() for card in window.start_page.recent_cards] == ["digits.onnx"]
    qtbot.mouseClick(window.start_page.recent_cards[0], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=30000)


def drop(window, path: Path) -> bool:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    actions, button = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    plain = Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(300, 300), actions, data, button, plain)
    enter.setAccepted(False)
    window.dragEnterEvent(enter)
    if not enter.isAccepted():
        return False
    assert window.start_page.drop.active
    window.dropEvent(QDropEvent(QPointF(300, 300), actions, data, button, plain))
    assert not window.start_page.drop.active
    return True


def test_dropped_model_opens(window, qtbot):
    assert drop(window, DIGITS)
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=30000)
    assert window.settings.recent() == [DIGITS]


def test_other_files_cannot_be_dropped(window, tmp_path):
    assert not drop(window, tmp_path / "photo.jpg")


def test_broken_file_says_what_is_wrong(window, qtbot, tmp_path):
    from PySide6.QtWidgets import QMessageBox

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    window.files.open_path(broken)
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None, timeout=30000)
    box = visible(QMessageBox)
    assert "broken.onnx" in box.text()
    assert box.informativeText()
    assert "Traceback" not in box.text() + box.informativeText()
    box.close()
    assert window.session.document is None
    assert window.pages.currentWidget() is window.start_page
    assert window.settings.recent() == []


def test_python_code_asks_first(window, qtbot, tmp_path):
    from studio.app.dialogs.consent import ConsentDialog

    marker = tmp_path / "ran"
    source = tmp_path / "net.py"
    source.write_text(
        "import pathlib, torch\n"
        f"pathlib.Path({str(marker)!r}).touch()\n"
        "def make_net():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())\n"
    )
    window.files.open_path(source)
    dialog = visible(ConsentDialog)
    assert dialog.factory.text() == "make_net"
    QTest.keyClick(dialog.factory, Qt.Key.Key_Return)  # neither runs the code nor closes
    assert dialog.isVisible()
    dialog.inputs.setText("1,1,many")
    dialog.run.click()
    assert dialog.isVisible()
    assert "1,1,many" in dialog.problem.text()
    dialog.reject()
    assert not marker.exists()
    assert window.session.document is None
    window.files.open_path(source)
    dialog = visible(ConsentDialog)
    dialog.inputs.setText("1,1,8,8")
    dialog.run.click()
    qtbot.waitUntil(lambda: window.session.document is not None, timeout=60000)
    assert marker.exists()
    assert [layer.title for layer in window.session.document.plan.layers] == [
        "Input",
        "Conv + Relu",
    ]


def test_nothing_heavy_is_loaded_before_the_first_screen():
    code = """
import sys
from PySide6.QtCore import QSettings
from studio.app.main import make_application
app = make_application(["studio"])
from studio.app.settings import ViewSettings
from studio.app.theme import DARK, apply_theme
from studio.app.window import MainWindow
apply_theme(app, DARK)
window = MainWindow(ViewSettings(QSettings(sys.argv[1], QSettings.Format.IniFormat)))
window.show()
app.processEvents()
assert window.start_page.isVisible()
heavy = ("torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "pydantic", "pyqtgraph", "netron")
print(",".join(name for name in heavy if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "/dev/null"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
