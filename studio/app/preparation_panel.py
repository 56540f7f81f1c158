"""The rules of preparation, each with a switch, and what they did to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
    Signal,
)
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QSplitter,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from studio.app import reports
from studio.app.session import Session
from studio.app.text_table import TextTable
from studio.app.theme import current_theme
from studio.app.widgets import elided, line

if TYPE_CHECKING:
    from studio.graph.prepare import Rule

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
TITLES = ("Rule", "Changes")
COUNT_WIDTH = 76
MARK_SIZE = 16
RULES_WIDTH = 320


class RuleModel(QAbstractTableModel):
    """One row a rule; the check mark says whether it is on. `switched` carries name and state."""

    switched = Signal(str, bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rules: tuple[Rule, ...] = ()
        self.editable = True
        self._blank = QPixmap(MARK_SIZE, MARK_SIZE)
        self._blank.fill(Qt.GlobalColor.transparent)

    def set_rules(self, rules: Sequence[Rule]) -> None:
        if tuple(rules) != self.rules:
            self.beginResetModel()
            self.rules = tuple(rules)
            self.endResetModel()

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self.rules)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(TITLES)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(TITLES):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return TITLES[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if section else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.isValid() and index.column() == 0 and self.rules[index.row()].optional:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if not index.isValid():
            return None
        rule, first = self.rules[index.row()], index.column() == 0
        if role == Qt.ItemDataRole.DisplayRole:
            if first:
                return rule.name
            return "off" if not rule.on else str(rule.count) if rule.count else "–"
        if role == Qt.ItemDataRole.ToolTipRole:
            return describe(rule)
        if role == Qt.ItemDataRole.CheckStateRole and first and rule.optional:
            return Qt.CheckState.Checked if rule.on else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.DecorationRole and first and not rule.optional:
            return self._blank  # in the place of the check mark
        if role == Qt.ItemDataRole.TextAlignmentRole and not first:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole:
            used = rule.count > 0 or not rule.on
            return current_theme().color("text" if used and first else "muted")
        return None

    def setData(self, index: Index, value: object, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.CheckStateRole or not index.isValid() or not self.editable:
            return False
        on = Qt.CheckState(value) is Qt.CheckState.Checked
        self.switched.emit(self.rules[index.row()].name, on)
        return True  # shown once the model has been prepared again


def describe(rule: Rule) -> str:
    if rule.optional:
        return rule.description
    return f"{rule.description} Always done."


class PreparationPanel(QWidget):
    """`bar` holds the search field; `layer_chosen` carries the layer of the selected change."""

    layer_chosen = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._rule = ""
        self.rules = RuleModel(self)
        self.rules.switched.connect(self._switch)
        self.list = QTableView()
        self.list.setAccessibleName("Rules of preparation")
        self.list.setModel(self.rules)
        self.list.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setShowGrid(False)
        self.list.setWordWrap(False)
        self.list.setTabKeyNavigation(False)
        self.list.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.list.verticalHeader().hide()
        self.list.verticalHeader().setDefaultSectionSize(28)
        header = self.list.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(1, COUNT_WIDTH)
        self.list.selectionModel().selectionChanged.connect(self._choose_rule)
        self.changes = TextTable("Changes", reports.CHANGE_TITLES, (150, 260), "")
        self.changes.layer_chosen.connect(self.layer_chosen)
        self.bar = self.changes.bar
        self.about = elided("", "muted")
        self.about.setFixedHeight(28)
        self.about.setContentsMargins(10, 0, 10, 0)
        right = QWidget()
        column = QVBoxLayout(right)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.about)
        column.addWidget(line())
        column.addWidget(self.changes, 1)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self.list)
        self.split.addWidget(right)
        self.split.setSizes([RULES_WIDTH, 900])
        self.split.setStretchFactor(1, 1)
        self.list.setMinimumWidth(220)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.split)
        session.job_changed.connect(self._follow_job)

    def refresh(self) -> None:
        """Show the rules and changes of the session's document."""
        document = self._session.document
        if document is None:
            return
        self.rules.set_rules(reports.rule_rows(document))
        self._select(self._rule)
        self._show_changes()

    def _select(self, name: str) -> None:
        row = next((i for i, rule in enumerate(self.rules.rules) if rule.name == name), None)
        if row is None:
            self.list.clearSelection()
        else:
            self.list.selectRow(row)

    def _choose_rule(self) -> None:
        rows = self.list.selectionModel().selectedRows()
        self._rule = self.rules.rules[rows[0].row()].name if rows else ""
        self._show_changes()

    def _show_changes(self) -> None:
        document = self._session.document
        if document is None:
            return
        rule = next((rule for rule in self.rules.rules if rule.name == self._rule), None)
        if rule is None:
            self.about.setText("What the rules changed, in the order it was done.")
            self.changes.empty.setText("The model was used as it is.")
        else:
            self.about.setText(describe(rule))
            off = "This rule is off." if not rule.on else "This rule had nothing to do."
            self.changes.empty.setText(off)
        self.changes.set_rows(reports.change_rows(document, self._rule))

    def _follow_job(self) -> None:
        self.rules.editable = self._session.editable

    def _switch(self, name: str, on: bool) -> None:
        document = self._session.document
        if document is None or not self._session.editable:
            return
        without = [rule for rule in document.graph.source.without if rule != name]
        if not on:
            without.append(name)
        text = f"Switch {name!r} {'on' if on else 'off'}"
        self._rule = name
        self._session.prepare_without(tuple(without), text)
