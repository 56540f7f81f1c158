"""Netron in a pane: its pages under a private URL scheme, no server, nothing leaves the machine.

The scheme serves Netron's static files and the one model of the pane. On the way, `index.html`
gets version 0.0.0 (no telemetry) and today's date (no forced update half a year after release); a
script answers the consent question; every other request is refused by an interceptor.
"""

from __future__ import annotations

import atexit
import datetime
import html
import json
import os
import re
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QBuffer, QByteArray, QCoreApplication, Qt, QTimer, QUrl
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QLabel, QStackedLayout, QWidget
from shiboken6 import delete, isValid

from studio.app.theme import DARK, Theme, current_theme, notifier

if TYPE_CHECKING:
    from PySide6.QtWebEngineCore import (
        QWebEnginePage,
        QWebEngineProfile,
        QWebEngineUrlRequestInterceptor,
        QWebEngineUrlSchemeHandler,
    )
    from PySide6.QtWebEngineWidgets import QWebEngineView

SCHEME = b"netron"
HOST = "model"
LIMIT = 200 * 1024 * 1024  # bytes; Netron copies a model several times

_CONSENT = """
Object.defineProperty(document, 'cookie', { get: () => 'consent=1', set: () => {} });
"""
_SELECT = """
(() => {
    const view = window.__view__ && window.__view__.target;
    if (!view || !view.target || !document.body.classList.contains('default')) { return 'loading'; }
    const node = Array.from(view.target.nodes).find((node) => node.name === %s);
    if (!node) { return 'unknown'; }
    view.scrollTo(view.activate(node, 'sidebar'));
    return 'selected';
})()
"""
_SCHEME_RULES = """
for (const sheet of document.styleSheets) {
    for (const rule of sheet.cssRules) {
        if (rule instanceof CSSMediaRule && ['all', 'not all'].includes(rule.media.mediaText)) {
            rule.media.mediaText = '%s';
        }
    }
}
"""
# Grounds of Netron's dark rules and what they become, to sit well in the window.
_DARK_GROUNDS = {
    "#404040": DARK.background,
    "#1e1e1e": DARK.background,
    "#2d2d2d": DARK.surface,
}
_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "ico": "image/x-icon",
    "js": "text/javascript",
    "json": "application/json",
    "png": "image/png",
}
_META = re.compile(r'<meta name="(version|date)" content="[^"]*">')


def register_netron_scheme() -> None:
    """Prepare Qt for a pane that is made later; call it before the QApplication is created.

    WebEngine itself is imported when a pane is first shown: it takes time to load.
    """
    QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_ShareOpenGLContexts)


def sandbox_possible() -> bool:
    """False where Chromium would end the process instead of starting without its sandbox.

    It refuses to run as root, and it needs the user namespaces that some Linux systems forbid. The
    pane shows only Netron's own pages, which can reach neither files nor the network.
    """
    if not sys.platform.startswith("linux"):
        return True
    if os.geteuid() == 0:
        return False
    probe = ["unshare", "--user", "--map-root-user", "true"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=5).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return True


def index_page(name: str, theme: Theme) -> str:
    """Netron's start page for the model called `name`, in the colours of `theme`."""
    page = _static("index.html").decode("utf-8")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    values = {"version": "0.0.0", "date": now}
    page = _META.sub(lambda m: f'<meta name="{m[1]}" content="{values[m[1]]}">', page)
    extra = {"type": "Python", "file": "/data/model.onnx", "identifier": name}
    tags = "".join(
        f'<meta name="{key}" content="{html.escape(value)}">\n' for key, value in extra.items()
    )
    page = page.replace("<title>", f"{tags}<title>", 1)
    for theirs, ours in _DARK_GROUNDS.items():
        page = page.replace(f"background-color: {theirs}", f"background-color: {ours}")
    return in_theme(page, theme)


def in_theme(styles: str, theme: Theme) -> str:
    """Netron's styles with our theme in place of the desktop's."""
    return styles.replace("(prefers-color-scheme: dark)", _media(theme))


def _media(theme: Theme) -> str:
    return "all" if theme.dark else "not all"


def _static(path: str) -> bytes:
    """A file of the Netron package. Raises FileNotFoundError, also for paths outside it."""
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)+", path):
        raise FileNotFoundError(path)
    file = resources.files("netron") / path
    if not file.is_file() or path.endswith(".py"):
        raise FileNotFoundError(path)
    return file.read_bytes()


