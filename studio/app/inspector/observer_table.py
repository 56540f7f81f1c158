"""All calibration methods on one tensor, beside each other; a click chooses one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QColor, QFont, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.app import tasks, text
from studio.app.session import Session
from studio.app.theme import current_theme, notifier
from studio.app.widgets import label
from studio.errors import CancelledError, StudioError
from studio.sim.choices import OBSERVERS

if TYPE_CHECKING:
    from studio.jobs import Job
    from studio.quant.observers.compare import ObserverResult

TITLES = ("Observer", "min", "max", "SQNR")
ROW = 24
ALIGNMENT = (
    Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter,
    Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter,
)
BEST_MARGIN_DB = 0.05
"""Methods this near the best one are as good."""


class ObserverTable(QTableWidget):
    """`chosen` carries the name of the method that was clicked or entered, `looked_at` that of the
    one under the mouse ("": none)."""

    chosen = Signal(str)
    looked_at = Signal(str)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(0, len(TITLES), parent)
        self.setAccessibleName(name)
        self.results: tuple[ObserverResult, ...] = ()
        self._current = ""
        self.setHorizontalHeaderLabels(TITLES)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.setMouseTracking(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(40)
        for column, title in enumerate(TITLES):
            item = QTableWidgetItem(title)
            item.setTextAlignment(ALIGNMENT[column > 0])
            self.setHorizontalHeaderItem(column, item)
        for column, width in ((1, 62), (2, 62), (3, 60)):
            self.setColumnWidth(column, width)
        self.setProperty("role", "small")
        self.cellClicked.connect(lambda row, _column: self._choose(row))
        self.cellEntered.connect(lambda row, _column: self._look_at(row))
        self.currentCellChanged.connect(lambda row, *_: self._look_at(row))
        notifier.theme_changed.connect(self._theme_changed)

    def show_results(self, results: tuple[ObserverResult, ...], current: str) -> None:
        """Show `results`; `current` is the method in force."""
        self.results, self._current = results, current
        self._fill()

    def _theme_changed(self, _theme: object) -> None:
        self._fill()

    def _fill(self) -> None:
        self.blockSignals(True)
        self.setRowCount(len(self.results))
        good = [result.sqnr_db for result in self.results]
        limit = max(good, default=0.0) - BEST_MARGIN_DB
        differ = min(good, default=0.0) < limit
        for row, result in enumerate(self.results):
            self._fill_row(row, result, differ and result.sqnr_db >= limit)
        at = next((i for i, item in enumerate(self.results) if item.observer == self._current), -1)
        self.setCurrentCell(at, 0)
        self.blockSignals(False)
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + ROW * self.rowCount() + 4)

    def _fill_row(self, row: int, result: ObserverResult, best: bool) -> None:
        shown, tip = OBSERVERS[result.observer]
        in_force = result.observer == self._current
        cells = (
            f"{'✓ ' if in_force else ''}{shown}",
            text.number(result.minimum, 3),
            text.number(result.maximum, 3),
            ("★ " if best else "") + text.decibels(result.sqnr_db, unit=False),
        )
        words = (
            f"{tip}.\nClips {100 * result.clipped:.2g} % of the values · mean squared error "
            f"{text.number(result.mse, 3)} · {text.decibels(result.sqnr_db)}"
        )
        if best:
            words += ", the best here (★)"
        for column, cell in enumerate(cells):
            item = QTableWidgetItem(cell)
            item.setToolTip(words if in_force else f"{words}\nClick to choose it.")
            if column:
                item.setTextAlignment(ALIGNMENT[True])
            font = QFont(self.font())
            font.setPixelSize(12)
            font.setWeight(QFont.Weight.DemiBold if in_force else QFont.Weight.Normal)
            item.setFont(font)
            item.setForeground(self._color(column, in_force, best))
            self.setItem(row, column, item)

    def _color(self, column: int, in_force: bool, best: bool) -> QColor:
        theme = current_theme()
        if column == len(TITLES) - 1 and best:
            return theme.color("good")
        return theme.color("text" if in_force or not column else "muted")

    def _choose(self, row: int) -> None:
        if 0 <= row < len(self.results) and self.results[row].observer != self._current:
            self.chosen.emit(self.results[row].observer)

    def _look_at(self, row: int) -> None:
        if 0 <= row < len(self.results):
            self.looked_at.emit(self.results[row].observer)

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.looked_at.emit("")

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        if not self.indexAt(event.position().toPoint()).isValid():
            self.looked_at.emit("")

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._choose(self.currentRow())
        else:
            super().keyPressEvent(event)


class ObserverComparison(QWidget):
    """Folded until it is asked for; worked out in the background for the tensor shown.

    `compared` says that `results` are others; `chosen` and `looked_at` as in the table.
    """

    chosen = Signal(str)
    looked_at = Signal(str)
    compared = Signal()

    def __init__(self, session: Session, what: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._tensor = ""
        self._current = ""
        self._made_for: tuple[object, ...] | None = None
        self._job: Job[Any] | None = None
        self.results: tuple[ObserverResult, ...] = ()
        self.button = QToolButton()
        self.button.setText("Compare observers")
        self.button.setCheckable(True)
        self.button.setProperty("role", "chip")
        self.button.setAccessibleName(f"Compare observers of the {what}")
        self.button.setToolTip("Range and error of every calibration method, without the data")
        self.button.toggled.connect(lambda _on: self._refresh())
        self.table = ObserverTable(f"Observers of the {what}")
        self.state = label("", "muted", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.button, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.table)
        layout.addWidget(self.state)
        self.table.chosen.connect(self.chosen)
        self.table.looked_at.connect(self.looked_at)
        self.show_tensor("", "")

    def show_tensor(self, tensor: str, observer: str) -> None:
        """Compare for `tensor` ("": nothing to compare), whose method in force is `observer`."""
        self._tensor, self._current = tensor, observer
        self.setVisible(bool(tensor))
        self._refresh()

    def _key(self) -> tuple[object, ...] | None:
        document = self._session.document
        row = document.plan.tensors.get(self._tensor) if document is not None else None
        if document is None or row is None or row.spec is None:
            return None
        spec = row.spec
        kind = (spec.grid, spec.axis, spec.block_size, spec.lpbq, spec.percentile)
        return (self._tensor, id(document.graph.ir), id(document.calibration), kind)

    def _refresh(self) -> None:
        key, on = self._key(), self.button.isChecked()
        if key is None or not on:
            self._set((), None)
            self._show(False, "")
        elif key == self._made_for:
            self.table.show_results(self.results, self._current)
            self._show(True, self._legend())
        else:
            self._set((), None)
            self._show(False, "Comparing …")
            self._start(key)

    def _set(self, results: tuple[ObserverResult, ...], key: tuple[object, ...] | None) -> None:
        changed = results != self.results
        self.results, self._made_for = results, key
        if changed:
            self.compared.emit()

    def _start(self, key: tuple[object, ...]) -> None:
        document = self._session.document
        assert document is not None
        if self._job is not None:
            self._session.forget(self._job)

        def done(results: tuple[ObserverResult, ...]) -> None:
            self._job = None
            if key == self._key():
                self._set(results, key)
                self.table.show_results(results, self._current)
                nothing = "All values are equal: there is nothing to compare."
                self._show(bool(results), self._legend() if results else nothing)

        def failed(error: StudioError) -> None:
            self._job = None
            if not isinstance(error, CancelledError):
                self._show(False, error.message)

        work = tasks.compare_observers(document, self._tensor)
        self._job = self._session.aside("compare observers", work, done, failed)

    def _legend(self) -> str:
        good = [result.sqnr_db for result in self.results]
        if max(good) - min(good) <= BEST_MARGIN_DB:
            return "All methods are equally good for this tensor."
        return "SQNR in dB of this tensor alone, ★ best. A click chooses the observer."

    def _show(self, table: bool, words: str) -> None:
        self.table.setVisible(table)
        self.state.setText(words)
        self.state.setVisible(bool(words))
