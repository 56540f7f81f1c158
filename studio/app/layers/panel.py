"""The layer table with its filters and bulk edits."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QPoint, Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent, QKeySequence, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.app import edits
from studio.app.layers.columns import A_OBSERVER, COLUMNS, SCALE
from studio.app.layers.delegate import CellDelegate, Index
from studio.app.layers.filter import LayersFilter
from studio.app.layers.model import LayersModel
from studio.app.session import Session
from studio.app.widgets import label, menu_button
from studio.sim.choices import KINDS, Kind, Question

SQNR_LIMITS = (10, 15, 20, 25, 30, 40)
# What the cells need, and where there is room.
NARROW = (108, 92, 50, 92, 55, 48, 54, 84, 100, 79, 72, 78)
COMFORT = (220, 136, 70, 110, 74, 70, 78, 104, 124, 92, 92, 92)
FIRST_HIDDEN = (A_OBSERVER, SCALE)


class LayersTable(QTableView):
    """Keyboard: arrows move, F2 or Enter edits, Ctrl+A selects all, Ctrl+C copies as TSV."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Layers")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(28)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(48)
        self.setSortingEnabled(True)
        self._fitting = False
        self._widths_chosen = False
        header.sectionResized.connect(self._section_resized)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy):
            QGuiApplication.clipboard().setText(self.selected_text())
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.edit(self.currentIndex())
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.fit_columns()

    def _section_resized(self, column: int, before: int, after: int) -> None:
        by_hand = not self._fitting and column > 0 and before > 0 and after > 0  # 0: hidden
        self._widths_chosen = self._widths_chosen or by_hand

    def fit_columns(self) -> None:
        """All columns in view where that is possible; the name has what the others leave. Where
        there is too little room, those are hidden that the inspector shows as well.

        Columns the user has made wider or narrower stay so.
        """
        room = self.viewport().width()
        hidden: set[int] = set()
        for column in FIRST_HIDDEN:
            if sum(NARROW) - sum(NARROW[other] for other in hidden) > room:
                hidden.add(column)
        self._fitting = True
        for column in FIRST_HIDDEN:
            self.setColumnHidden(column, column in hidden)
        shown = [column for column in range(len(COLUMNS)) if column not in hidden]
        least = sum(NARROW[column] for column in shown)
        most = sum(COMFORT[column] for column in shown)
        share = min(1.0, max(0.0, (room - least) / (most - least)))
        if not self._widths_chosen:
            for column in shown[1:]:
                extra = share * (COMFORT[column] - NARROW[column])
                self.setColumnWidth(column, NARROW[column] + int(extra))
        others = sum(self.columnWidth(column) for column in shown[1:])
        self.setColumnWidth(0, max(NARROW[0], room - others))
        self._fitting = False

    def selected_text(self) -> str:
        """The selected rows as tab-separated values with a heading."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        lines = ["\t".join(column.title for column in COLUMNS)]
        for row in rows:
            cells = (self.model().index(row, column).data() for column in range(len(COLUMNS)))
            lines.append("\t".join(str(cell) for cell in cells))
        return "\n".join(lines)


class LayersPanel(QWidget):
    """`bar` holds the filters and is placed beside the tabs."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._syncing = False
        self.model = LayersModel(session, self)
        self.filter = LayersFilter(self.model, self)
        self.table = LayersTable()
        self.table.setModel(self.filter)
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.delegate = CellDelegate(self._edited, self.table)
        self.table.setItemDelegate(self.delegate)
        self.table.fit_columns()
        self.empty = label("No layer matches the filters.", "muted")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.empty)
        self._build_bar()
        self.table.selectionModel().selectionChanged.connect(self._selection_changed)
        self.table.customContextMenuRequested.connect(self._context_menu)
        session.selection_changed.connect(self._show_selection)
        session.document_changed.connect(self._refresh)
        for signal in (self.filter.rowsInserted, self.filter.rowsRemoved, self.filter.modelReset):
            signal.connect(lambda *_: self._rows_changed())
        self._refresh()

    # -- filters -------------------------------------------------------------------------------

    def _build_bar(self) -> None:
        self.bar = QWidget()
        self.search = QLineEdit(placeholderText="Filter layers")
        self.search.setAccessibleName("Filter layers by name or operator")
        self.search.setClearButtonEnabled(True)
        self.search.setMinimumWidth(84)
        self.search.setMaximumWidth(170)
        self.search.setProperty("role", "chip")
        self.search.textChanged.connect(self.filter.set_text)
        self.limit = menu_button("Filter by SQNR", "chip")
        self.limit.setMenu(QMenu(self.limit))
        self.limit.setText("SQNR")
        self.limit.menu().addAction("Any").triggered.connect(lambda: self.set_limit(None))
        for value in SQNR_LIMITS:
            action = self.limit.menu().addAction(f"below {value} dB")
            action.triggered.connect(lambda _checked=False, value=value: self.set_limit(value))
        self.changed = QToolButton()
        self.changed.setCheckable(True)
        self.changed.setProperty("role", "chip")
        self.changed.setAccessibleName("Show changed layers only")
        self.changed.toggled.connect(self.filter.set_changed_only)
        self.sizes = QToolButton()
        self.sizes.setCheckable(True)
        self.sizes.setProperty("role", "chip")
        self.sizes.setAccessibleName("Show layers that only compute sizes")
        self.sizes.setToolTip("Show the layers that only compute sizes, here and in the graph")
        self.sizes.toggled.connect(self.filter.set_sizes)
        self.bulk = menu_button("Edit the selected layers", "chip")
        self.bulk.setText("Edit")
        self.bulk.setMenu(QMenu(self.bulk))
        self.bulk.menu().aboutToShow.connect(lambda: self.fill_menu(self.bulk.menu()))
        layout = QHBoxLayout(self.bar)
        layout.setContentsMargins(0, 0, 8, 0)
        layout.setSpacing(6)
        for widget in (self.search, self.limit, self.sizes, self.changed, self.bulk):
            layout.addWidget(widget)

    def set_limit(self, decibels: float | None) -> None:
        """Show only layers with an SQNR below `decibels`."""
        self.filter.set_sqnr_below(decibels)
        self.limit.setText("SQNR" if decibels is None else f"SQNR < {decibels} dB")

    def _refresh(self) -> None:
        document = self._session.document
        layers = document.plan.layers if document is not None else ()
        count = sum(bool(layer.changed) for layer in layers)
        self.changed.setText(f"{count} changed")
        self.changed.setVisible(count > 0)
        if not count:
            self.changed.setChecked(False)
        sizes = len(document.shape_layers) if document is not None else 0
        self.sizes.setText(f"{sizes} of sizes")
        self.sizes.setVisible(sizes > 0)
        self.limit.setEnabled(document is not None and document.evaluation is not None)
        self.limit.setToolTip("" if self.limit.isEnabled() else "Known after evaluation.")
        self._rows_changed()
        self._show_selection(self._session.selection)

    def _rows_changed(self) -> None:
        none = self.filter.rowCount() == 0 and self.model.rowCount() > 0
        self.empty.setVisible(none)
        self.table.setVisible(not none)

    # -- selection -----------------------------------------------------------------------------

    def selected_rows(self) -> list[int]:
        """Rows of the model that are selected, in table order."""
        indexes = sorted(self.table.selectionModel().selectedRows(), key=lambda index: index.row())
        return [self.filter.mapToSource(index).row() for index in indexes]

    def chosen_rows(self) -> list[int]:
        """Rows of the model that the session has selected, also those the filters hide."""
        rows = (self.model.row(name) for name in self._session.selection)
        return [row for row in rows if row is not None]

    def _selection_changed(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        if self._syncing:
            return
        names = [self.model.name(row) for row in self.selected_rows()]
        current = self.filter.mapToSource(self.table.currentIndex())
        if current.isValid() and (name := self.model.name(current.row())) in names:
            names.remove(name)
            names.append(name)
        if names:
            self._session.select(tuple(names))

    def _show_selection(self, names: tuple[str, ...]) -> None:
        shown = {self.model.name(row) for row in self.selected_rows()}
        if self._syncing or shown == set(names):
            return
        self._syncing = True
        selection = QItemSelection()
        current = QModelIndex()
        for name in names:
            row = self.model.row(name)
            index = (
                QModelIndex()
                if row is None
                else self.filter.mapFromSource(self.model.index(row, 0))
            )
            if index.isValid():
                selection.select(index, index)
                current = index
        flags = QItemSelectionModel.SelectionFlag
        model = self.table.selectionModel()
        if current.isValid():
            column = max(0, self.table.currentIndex().column())
            model.setCurrentIndex(current.siblingAtColumn(column), flags.NoUpdate)
            self.table.scrollTo(current)
        model.select(selection, flags.ClearAndSelect | flags.Rows)
        self._syncing = False

    # -- edits ---------------------------------------------------------------------------------

    def _edited(self, index: Index, value: str) -> None:
        row = self.filter.mapToSource(index).row()
        rows = self.selected_rows()
        self.model.edit(rows if row in rows else [row], index.column(), value)

    def _context_menu(self, position: QPoint) -> None:
        menu = QMenu(self)
        self.fill_menu(menu)
        menu.exec(self.table.viewport().mapToGlobal(position))
        menu.deleteLater()

    def fill_menu(self, menu: QMenu) -> None:
        """Edits of all selected layers."""
        menu.clear()
        rows = self.chosen_rows()
        names = tuple(self._session.selection)
        for kind in KINDS:
            for question in self._asked(rows, kind):
                submenu = menu.addMenu(f"Set {question.noun}")
                submenu.setToolTipsVisible(True)
                submenu.setEnabled(self._session.editable)
                for choice in question.choices:
                    action = submenu.addAction(choice.text)
                    action.setToolTip(choice.tip)
                    action.triggered.connect(
                        lambda _checked=False, question=question, choice=choice: edits.answer(
                            self._session, names, question, choice
                        )
                    )
        menu.addSeparator()
        for kind, noun in zip(KINDS, ("weights", "activations"), strict=True):
            for on in (True, False):
                action = menu.addAction(f"Quantize {noun}" if on else f"Keep {noun} in float")
                action.setEnabled(bool(rows) and self._session.editable)
                action.triggered.connect(
                    lambda _checked=False, kind=kind, on=on: self._set_enabled(kind, on)
                )
        menu.addSeparator()
        action = menu.addAction("Reset to default")
        action.setEnabled(bool(rows) and self._session.editable)
        action.triggered.connect(lambda: self.reset())

    def _asked(self, rows: list[int], kind: Kind) -> list[Question]:
        """What can be chosen for any of the layers in `rows`: the choices of all of them."""
        document = self._session.document
        if document is None:
            return []
        merged: dict[str, Question] = {}
        for row in rows:
            for question in edits.questions_of(document, document.plan.layers[row], kind):
                before = merged.get(question.name, question).choices
                more = (*before, *question.choices)
                merged[question.name] = replace(question, choices=tuple(dict.fromkeys(more)))
        return list(merged.values())

    def _set_enabled(self, kind: Kind, on: bool) -> None:
        document = self._session.document
        if document is None:
            return
        names = edits.layers_with(document, self._session.selection, f"{kind}_bits")
        if names:
            noun = "weight" if kind == "weight" else "activation"
            words = edits.describe_edit(names, f"{noun} quantization", "on" if on else "off")
            self._session.edit(
                words, lambda document: edits.set_layers(document, names, **{f"{kind}_enabled": on})
            )

    def reset(self) -> None:
        """Give the selected layers the default settings."""
        names = list(self._session.selection)
        what = names[0] if len(names) == 1 else f"{len(names)} layers"
        self._session.edit(f"Reset {what}", lambda document: edits.reset_layers(document, names))
