"""Start, cancel and close again and again, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import random, sys, time
from PySide6.QtCore import QSettings, QTimer
from studio.app.main import make_application
app = make_application(["studio"])
from studio.app.dialogs import messages
from studio.project.example import open_digits
from studio.app.settings import ViewSettings
from studio.app.theme import DARK, apply_theme
from studio.app.window import MainWindow
from studio.jobs import CancelToken, silent
messages.ask_stop = lambda *_: True
messages.ask_unsaved = lambda *_: messages.QMessageBox.StandardButton.Discard
apply_theme(app, DARK)
document = open_digits(silent, CancelToken())
random.seed(0)
for number in range(20):
    window = MainWindow(ViewSettings(QSettings(sys.argv[1], QSettings.Format.IniFormat)))
    window.show()
    window.session.show(document)
    window.session.calibrate()
    until = time.monotonic() + random.uniform(0.0, 0.25)
    while time.monotonic() < until:
        app.processEvents()
    window.close()
    while window.isVisible():
        app.processEvents()
    assert window.session.job is None
    window.deleteLater()
    app.processEvents()
print("done")
"""


def test_closing_during_a_job_twenty_times(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SCRIPT, str(tmp_path / "view.ini")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "done"
    assert "Traceback" not in done.stderr
    assert "QThread" not in done.stderr
