"""The report in the window: made in the background, shown, saved, printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog, QMessageBox
from window_helpers import idle, visible

from studio.app.report import view as report_view
from studio.app.report.view import in_theme
from studio.app.theme import DARK, LIGHT
from studio.resource_files import resource


@pytest.fixture
def tab(window, calibrated, monkeypatch):  # type: ignore[no-untyped-def]
    """The tab in front, where no browser can be loaded."""

    def missing() -> None:
        raise ImportError("libnss3.so: cannot open shared object file")

    monkeypatch.setattr(report_view, "private_profile", missing)
    monkeypatch.setitem(sys.modules, "PySide6.QtWebEngineCore", None)
    window.session.show(calibrated)
    window.actions_table["report"].trigger()
    assert window.workspace.report.isVisible()
    return window.workspace.report


def answer(monkeypatch, path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))


def test_without_a_browser_the_report_can_still_be_had(tab, qtbot, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    qtbot.waitUntil(lambda: "libnss3.so" in tab.view.message, timeout=60000)
    assert "browser" in tab.view.message
    opened = []
    tab._open_url = opened.append
    tab.browser.click()
    text = Path(opened[0].toLocalFile()).read_text("utf-8")
    assert "digits" in text
    assert "not exported yet" in text
    answer(monkeypatch, tmp_path / "mine")
    tab.html.click()
    assert (tmp_path / "mine.html").read_text("utf-8") == text
    assert tab.state.text() == "Saved as mine.html"


def test_the_report_follows_the_document(tab, window, qtbot, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    answer(monkeypatch, tmp_path / "r.html")
    window.session.edit("Narrow", lambda doc: doc.with_config(doc.config.with_defaults(act_bits=5)))
    window.actions_table["report_html"].trigger()
    qtbot.waitUntil(lambda: (tmp_path / "r.html").exists(), timeout=60000)
    assert "act_bits = 5" in (tmp_path / "r.html").read_text("utf-8")
    qtbot.waitUntil(idle(window), timeout=20000)
    qtbot.waitUntil(lambda: tab._job is None and not tab._timer.isActive(), timeout=60000)
    assert tab._made_for is window.session.document
    window.session.undo_stack.setClean()
    window.session.close_document()
    assert tab._html == ""


def test_a_pdf_that_cannot_be_made_says_why(tab, qtbot, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    answer(monkeypatch, tmp_path / "r.pdf")
    tab.pdf.click()
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None, timeout=60000)
    box = visible(QMessageBox)
    assert "Qt WebEngine" in box.text() + box.informativeText()
    box.close()
    assert tab.pdf.isEnabled()
    assert tab.state.text() == ""
    assert list(tmp_path.glob("*.pdf")) == []


def test_a_file_that_cannot_be_written_is_named(tab, qtbot, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    answer(monkeypatch, tmp_path / "nowhere" / "r.html")
    tab.html.click()
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None, timeout=60000)
    box = visible(QMessageBox)
    assert "r.html" in box.text()
    box.close()


def test_the_theme_of_the_window_is_that_of_the_report() -> None:
    css = (resource("report") / "report.css").read_text("utf-8")
    assert css.count("prefers-color-scheme") == 1
    assert "@media screen {" in in_theme(css, DARK)
    assert "@media not all {" in in_theme(css, LIGHT)
    assert "prefers-color-scheme" not in in_theme(css, DARK)


CHILD = """
import json, sys, time
from pathlib import Path
from PySide6.QtCore import QEventLoop, QSettings, QTimer
from PySide6.QtWidgets import QFileDialog
from studio.app.main import make_application
from studio.app.settings import ViewSettings
from studio.app.theme import DARK, LIGHT, apply_theme
from studio.app.window import MainWindow
from studio.jobs import CancelToken, silent
from studio.project import steps
from studio.project.example import open_digits

folder = Path(sys.argv[1])
app = make_application(["x"])
apply_theme(app, DARK)
store = QSettings(str(folder / "view.ini"), QSettings.Format.IniFormat)
window = MainWindow(ViewSettings(store))
window.show()
window.session.show(steps.calibrate(open_digits(silent, CancelToken())))

def spin(until, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        app.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 10)
        time.sleep(0.002)
    return until()

def ask(script):
    found = []
    tab.view.page.runJavaScript(script, 0, found.append)
    spin(lambda: found, 10)
    return found[0] if found else None

out = {}
window.actions_table["report"].trigger()
tab = window.workspace.report
spin(lambda: tab.view.page is not None)
spin(lambda: ask("document.querySelectorAll('section').length") or 0)
out["title"] = ask("document.querySelector('h1').textContent")
BACK = "getComputedStyle(document.body).backgroundColor"
out["dark"] = ask(BACK)
apply_theme(app, LIGHT)
spin(lambda: ask(BACK) == "rgb(255, 255, 255)", 10)
out["light"] = ask(BACK)
tab.view.page.runJavaScript(
    "for (const url of ['https://example.com/x', 'file:///etc/passwd'])"
    "    fetch(url).then(() => { window.leaked = 1 },"
    "        () => { window.refused = (window.refused || 0) + 1 })"
)
spin(lambda: ask("window.refused || 0") == 2, 10)
out["refused"], out["leaked"] = ask("window.refused || 0"), ask("window.leaked || 0")
QFileDialog.getSaveFileName = lambda *_: (str(folder / "r.pdf"), "")
tab.pdf.click()
out["printing"] = tab.printer is not None and not tab.pdf.isEnabled()
spin(lambda: tab.printer is None)
out["state"] = tab.state.text()
QFileDialog.getSaveFileName = lambda *_: (str(folder / "taken" / "r.pdf"), "")
(folder / "taken" / "r.pdf").mkdir(parents=True)
failed = []
window.session.failed.connect(lambda step, error: failed.append(error.message))
tab.pdf.click()
spin(lambda: failed)
out["failed"] = failed
window.session.undo_stack.setClean()
window.session._results_unsaved = False
window.close()
window.deleteLater()
app.processEvents()
print("RESULT" + json.dumps(out))
"""


@pytest.mark.webengine
def test_the_report_is_shown_and_printed_without_any_request(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("PySide6.QtWebEngineCore")
    env = os.environ | {
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu",
    }
    env.pop("QTWEBENGINE_DISABLE_SANDBOX", None)
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    assert "Release of profile requested" not in child.stderr
    line = next(line for line in child.stdout.splitlines() if line.startswith("RESULT"))
    out = json.loads(line.removeprefix("RESULT"))
    assert out["title"] == "digits"
    assert (out["dark"], out["light"]) == ("rgb(27, 31, 38)", "rgb(255, 255, 255)")
    assert (out["refused"], out["leaked"]) == (2, 0)
    assert out["printing"] is True
    assert out["state"] == "Saved as r.pdf"
    pdf = (tmp_path / "r.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(out["failed"]) == 1
    assert "r.pdf" in out["failed"][0]
    assert not list(tmp_path.glob("**/.*.tmp"))
