"""The commands of the table as Qt actions."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction, QKeySequence

from studio.app.commands import COMMANDS
from studio.app.icons import icon
from studio.app.session import Session


class Actions(QObject):
    """One QAction per command, kept enabled or disabled with the session.

    A disabled action's tooltip says why it is disabled.
    """

    def __init__(
        self, session: Session, handlers: dict[str, Callable[[], object]], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._actions: dict[str, QAction] = {}
        for command in COMMANDS:
            action = QAction(command.text, self)
            action.setObjectName(command.id)
            if command.icon:
                action.setIcon(icon(command.icon))
            if command.shortcut:
                action.setShortcut(QKeySequence(command.shortcut))
            handler = handlers[command.id]
            action.triggered.connect(lambda _checked=False, run=handler: run())
            self._actions[command.id] = action
        self["palette"].setShortcuts([QKeySequence("Ctrl+K"), QKeySequence("Ctrl+Shift+P")])
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        session.selection_changed.connect(self.refresh)
        session.undo_stack.indexChanged.connect(self.refresh)
        self.refresh()

    def __getitem__(self, name: str) -> QAction:
        return self._actions[name]

    def all(self) -> list[QAction]:
        return list(self._actions.values())

    def refresh(self) -> None:
        """Enable what can be used now, and say in the tooltips why the rest cannot."""
        stack = self._session.undo_stack
        for command in COMMANDS:
            action = self._actions[command.id]
            reason = command.blocked(self._session)
            action.setEnabled(not reason)
            shortcut = f"  ({action.shortcut().toString()})" if command.shortcut else ""
            action.setToolTip(reason or f"{command.tip}{shortcut}")
            action.setStatusTip("")
        if stack.canUndo():
            self["undo"].setText(f"Undo: {stack.undoText()}")
        else:
            self["undo"].setText("Undo")
        self["redo"].setText(f"Redo: {stack.redoText()}" if stack.canRedo() else "Redo")
