"""Find a command by typing part of its name."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QAction, QKeyEvent
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from studio.app.actions import Actions
from studio.app.widgets import elided, label

ROW_HEIGHT = 32


def matches(query: str, text: str) -> bool:
    """True if every word of `query` occurs in `text`."""
    lowered = text.lower()
    return all(word in lowered for word in query.lower().split())


class CommandPalette(QDialog):
    """Enabled commands first; Enter runs the chosen one."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Commands")
        self.setModal(True)
        self.resize(560, 400)
        self._actions = actions
        self.field = QLineEdit(placeholderText="Type a command")
        self.field.setAccessibleName("Command")
        self.list = QListWidget()
        self.list.setAccessibleName("Commands")
        self.list.setSpacing(0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.addWidget(self.field)
        layout.addWidget(self.list)
        self.field.textChanged.connect(self._fill)
        self.field.installEventFilter(self)
        self.list.itemActivated.connect(self._run)
        self.list.itemClicked.connect(self._run)
        self._fill("")

    def _fill(self, query: str) -> None:
        self.list.clear()
        found = [
            action
            for action in self._actions.all()
            if action.objectName() != "palette" and matches(query, action.text())
        ]
        for action in sorted(found, key=lambda action: not action.isEnabled()):
            item, row = self._item(action), self._row(action)
            item.setSizeHint(QSize(0, ROW_HEIGHT))
            self.list.addItem(item)
            self.list.setItemWidget(item, row)
        self.list.setCurrentRow(0)

    def _item(self, action: QAction) -> QListWidgetItem:
        item = QListWidgetItem()
        item.setData(Qt.ItemDataRole.UserRole, action.objectName())
        item.setData(Qt.ItemDataRole.AccessibleTextRole, action.text())
        item.setToolTip(action.toolTip())
        if not action.isEnabled():
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
        return item

    def _row(self, action: QAction) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(10, 0, 10, 0)
        layout.addWidget(
            elided(action.text().rstrip("…"), "" if action.isEnabled() else "muted"), 1
        )
        hint = action.shortcut().toString() if action.isEnabled() else action.toolTip()
        layout.addWidget(label(hint, "muted"))
        row.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        return row

    def _run(self, item: QListWidgetItem | None) -> None:
        if item is None or not item.flags() & Qt.ItemFlag.ItemIsEnabled:
            return
        name = item.data(Qt.ItemDataRole.UserRole)
        self.accept()
        self._actions[name].trigger()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        pressed = event.type() == QEvent.Type.KeyPress
        if watched is self.field and pressed and isinstance(event, QKeyEvent):
            key = event.key()
            if key in (Qt.Key.Key_Down, Qt.Key.Key_Up):
                step = 1 if key == Qt.Key.Key_Down else -1
                row = min(max(self.list.currentRow() + step, 0), self.list.count() - 1)
                self.list.setCurrentRow(row)
                return True
            if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._run(self.list.currentItem())
                return True
        return super().eventFilter(watched, event)
