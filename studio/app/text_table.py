"""A searchable table of texts: tensors, preparation, problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLineEdit,
    QStackedLayout,
    QTableView,
    QWidget,
)

from studio.app.theme import current_theme
from studio.app.widgets import label

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
CELL_MARGIN = 6
SORT_ROLE = Qt.ItemDataRole.UserRole


@dataclass(frozen=True)
class Row:
    """Texts of one row; `layer` is selected when the row is. `role` colours the first cell. `keys`
    are what the columns are sorted by where that is not the text."""

    cells: tuple[str, ...]
    layer: str = ""
    role: str = ""
    keys: tuple[str | float, ...] = ()


class TextModel(QAbstractTableModel):
    def __init__(self, titles: Sequence[str], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._titles = tuple(titles)
        self.rows: tuple[Row, ...] = ()

    def set_rows(self, rows: Sequence[Row]) -> None:
        if tuple(rows) != self.rows:
            self.beginResetModel()
            self.rows = tuple(rows)
            self.endResetModel()

    def set_title(self, column: int, title: str) -> None:
        """Name a column anew."""
        if self._titles[column] != title:
            self._titles = (*self._titles[:column], title, *self._titles[column + 1 :])
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, column, column)

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._titles)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if orientation is Qt.Orientation.Horizontal and 0 <= section < len(self._titles):
            if role == Qt.ItemDataRole.DisplayRole:
                return self._titles[section]
            if role == Qt.ItemDataRole.TextAlignmentRole:
                return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if not index.isValid():
            return None
        row = self.rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return row.cells[index.column()]
        if role == SORT_ROLE:
            return (row.keys or row.cells)[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole:
            if index.column() == 0:
                return current_theme().color(row.role or "text")
            return current_theme().color("text" if index.column() == 1 else "muted")
        return None


class TextTable(QWidget):
    """`bar` holds the search field; `layer_chosen` carries the layer of the selected row.

    `widths` are the largest widths of the columns in pixels; the last column takes the rest.
    """

    layer_chosen = Signal(str)

    def __init__(self, name: str, titles: Sequence[str], widths: Sequence[int], empty: str) -> None:
        super().__init__()
        self.model = TextModel(titles, self)
        self.filter = QSortFilterProxyModel(self)
        self.filter.setSourceModel(self.model)
        self.filter.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.filter.setFilterKeyColumn(-1)
        self.filter.setSortRole(SORT_ROLE)
        self.table = QTableView()
        self.table.setAccessibleName(name)
        self.table.setModel(self.filter)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.setTabKeyNavigation(False)
        self.table.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(28)
        self.table.horizontalHeader().setHighlightSections(False)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.empty = label(empty, "muted")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._limits = tuple(widths)
        self._fitted = False
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self.table)
        self._stack.addWidget(self.empty)
        self.bar = QWidget()
        self.search = QLineEdit(placeholderText=f"Search {name.lower()}")
        self.search.setAccessibleName(f"Search {name.lower()}")
        self.search.setClearButtonEnabled(True)
        self.search.setFixedWidth(190)
        self.search.setProperty("role", "chip")
        self.search.textChanged.connect(self.filter.setFilterFixedString)
        layout = QHBoxLayout(self.bar)
        layout.setContentsMargins(0, 0, 8, 0)
        layout.addWidget(self.search)
        self.table.selectionModel().currentRowChanged.connect(self._chosen)
        self.set_rows(())

    def set_rows(self, rows: Sequence[Row]) -> None:
        self.model.set_rows(rows)
        if rows and not self._fitted:
            self._fit_columns()
        self._stack.setCurrentIndex(0 if rows else 1)
        self.search.setVisible(bool(rows))

    def _fit_columns(self) -> None:
        """Every column as wide as its texts, within its limit; later rows leave it so."""
        self._fitted = True
        for column, limit in enumerate(self._limits):
            needed = self.table.sizeHintForColumn(column) + CELL_MARGIN
            heading = self.table.horizontalHeader().sectionSizeHint(column)
            self.table.setColumnWidth(column, min(max(needed, heading), limit))

    def show_layer(self, layer: str) -> None:
        """Select the first row shown of `layer`, unless one of its rows is selected; no row if it
        has none."""
        current = self.filter.mapToSource(self.table.currentIndex()).row()
        if current >= 0 and self.model.rows[current].layer == layer:
            return
        for row in range(self.filter.rowCount()):
            source = self.filter.mapToSource(self.filter.index(row, 0)).row()
            if self.model.rows[source].layer == layer:
                self.table.selectRow(row)
                return
        self.table.clearSelection()
        self.table.setCurrentIndex(QModelIndex())

    def _chosen(self, current: QModelIndex, previous: QModelIndex) -> None:
        row = self.filter.mapToSource(current).row()
        if row >= 0 and self.model.rows[row].layer:
            self.layer_chosen.emit(self.model.rows[row].layer)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy):
            rows = sorted(index.row() for index in self.table.selectionModel().selectedRows())
            columns = range(self.model.columnCount())
            lines = ["\t".join(str(self.filter.index(r, c).data()) for c in columns) for r in rows]
            QGuiApplication.clipboard().setText("\n".join(lines))
        else:
            super().keyPressEvent(event)