class NetronPane(QWidget):
    """Shows one model in Netron; any number of panes may exist.

    The browser is created when the pane is first visible with a model to show. `blocked` lists
    the addresses of requests that were refused.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Netron")
        self._name = ""
        self._data = b""
        self._browser: _Browser | None = None
        self._layout = QStackedLayout(self)
        self._message = QLabel(self)
        self._message.setProperty("role", "muted")
        self._message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._message.setWordWrap(True)
        self._message.setContentsMargins(40, 0, 40, 0)
        self._layout.addWidget(self._message)
        self._say(self.tr("Open a model to see it in Netron."))
        self._pending = False
        self._wanted = ""
        self._retry = QTimer(self, singleShot=True, interval=150)
        self._retry.timeout.connect(self._try_select)
        notifier.theme_changed.connect(self._apply_theme)
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.close_browser)

    def show_model(self, name: str, data: bytes) -> None:
        """Show the serialised ONNX model `data` under the file name `name`."""
        if len(data) > LIMIT:
            self.clear()
            size = f"{len(data) / 2**20:.0f} MB"
            self._say(
                self.tr(
                    "This model is {0}: too large for Netron inside the studio.\n"
                    "Export it and open the file in the Netron application."
                ).format(size)
            )
            return
        self._name, self._data = name, data
        self._pending = True
        if self.isVisible():
            self._load()

    def select_node(self, name: str) -> None:
        """Select the node `name` and scroll to it, as soon as the model is drawn."""
        self._wanted = name
        self._try_select()

    def _try_select(self) -> None:
        if self._browser is None or self._pending or not self._wanted:
            return
        self._browser.page.runJavaScript(_SELECT % json.dumps(self._wanted), 0, self._selected)

    def _selected(self, state: object) -> None:
        if state == "loading":
            self._retry.start()
        else:
            self._wanted = ""

    def clear(self) -> None:
        """Let go of the model."""
        self._name, self._data, self._pending, self._wanted = "", b"", False, ""
        if self._browser is not None:
            self._browser.serve(b"", b"")
        self._say(self.tr("Open a model to see it in Netron."))

    def close_browser(self) -> None:
        """Delete the page before its profile, as WebEngine requires; call before the end."""
        if self._browser is not None:
            self._browser.close()
            self._browser = None
            self._pending = bool(self._data)

    @property
    def message(self) -> str:
        """The text shown in place of Netron; "" while Netron is shown."""
        return self._message.text() if self._layout.currentWidget() is self._message else ""

    @property
    def page(self) -> QWebEnginePage | None:
        """Netron's page, once there is one."""
        return None if self._browser is None else self._browser.page

    @property
    def blocked(self) -> list[str]:
        return [] if self._browser is None else list(self._browser.blocked)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._pending:
            self._load()

    def _say(self, text: str) -> None:
        self._message.setText(text)
        self._layout.setCurrentWidget(self._message)

    def _load(self) -> None:
        if self._browser is None:
            try:
                self._browser = _Browser(self)
            except ImportError as error:
                self._say(
                    self.tr(
                        "Netron needs Qt WebEngine, which cannot be loaded here:\n{0}\n"
                        "Install the package PySide6-Addons and the system libraries it names."
                    ).format(error)
                )
                return
            self._layout.addWidget(self._browser.view)
        self._pending = False
        page = index_page(self._name, current_theme())
        self._browser.serve(page.encode("utf-8"), self._data)
        self._layout.setCurrentWidget(self._browser.view)
        self._try_select()

    def _apply_theme(self, theme: Theme) -> None:
        if self._browser is not None:
            self._browser.set_theme(theme)
        if self._name and not self._pending and self._browser is not None:
            page = index_page(self._name, theme)
            self._browser.replace_index(page.encode("utf-8"))


