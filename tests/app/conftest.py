"""The window's tests run without a screen, with real widgets."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(autouse=True)
def _dark_theme(qapp):  # type: ignore[no-untyped-def]
    """Every test starts in the dark theme."""
    from studio.app.theme import DARK, apply_theme, current_theme

    if current_theme() is not DARK or not qapp.styleSheet():
        apply_theme(qapp, DARK)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):  # type: ignore[no-untyped-def]
    """No test of the window may reach beyond this machine."""
    import socket

    connect = socket.socket.connect

    def guarded(self, address):  # type: ignore[no-untyped-def]
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a connection to {address} was tried")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _no_job_left():  # type: ignore[no-untyped-def]
    """Every job's thread has ended when the test ends."""
    import threading
    import time

    yield
    until = time.monotonic() + 5
    while time.monotonic() < until:
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("job:")]
        if not left:
            return
        time.sleep(0.02)
    raise AssertionError(f"jobs still running: {left}")


@pytest.fixture(scope="session")
def digits():  # type: ignore[no-untyped-def]
    """The bundled example, opened."""
    from studio.jobs import CancelToken, silent
    from studio.project.example import open_digits

    return open_digits(silent, CancelToken())


@pytest.fixture(scope="session")
def calibrated(digits):  # type: ignore[no-untyped-def]
    """The bundled example, calibrated."""
    from studio.project import steps

    return steps.calibrate(digits)


@pytest.fixture(scope="session")
def evaluated(calibrated):  # type: ignore[no-untyped-def]
    """The bundled example, calibrated and evaluated."""
    from studio.project import steps

    return steps.evaluate(calibrated)


@pytest.fixture(scope="session")
def coarse(digits):  # type: ignore[no-untyped-def]
    """The bundled example with 2-bit weights and 4-bit activations, calibrated."""
    from studio.project import steps

    defaults = digits.config.defaults.model_copy(update={"weight_bits": 2, "act_bits": 4})
    config = digits.config.model_copy(update={"defaults": defaults})
    return steps.calibrate(digits.with_config(config))


@pytest.fixture
def improve_panel(window, coarse):  # type: ignore[no-untyped-def]
    """The Improve panel in front of the coarse model, its form set to a short training."""
    from window_helpers import FAST_TRAINING

    window.session.show(coarse)
    window.actions_table["improve"].trigger()
    result = window.workspace.improve
    assert result.isVisible()
    result.choose("qat")
    result.form.show_values(FAST_TRAINING)
    return result


@pytest.fixture
def view_settings(tmp_path):  # type: ignore[no-untyped-def]
    """Settings of the window in a file of their own."""
    from PySide6.QtCore import QSettings

    from studio.app.settings import ViewSettings

    return ViewSettings(QSettings(str(tmp_path / "view.ini"), QSettings.Format.IniFormat))


@pytest.fixture
def window(qtbot, view_settings):  # type: ignore[no-untyped-def]
    """The main window on its first screen."""
    from studio.app.window import MainWindow

    result = MainWindow(view_settings)
    result.resize(1600, 1000)
    result.show()
    qtbot.waitExposed(result)
    yield result
    session = result.session
    session.cancel()
    qtbot.waitUntil(lambda: not session.busy, timeout=20000)
    session.undo_stack.setClean()
    session._results_unsaved = False
    result.close()
    result.deleteLater()
    qtbot.wait(1)
