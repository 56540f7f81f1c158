"""What was applied to the model so far, and what each technique did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from studio.app import text
from studio.app.improve.chart import ChartPlot
from studio.app.session import Session
from studio.app.text_table import Row, TextTable
from studio.app.widgets import fit_list, label, line

if TYPE_CHECKING:
    from studio.project.document import Document
    from studio.techniques.applied import Applied
    from studio.techniques.technique import Point

LIST_HEIGHT = 120
TABLE_HEIGHT = 176
LAYER, STEP = "Layer", "Step"
TITLES = (LAYER, "What", "Before", "After")
EMPTY = (
    "Nothing has been applied yet. What is applied, and what it did, is listed here; "
    "Undo takes it back."
)


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


def point_blocked(document: Document | None, point: Point | None) -> str:
    """Why the settings of `point` cannot be taken over; "" if they can."""
    if point is None:
        return "Click a point first."
    if document is None or point.settings is None:
        return "This point is no choice of settings."
    known = {layer.name: layer.settings for layer in document.plan.layers}
    if not point.settings.keys() <= known.keys():
        return "These layers are not in the model any more."
    if all(
        getattr(known[name], key) == value
        for name, settings in point.settings.items()
        for key, value in settings.items()
    ):
        return "The layers have these settings."
    return ""


def use_point(session: Session, point: Point) -> bool:
    """One undoable edit: the settings that `point` was measured with."""
    settings = point.settings or {}

    def change(document: Document) -> Document:
        from studio.sim.overrides import with_settings

        return document.with_config(with_settings(document.graph, document.config, settings))

    return session.edit(f"Use the point {point.label}", change)


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
        self.chart = ChartPlot()
        self.chart.picked.connect(lambda _index: self._show_point())
        self.use = QPushButton("Use this point")
        self.use.setProperty("role", "chip")
        self.use.clicked.connect(self._use_point)
        self.about_point = label("", "muted", wrap=True)
        self.measure = label("", "muted", wrap=True)
        self.table = TextTable("Report", TITLES, (116, 112, 54), "")
        self.table.setMinimumHeight(TABLE_HEIGHT)
        self.table.layer_chosen.connect(self.layer_chosen)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 6, 10, 0)
        column.setSpacing(6)
        for widget in (line(), self.title, self.summary, self.options):
            column.addWidget(widget)
        column.addWidget(self.curves, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self.chart, 1)
        column.addWidget(self.about_point)
        column.addWidget(self.use, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self.measure)
        column.addWidget(self.table, 1)
        self._rest = QWidget()
        column.addWidget(self._rest, 1)
        self.report = QScrollArea()
        self.report.setWidgetResizable(True)
        self.report.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.report.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.report.setWidget(inside)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 12, 4, 8)
        layout.setSpacing(6)
        layout.addWidget(label("APPLIED", "caption"))
        layout.addWidget(self.empty, 1)
        layout.addWidget(self.list)
        layout.addWidget(self.report, 1)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self._show_point)
        self.refresh()

    def refresh(self) -> None:
        """Show what was applied to the session's document."""
        document: Document | None = self._session.document
        applied = document.applied if document is not None else ()
        if applied is not self._applied:
            self._applied = applied
            self.list.clear()
            for number, item in enumerate(applied, 1):
                entry = QListWidgetItem(f"{number}  {item.heading}")
                entry.setToolTip(item.summary)
                self.list.addItem(entry)
            fit_list(self.list, LIST_HEIGHT)
            self.list.setCurrentRow(len(applied) - 1)
        self.empty.setVisible(not applied)
        self.list.setVisible(bool(applied))
        self.report.setVisible(bool(applied))
        self._show_point()

    def _show_report(self, row: int) -> None:
        if not 0 <= row < len(self._applied):
            return
        applied = self._applied[row]
        self.title.setText(applied.heading)
        self.summary.setText(f"{applied.summary[:1].upper()}{applied.summary[1:]}.")
        self.options.setText(applied.options_text or "With the default options.")
        self.curves.setVisible(applied.training is not None)
        self.chart.setVisible(applied.chart is not None)
        if applied.chart is not None:
            self.chart.set_chart(applied.chart)
        self._show_point()
        self.measure.setText(f"Before and after: {applied.measure}.")
        self.measure.setVisible(bool(applied.rows and applied.measure))
        document = self._session.document
        layers = {layer.name for layer in document.plan.layers} if document is not None else set()
        of_layers = not applied.rows or any(row.layer in layers for row in applied.rows)
        self.table.model.set_title(0, LAYER if of_layers else STEP)
        self.table.set_rows(report_rows(applied))
        self.table.setVisible(bool(applied.rows))
        self._rest.setVisible(not applied.rows and applied.chart is None)

    def _show_point(self) -> None:
        """Say what the picked point is, and whether it can be used."""
        point = None if self.chart.isHidden() else self.chart.point
        self.about_point.setText("" if point is None else point.note)
        self.about_point.setVisible(point is not None and bool(point.note))
        chart = not self.chart.isHidden()
        self.use.setVisible(chart and self.chart.usable)
        reason = "" if self._session.editable else f"{self._session.job_step} is running."
        reason = reason or point_blocked(self._session.document, point)
        self.use.setEnabled(not reason)
        self.use.setToolTip(reason or "Give the layers the bits of this point: one undoable edit")

    def _use_point(self) -> None:
        if self.chart.point is not None:
            use_point(self._session, self.chart.point)