class _Browser:
    """View, page, profile and scheme handler of one pane. Raises ImportError without WebEngine."""

    def __init__(self, parent: QWidget) -> None:
        if not sandbox_possible():
            os.environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"
        from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineScript
        from PySide6.QtWebEngineWidgets import QWebEngineView

        _register()
        self.blocked: list[str] = []
        self._files: dict[str, bytes] = {}
        self.profile: QWebEngineProfile = QWebEngineProfile()  # off the record: no name
        self._handler = _scheme_handler(self._files)
        self._interceptor = _interceptor(self.blocked)
        self.profile.installUrlSchemeHandler(SCHEME, self._handler)
        self.profile.setUrlRequestInterceptor(self._interceptor)
        self.profile.downloadRequested.connect(lambda request: request.cancel())
        script = QWebEngineScript()
        script.setInjectionPoint(QWebEngineScript.InjectionPoint.DocumentCreation)
        script.setWorldId(QWebEngineScript.ScriptWorldId.MainWorld)
        script.setSourceCode(_CONSENT)
        self.profile.scripts().insert(script)
        self.page: QWebEnginePage = QWebEnginePage(self.profile, parent)
        # A profile must outlive its page, also when the pane's parent takes the page with it.
        self.page.destroyed.connect(self.profile.deleteLater)
        self.view: QWebEngineView = QWebEngineView(parent)
        self.view.setAccessibleName("Netron")
        self.view.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
        self.view.setPage(self.page)
        self.page.setBackgroundColor(current_theme().color("background"))
        atexit.register(self.close)

    def serve(self, index: bytes, model: bytes) -> None:
        """Load the start page `index` with `model`; empty bytes unload both."""
        self._files.clear()
        if index:
            self._files.update({"index.html": index, "data/model.onnx": model})
            self.page.load(QUrl(f"{SCHEME.decode()}://{HOST}/index.html"))
        else:
            self.page.setHtml("")

    def replace_index(self, index: bytes) -> None:
        """What a reload will get."""
        self._files["index.html"] = index

    def set_theme(self, theme: Theme) -> None:
        self.page.setBackgroundColor(theme.color("background"))
        self.page.runJavaScript(_SCHEME_RULES % _media(theme))

    def close(self) -> None:
        """Delete view, page and profile, now and in this order."""
        atexit.unregister(self.close)
        for thing in (self.view, self.page, self.profile):
            if isValid(thing):
                delete(thing)


_registered = False


def _register() -> None:
    """Make the scheme known; possible until the first profile exists."""
    global _registered
    if _registered:
        return
    from PySide6.QtWebEngineCore import QWebEngineUrlScheme

    flag = QWebEngineUrlScheme.Flag
    scheme = QWebEngineUrlScheme(SCHEME)
    scheme.setSyntax(QWebEngineUrlScheme.Syntax.Host)
    scheme.setFlags(
        flag.SecureScheme
        | flag.CorsEnabled
        | flag.FetchApiAllowed
        | flag.LocalScheme
        | flag.LocalAccessAllowed
    )
    QWebEngineUrlScheme.registerScheme(scheme)
    _registered = True


def _scheme_handler(files: dict[str, bytes]) -> QWebEngineUrlSchemeHandler:
    """Replies with `files` (path -> bytes), else with the files of the Netron package."""
    from PySide6.QtWebEngineCore import QWebEngineUrlRequestJob, QWebEngineUrlSchemeHandler

    class Handler(QWebEngineUrlSchemeHandler):
        def requestStarted(self, job: QWebEngineUrlRequestJob) -> None:
            path = job.requestUrl().path().lstrip("/")
            try:
                data = files[path] if path in files else _static(path)
            except FileNotFoundError:
                job.fail(QWebEngineUrlRequestJob.Error.UrlNotFound)
                return
            if path.endswith(".css"):
                data = in_theme(data.decode("utf-8"), current_theme()).encode("utf-8")
            buffer = QBuffer(job)
            buffer.setData(QByteArray(data))
            kind = _TYPES.get(path.rpartition(".")[2], "application/octet-stream")
            job.reply(kind.encode(), buffer)

    return Handler()


def _interceptor(blocked: list[str]) -> QWebEngineUrlRequestInterceptor:
    """Refuses every request that leaves the scheme, and writes its address into `blocked`."""
    from PySide6.QtWebEngineCore import QWebEngineUrlRequestInfo, QWebEngineUrlRequestInterceptor

    allowed: Any = (SCHEME.decode(), "data", "blob", "about")

    class Interceptor(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info: QWebEngineUrlRequestInfo) -> None:
            if info.requestUrl().scheme() not in allowed:
                blocked.append(info.requestUrl().toString())
                info.block(True)

    return Interceptor()
