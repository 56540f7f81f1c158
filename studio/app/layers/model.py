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

SORT_ROLE = Qt.ItemDataRole.UserRole + 1
CHANGED_ROLE = Qt.ItemDataRole.UserRole + 2
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
            self._rows = [cells(document, layer, self._sqnr) for layer in layers]
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
        if self.cell(index).key and self._session.editable:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        cell = self.cell(index)
        if role == Qt.ItemDataRole.DisplayRole:
            return cell.text
        if role == Qt.ItemDataRole.EditRole:
            return cell.value if cell.key else cell.text
        if role == SORT_ROLE:
            return cell.sort
        if role == CHANGED_ROLE:
            return self._changed[index.row()]
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
            return theme.color("link" if cell.key else "text")
        elif role == Qt.ItemDataRole.DecorationRole and index.column() == SQNR:
            value = self._sqnr.get(self._names[index.row()])
            return None if value is None else sqnr_scale(self._sqnr).color(value)
        elif role == Qt.ItemDataRole.TextAlignmentRole and index.column() <= SCALE:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def _tip(self, cell: Cell) -> str:
        parts = [cell.reason] if cell.reason else []
        if cell.changed:
            parts.append("Set for this layer.")
        if cell.key and self._session.busy:
            parts.append(f"Cannot be edited while {self._session.job_step.lower()}.")
        return " ".join(parts) or cell.text

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.EditRole or not index.isValid():
            return False
        return self.edit([index.row()], index.column(), value)

    def edit(self, rows: list[int], column: int, value: Any) -> bool:
        """Set the cell `column` of all `rows` that have one to `value`, as one edit."""
        key = COLUMNS[column].key
        names = [self._names[row] for row in rows if self._rows[row][column].key]
        if not key or not names or not self._session.editable:
            return False
        return edit_layers(self._session, names, key, value)


def edit_layers(session: Session, names: list[str], key: str, value: Any) -> bool:
    """One undoable edit of the setting `key`; for bits, None turns quantization off."""
    words = edits.describe_edit(names, key, value)
    if key.endswith("_bits"):
        kind = key.partition("_")[0]
        return session.edit(words, lambda document: edits.set_bits(document, names, kind, value))
    return session.edit(words, lambda document: edits.set_layers(document, names, **{key: value}))
