"""Netron draws the model, and asks nobody for anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from studio.app import netron_pane
from studio.app.netron_pane import NetronPane, in_theme, index_page
from studio.app.theme import DARK, LIGHT

CHILD = """
import json, sys, time
from PySide6.QtWidgets import QApplication
from studio.app.netron_pane import NetronPane, register_netron_scheme
from studio.app.theme import DARK, LIGHT, apply_theme
import onnx
from onnx import TensorProto, helper

def model(length):
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=f"relu<{i}>")
             for i in range(length)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
            for name in ("t0", f"t{length}")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph).SerializeToString()

register_netron_scheme()
app = QApplication(sys.argv)
assert "PySide6.QtWebEngineCore" not in sys.modules
apply_theme(app, DARK)

def ask(page, script):
    answer = []
    page.runJavaScript(script, 0, answer.append)
    end = time.monotonic() + 5
    while not answer and time.monotonic() < end:
        app.processEvents()
    return answer[0] if answer else None

def until(page, script, wanted, seconds=40):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ask(page, script) == wanted:
            return wanted
        time.sleep(0.05)
    return ask(page, script)

COUNT = "document.querySelectorAll('[id^=\\"node-name-\\"]').length"
BACK = "getComputedStyle(document.body).backgroundColor"
WHITE = "rgb(255, 255, 255)"
out = {}
first, second = NetronPane(), NetronPane()
for pane in (first, second):
    pane.resize(500, 400)
    pane.show()
first.show_model("a model.onnx", model(7))
second.show_model('quo"ted <b>.onnx', model(3))
out["first"] = until(first.page, COUNT, 7)
out["second"] = until(second.page, COUNT, 3)
out["title"] = until(second.page, "document.title", 'quo"ted <b>.onnx', 5)
first.select_node("relu<4>")
out["sidebar"] = until(
    first.page, "document.getElementById('sidebar').textContent.includes('relu<4>')", True, 5
)
out["dark"] = until(first.page, BACK, "rgb(27, 31, 38)", 5)
apply_theme(app, LIGHT)
out["light"] = until(first.page, BACK, WHITE, 5)
first.show_model("other.onnx", model(12))
out["third"] = until(first.page, COUNT, 12)
out["light_again"] = until(first.page, BACK, WHITE, 5)
first.page.runJavaScript(
    "for (const url of ['https://example.com/x', 'file:///etc/passwd'])"
    "    fetch(url).then(() => { window.leaked = 1 },"
    "        () => { window.refused = (window.refused || 0) + 1 })"
)
out["refused"] = until(first.page, "window.refused || 0", 2, 10)
out["leaked"] = ask(first.page, "window.leaked || 0")
out["blocked"] = first.blocked
out["blocked_second"] = second.blocked
first.close_browser()
del second  # a pane may also just go away
app.quit()
print("RESULT" + json.dumps(out))
"""


@pytest.mark.webengine
def test_netron_draws_models_side_by_side_without_any_request() -> None:
    pytest.importorskip("PySide6.QtWebEngineCore")
    env = os.environ | {
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu",
    }
    env.pop("QTWEBENGINE_DISABLE_SANDBOX", None)  # the pane knows where it is needed
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD)],
        env=env,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert child.returncode == 0, child.stderr
    assert "Release of profile requested" not in child.stderr
    line = next(line for line in child.stdout.splitlines() if line.startswith("RESULT"))
    out = json.loads(line.removeprefix("RESULT"))
    assert (out["first"], out["second"], out["third"]) == (7, 3, 12)
    assert out["title"] == 'quo"ted <b>.onnx'
    assert out["sidebar"] is True
    assert out["dark"] == "rgb(27, 31, 38)"
    assert out["light"] == out["light_again"] == "rgb(255, 255, 255)"
    # Only what the test itself asked for was tried, and it was refused.
    assert set(out["blocked"]) <= {"https://example.com/x", "file:///etc/passwd"}
    assert out["blocked_second"] == []
    assert (out["refused"], out["leaked"]) == (2, 0)


def test_the_start_page_is_dated_today_and_silent() -> None:
    page = index_page('x"><script>.onnx', DARK)
    assert '<meta name="version" content="0.0.0">' in page
    assert page.count('<meta name="date"') == 1
    assert "<script>.onnx" not in page
    assert '<meta name="file" content="/data/model.onnx">' in page


def test_the_theme_replaces_the_desktops_colour_scheme() -> None:
    css = "@media (prefers-color-scheme: dark) { a {} }"
    assert in_theme(css, DARK) == "@media all { a {} }"
    assert in_theme(css, LIGHT) == "@media not all { a {} }"


@pytest.mark.parametrize(
    "path", ["../netron/base.js", "__init__.py", "nothing.js", "", "/etc/passwd"]
)
def test_nothing_but_netrons_pages_is_served(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        netron_pane._static(path)


def test_too_large_a_model_gets_advice(qtbot, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(netron_pane, "LIMIT", 1000)
    pane = NetronPane()
    qtbot.addWidget(pane)
    pane.show_model("big.onnx", bytes(1001))
    pane.show()
    assert "too large" in pane.message
    assert pane.page is None


def test_without_webengine_the_pane_says_so(qtbot, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def missing(parent: object) -> None:
        raise ImportError("libnss3.so: cannot open shared object file")

    monkeypatch.setattr(netron_pane, "_Browser", missing)
    pane = NetronPane()
    qtbot.addWidget(pane)
    assert "Open a model" in pane.message
    pane.show_model("a.onnx", b"x")
    pane.show()
    assert "libnss3.so" in pane.message


def test_root_gets_no_sandbox_that_would_end_the_window(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(netron_pane.sys, "platform", "linux")
    monkeypatch.setattr(netron_pane.os, "geteuid", lambda: 0)
    assert not netron_pane.sandbox_possible()
    monkeypatch.setattr(netron_pane.os, "geteuid", lambda: 1000)
    for code in (0, 1):
        done = subprocess.CompletedProcess([], code)
        monkeypatch.setattr(netron_pane.subprocess, "run", lambda *_, done=done, **__: done)
        assert netron_pane.sandbox_possible() is (code == 0)
