"""Tabs at the left of a row, the tools of the current tab at its right, the pages below."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QTabBar, QVBoxLayout, QWidget


class TabArea(QWidget):
    """`shown` carries the name of the page that came to the front."""

    shown = Signal(str)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tabs = QTabBar()
        self.tabs.setAccessibleName(name)
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setElideMode(Qt.TextElideMode.ElideNone)
        self.tabs.setUsesScrollButtons(True)
        self._pages = QStackedWidget()
        self._tools: list[QWidget] = []
        self._names: list[str] = []
        self._row = QHBoxLayout()
        self._row.setContentsMargins(8, 0, 0, 0)
        self._row.addWidget(self.tabs, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(self._row)
        layout.addWidget(self._pages, 1)
        self.tabs.currentChanged.connect(self._change)

    def add(self, name: str, title: str, page: QWidget, tools: QWidget | None = None) -> None:
        self._names.append(name)
        self._pages.addWidget(page)
        tools = tools if tools is not None else QWidget()
        tools.setMaximumHeight(38)
        tools.setVisible(not self._tools)
        self._tools.append(tools)
        self._row.addWidget(tools)
        self.tabs.addTab(title)

    def set_title(self, name: str, title: str) -> None:
        index = self._names.index(name)
        if self.tabs.tabText(index) != title:
            self.tabs.setTabText(index, title)

    def title(self, name: str) -> str:
        return self.tabs.tabText(self._names.index(name))

    def show_page(self, name: str) -> None:
        self.tabs.setCurrentIndex(self._names.index(name))

    @property
    def current(self) -> str:
        return self._names[self.tabs.currentIndex()]

    def _change(self, index: int) -> None:
        self._pages.setCurrentIndex(index)
        for number, tools in enumerate(self._tools):
            tools.setVisible(number == index)
        self.shown.emit(self._names[index])
