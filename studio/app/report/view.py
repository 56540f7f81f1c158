"""The report's page inside the window, in the window's theme."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, Qt, QUrl
from PySide6.QtWidgets import QLabel, QStackedLayout, QWidget
from shiboken6 import Object, delete, isValid

from studio.app.report.profile import private_profile
from studio.app.theme import Theme, current_theme, notifier

if TYPE_CHECKING:
    from PySide6.QtWebEngineCore import QWebEnginePage

NO_WEBENGINE = (
    "Showing the report here needs Qt WebEngine, which cannot be loaded:\n{0}\n"
    "Open it in the browser instead."
)
_DESKTOPS = "@media screen and (prefers-color-scheme: dark)"
_SET_THEME = """
for (const sheet of document.styleSheets) {
    for (const rule of sheet.cssRules) {
        if (rule instanceof CSSMediaRule && ['screen', 'not all'].includes(rule.media.mediaText)) {
            rule.media.mediaText = '%s';
        }
    }
}
"""


def in_theme(html: str, theme: Theme) -> str:
    """The report in `theme` whatever the desktop's is."""
    return html.replace(_DESKTOPS, f"@media {_media(theme)}")


def _media(theme: Theme) -> str:
    return "screen" if theme.dark else "not all"


class ReportView(QWidget):
    """Shows HTML, or says why it cannot. The browser is created with the first page."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._message = QLabel()
        self._message.setProperty("role", "muted")
        self._message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._message.setWordWrap(True)
        self._message.setTextFormat(Qt.TextFormat.PlainText)
        self._message.setContentsMargins(40, 0, 40, 0)
        self._layout = QStackedLayout(self)
        self._layout.addWidget(self._message)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0
        self._page: QWebEnginePage | None = None
        self._browser: list[Object] = []
        notifier.theme_changed.connect(self._apply_theme)
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.close_browser)

    @property
    def page(self) -> QWebEnginePage | None:
        """The browser's page, once there is one."""
        return self._page

    @property
    def message(self) -> str:
        """The text shown in place of a page; "" while a page is shown."""
        return self._message.text() if self._layout.currentWidget() is self._message else ""

    def say(self, text: str) -> None:
        """Show words instead of a page."""
        self._message.setText(text)
        self._layout.setCurrentWidget(self._message)

    def show_html(self, html: str) -> None:
        """Show a page, scrolled as the one before it was."""
        if self._page is None:
            try:
                self._make_browser()
            except ImportError as error:
                self.say(NO_WEBENGINE.format(error))
                return
        assert self._folder is not None
        assert self._page is not None
        # Another name each time: a link of the page may have changed the address to a part of it.
        self._count += 1
        folder = Path(self._folder.name)
        for old in folder.iterdir():
            old.unlink()
        path = folder / f"report-{self._count}.html"
        path.write_text(in_theme(html, current_theme()), encoding="utf-8")
        place = self._page.scrollPosition().y()
        self._page.load(QUrl.fromLocalFile(str(path)))
        self._scroll_to = place
        self._layout.setCurrentIndex(1)

    def _make_browser(self) -> None:
        profile, interceptor = private_profile()
        from PySide6.QtWebEngineCore import QWebEnginePage
        from PySide6.QtWebEngineWidgets import QWebEngineView

        page, view = QWebEnginePage(profile), QWebEngineView(self)
        view.setAccessibleName("Report")
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
        view.setPage(page)
        page.setBackgroundColor(current_theme().color("background"))
        page.loadFinished.connect(self._loaded)
        self._scroll_to = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix="quantization-studio-")
        self._page = page
        self._browser = [view, page, profile, interceptor]
        self._layout.addWidget(view)

    def _loaded(self, _well: bool) -> None:
        if self._page is not None and self._scroll_to:
            self._page.runJavaScript(f"scrollTo(0, {self._scroll_to})")

    def _apply_theme(self, theme: Theme) -> None:
        if self._page is not None:
            self._page.setBackgroundColor(theme.color("background"))
            self._page.runJavaScript(_SET_THEME % _media(theme))

    def close_browser(self) -> None:
        """Delete view, page and profile in the order WebEngine requires; call before the end."""
        self._page = None
        for thing in self._browser:
            if isValid(thing):
                delete(thing)
        self._browser = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
