"""The layers of the document as a Qt table model."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont

from studio.app import edits
from studio.app.layers.columns import COLUMNS, LAYER, SCALE, SQNR, Cell, cells
from studio.app.overlay import layer_sqnr, sqnr_scale
from studio.app.session import Session
from studio.app.theme import current_theme, notifier
from studio.sim.choices import Question

SORT_ROLE = Qt.ItemDataRole.UserRole + 1
CHANGED_ROLE = Qt.ItemDataRole.UserRole + 2
QUESTION_ROLE = Qt.ItemDataRole.UserRole + 3
Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()


class LayersModel(QAbstractTableModel):
    """One row a layer; `setData` makes an undoable edit of the document."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._names: tuple[str, ...] = ()
        self._rows: list[tuple[Cell, ...]] = []
        self._changed: list[bool] = []
        self._sizes: frozenset[str] = frozenset()
        self._sqnr: dict[str, float] = {}
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self._flags_changed)
        session.forecasts.changed.connect(self.refresh)
        notifier.theme_changed.connect(self._theme_changed)
        self.refresh()

    # -- content -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the document again; the rows stay where they are if the layers are the same."""
        document = self._session.document
        layers = document.plan.layers if document is not None else ()
        names = tuple(layer.name for layer in layers)
        reset = names != self._names
        if reset:
            self.beginResetModel()
        self._sqnr = layer_sqnr(document)
        self._names = names
        self._sizes = document.shape_layers if document is not None else frozenset()
        self._changed = [bool(layer.changed) for layer in layers]
        if document is not None:
            known = self._session.forecasts.layer
            self._rows = [cells(document, row, self._sqnr, known(row.name)) for row in layers]
        else:
            self._rows = []
        if reset:
            self.endResetModel()
        else:
            self._flags_changed()

    def _flags_changed(self) -> None:
        if self._rows:
            self.dataChanged.emit(
                self.index(0, 0), self.index(len(self._rows) - 1, len(COLUMNS) - 1)
            )

    def _theme_changed(self, theme: object) -> None:
        self._flags_changed()

    def name(self, row: int) -> str:
        """Name of the layer in `row`."""
        return self._names[row]

    def computes_size(self, row: int) -> bool:
        """True if the layer in `row` only computes sizes."""
        return self._names[row] in self._sizes

    def row(self, name: str) -> int | None:
        return self._names.index(name) if name in self._names else None

    def cell(self, index: Index) -> Cell:
        return self._rows[index.row()][index.column()]

    # -- Qt ------------------------------------------------------------------------------------

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(COLUMNS):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section].title
        if role == Qt.ItemDataRole.ToolTipRole:
            return COLUMNS[section].tip
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if self.cell(index).editable and self._session.editable:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        cell = self.cell(index)
        if role == Qt.ItemDataRole.DisplayRole:
            return cell.text
        if role == Qt.ItemDataRole.EditRole:
            return cell.answer if cell.editable else cell.text
        if role == SORT_ROLE:
            return cell.sort
        if role == CHANGED_ROLE:
            return self._changed[index.row()]
        if role == QUESTION_ROLE:
            return self.question(index.row(), index.column())
        return self._look(index, cell, role)

    def _look(self, index: Index, cell: Cell, role: int) -> Any:
        theme = current_theme()
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tip(cell)
        if role == Qt.ItemDataRole.FontRole:
            if cell.changed or index.column() == LAYER:
                font = QFont()
                font.setWeight(QFont.Weight.Bold if cell.changed else QFont.Weight.DemiBold)
                return font
        elif role == Qt.ItemDataRole.ForegroundRole:
            if cell.muted or index.column() == 1:
                return theme.color("muted")
            return theme.color(cell.role or ("link" if cell.editable else "text"))
        elif role == Qt.ItemDataRole.DecorationRole and index.column() == SQNR:
            value = self._sqnr.get(self._names[index.row()])
            return None if value is None else sqnr_scale(self._sqnr).color(value)
        elif role == Qt.ItemDataRole.TextAlignmentRole and index.column() <= SCALE:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def _tip(self, cell: Cell) -> str:
        parts = [cell.reason] if cell.reason else []
        if cell.editable and self._session.busy:
            parts.append(f"Cannot be edited while {self._session.job_step.lower()}.")
        return " ".join(parts) or cell.text

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.EditRole or not index.isValid():
            return False
        return self.edit([index.row()], index.column(), value)

    def question(self, row: int, column: int) -> Question | None:
        """What can be chosen in a cell; None where nothing can."""
        document, entry = self._session.document, COLUMNS[column]
        if document is None or not entry.question or not self._rows[row][column].editable:
            return None
        asked = edits.questions_of(document, document.plan.layers[row], entry.kind)
        return next((item for item in asked if item.name == entry.question), None)

    def edit(self, rows: list[int], column: int, answer: str) -> bool:
        """Choose `answer` in the cell `column` of all `rows` that offer it, as one edit."""
        asked = [self.question(row, column) for row in rows]
        for question in asked if self._session.editable else ():
            if question is not None and any(item.text == answer for item in question.choices):
                names = [self._names[row] for row in rows]
                return edits.answer(self._session, names, question, question.choice(answer))
        return False
