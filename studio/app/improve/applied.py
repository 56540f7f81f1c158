"""What was applied to the model so far, and what each technique did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from studio.app import text
from studio.app.session import Session
from studio.app.text_table import Row, TextTable
from studio.app.widgets import fit_list, label, line

if TYPE_CHECKING:
    from studio.project.document import Applied, Document

LIST_HEIGHT = 120
TITLES = ("Layer", "What", "Before", "After")
EMPTY = (
    "Nothing has been applied yet. What is applied, and what it did, is listed here; "
    "Undo takes it back."
)


def title_of(applied: Applied) -> str:
    from studio.project.techniques import TECHNIQUES

    known = TECHNIQUES.get(applied.technique)
    return known.title if known is not None else applied.technique


def options_text(applied: Applied) -> str:
    """The options that are not the defaults: `epochs 8 · ranges fixed`."""
    from studio.project.techniques import TECHNIQUES

    known = TECHNIQUES.get(applied.technique)
    defaults = known.options().model_dump(mode="json") if known is not None else {}
    parts = [
        f"{name.replace('_', ' ')} {_words(value)}"
        for name, value in applied.options.items()
        if value != defaults.get(name)
    ]
    return " · ".join(parts) or "With the default options."


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def report_rows(applied: Applied) -> list[Row]:
    """A row for each layer: what was done and the measure before and after."""
    return [
        Row(
            (row.layer, row.what, _measure(row.before), _measure(row.after)),
            row.layer,
            keys=(row.layer, row.what, row.before or 0.0, row.after or 0.0),
        )
        for row in applied.rows
    ]


def _measure(value: float | None) -> str:
    return "" if value is None else text.number(value)


class AppliedView(QWidget):
    """The list, and below it the report of the chosen one. `layer_chosen` carries the layer of the
    chosen row of the report."""

    layer_chosen = Signal(str)
    curves_wanted = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._applied: tuple[Applied, ...] = ()
        self.empty = label(EMPTY, "muted", wrap=True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.list = QListWidget()
        self.list.setAccessibleName("What was applied")
        self.list.currentRowChanged.connect(self._show_report)
        self.title = label("", "heading", wrap=True)
        self.summary = label("", wrap=True)
        self.options = label("", "muted", wrap=True)
        self.curves = QPushButton("Show curves")
        self.curves.setProperty("role", "chip")
        self.curves.setToolTip("Show how the training went")
        self.curves.clicked.connect(self.curves_wanted)
        self.measure = label("", "muted", wrap=True)
        self.table = TextTable("Report", TITLES, (116, 90, 64), "")
        self.table.layer_chosen.connect(self.layer_chosen)
        self.report = QWidget()
        column = QVBoxLayout(self.report)
        column.setContentsMargins(0, 6, 0, 0)
        column.setSpacing(6)
        for widget in (line(), self.title, self.summary, self.options):
            column.addWidget(widget)
        column.addWidget(self.curves, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self.measure)
        column.addWidget(self.table, 1)
        self._rest = QWidget()
        column.addWidget(self._rest, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 12, 14, 8)
        layout.setSpacing(6)
        layout.addWidget(label("APPLIED", "caption"))
        layout.addWidget(self.empty, 1)
        layout.addWidget(self.list)
        layout.addWidget(self.report, 1)
        session.document_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what was applied to the session's document."""
        document: Document | None = self._session.document
        applied = document.applied if document is not None else ()
        if applied is not self._applied:
            self._applied = applied
            self.list.clear()
            for number, item in enumerate(applied, 1):
                entry = QListWidgetItem(f"{number}  {title_of(item)}")
                entry.setToolTip(item.summary)
                self.list.addItem(entry)
            fit_list(self.list, LIST_HEIGHT)
            self.list.setCurrentRow(len(applied) - 1)
        self.empty.setVisible(not applied)
        self.list.setVisible(bool(applied))
        self.report.setVisible(bool(applied))

    def _show_report(self, row: int) -> None:
        if not 0 <= row < len(self._applied):
            return
        applied = self._applied[row]
        self.title.setText(title_of(applied))
        self.summary.setText(f"{applied.summary[:1].upper()}{applied.summary[1:]}.")
        self.options.setText(options_text(applied))
        self.curves.setVisible(applied.training is not None)
        self.measure.setText(f"Before and after: {applied.measure}.")
        self.measure.setVisible(bool(applied.rows and applied.measure))
        self.table.set_rows(report_rows(applied))
        self.table.setVisible(bool(applied.rows))
        self._rest.setVisible(not applied.rows)
