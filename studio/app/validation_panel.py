"""What to know about the model before calibrating it: totals, findings, cost of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.app import tasks, text
from studio.app.session import Session
from studio.app.text_table import Row, TextTable
from studio.app.widgets import elided, label, line
from studio.errors import CancelledError, StudioError

if TYPE_CHECKING:
    from studio.analysis.validation import Validation
    from studio.jobs import Job
    from studio.project.document import Document
    from studio.project.validation import Measured

FINDING_TITLES = ("Severity", "About", "What")
COST_TITLES = ("Layer", "Ops", "MACs", "Bit-operations", "Weights", "Quantized", "Runs in")
FLOAT_TITLES = ("Tensors", "Why they stay float", "Which")
ROLES = {"error": "bad", "warning": "warn", "note": "muted"}
DELAY_MS = 250


def finding_rows(report: Validation) -> list[Row]:
    order = {"error": 0, "warning": 1, "note": 2}
    rows = []
    for finding in report.findings:
        severity = finding.severity.value
        words = f"{finding.message} {finding.hint}".strip()
        cells = (severity, finding.topic, words)
        rows.append(Row(cells, finding.layer, ROLES[severity], (order[severity], *cells[1:])))
    return rows


def cost_rows(report: Validation) -> list[Row]:
    rows = []
    for layer in report.layers:
        cost = layer.cost
        runs = f"float: {layer.reason}" if layer.reason else "integers"
        cells = (
            layer.name,
            layer.title,
            "?" if cost.macs is None else text.count(cost.macs),
            "?" if cost.bit_operations is None else text.count(cost.bit_operations),
            text.size(cost.float_bytes),
            text.size(cost.quantized_bytes),
            runs,
        )
        numbers = (cost.macs, cost.bit_operations, cost.float_bytes, cost.quantized_bytes)
        sizes = tuple(-1.0 if number is None else float(number) for number in numbers)
        keys: tuple[str | float, ...] = (*cells[:2], *sizes, runs)
        rows.append(Row(cells, layer.name, keys=keys))
    return rows


def float_rows(report: Validation) -> list[Row]:
    rows = []
    for group in report.float_tensors:
        count = len(group.tensors)
        names = ", ".join(group.tensors[:20]) + (" …" if count > 20 else "")
        rows.append(Row((str(count), group.reason, names), keys=(count, group.reason, names)))
    return rows


def totals(report: Validation) -> list[tuple[str, str, str]]:
    """(caption, figure, what it means) of the tiles."""
    share = 100 * report.integer_macs / report.macs if report.macs else 0.0
    unknown = len(report.unknown_macs)
    known = f" Without {text.plural(unknown, 'layer')} of unknown shape." if unknown else ""
    smaller = f"{text.size(report.float_bytes)} → {text.size(report.quantized_bytes)}"
    macs, integers, operations = "?", "?", "?"
    if report.costs_known:
        macs, operations = text.count(report.macs), text.count(report.bit_operations)
        integers = text.percent(share)
    return [
        ("MACs", macs, f"Multiply-accumulates of one sample.{known}"),
        (
            "IN INTEGERS",
            integers,
            f"Share of the MACs {report.target} runs in integers.",
        ),
        ("BIT-OPERATIONS", operations, "MACs × bits of both operands."),
        ("WEIGHTS", smaller, "Constants in float, and at their planned bits without scales."),
    ]


class Tile(QWidget):
    """A caption and a figure."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        self.caption = label("", "caption")
        self.figure = elided("", "total")
        layout.addWidget(self.caption)
        layout.addWidget(self.figure)

    def show_total(self, caption: str, figure: str, tip: str) -> None:
        self.caption.setText(caption)
        self.figure.setText(figure)
        self.setToolTip(tip)
        self.setAccessibleName(f"{caption.title()}: {figure}")


class ValidationPanel(QWidget):
    """Made anew, in the background, whenever it is looked at and model, data or settings changed.

    `bar` chooses the table; `counted` carries the number of errors and warnings.
    """

    counted = Signal(int)
    layer_chosen = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._job: Job[Any] | None = None
        self._measured: tuple[object, object, Measured] | None = None
        self._shown_for: tuple[object, ...] | None = None
        self.report: Validation | None = None
        self.tiles = [Tile() for _ in range(4)]
        self.tables = {
            "Findings": TextTable("Findings", FINDING_TITLES, (90, 110), "Nothing to remark."),
            "Layers": TextTable("Costs", COST_TITLES, (260, 170, 90, 120, 90, 90), "No layers."),
            "Float tensors": TextTable(
                "Float tensors", FLOAT_TITLES, (80, 420), "Every tensor is quantized."
            ),
        }
        self.state = label("", "muted")
        self.stack = QStackedWidget()
        self.bar = QWidget()
        self.buttons = QButtonGroup(self)
        self._build()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self._start)
        session.document_changed.connect(self._changed)

    def _build(self) -> None:
        tools = QHBoxLayout(self.bar)
        tools.setContentsMargins(0, 0, 8, 0)
        tools.setSpacing(4)
        searches = QStackedWidget()
        for index, (name, table) in enumerate(self.tables.items()):
            button = QPushButton(name)
            button.setCheckable(True)
            button.setChecked(index == 0)
            button.setProperty("role", "chip")
            self.buttons.addButton(button, index)
            tools.addWidget(button)
            self.stack.addWidget(table)
            searches.addWidget(table.bar)
            table.layer_chosen.connect(self.layer_chosen)
        searches.setMaximumWidth(206)
        tools.addWidget(searches)
        self.buttons.idClicked.connect(self.stack.setCurrentIndex)
        self.buttons.idClicked.connect(searches.setCurrentIndex)
        head = QHBoxLayout()
        head.setContentsMargins(14, 8, 14, 8)
        head.setSpacing(24)
        for tile in self.tiles:
            head.addWidget(tile, 2)
        head.addWidget(self.state, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(head)
        layout.addWidget(line())
        layout.addWidget(self.stack, 1)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._changed()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _changed(self) -> None:
        document = self._session.document
        if document is None:
            self._forget()
        elif self.isVisible() and self._key(document) != self._shown_for:
            self._say("Checking …")
            self._timer.start()

    @staticmethod
    def _key(document: Document) -> tuple[object, ...]:
        return (document.graph, document.data, document.config)

    def _forget(self) -> None:
        self._timer.stop()
        if self._job is not None:
            self._session.forget(self._job)
        self._job, self._measured, self._shown_for, self.report = None, None, None, None

    def _start(self) -> None:
        document = self._session.document
        if document is None:
            return
        if self._job is not None:
            self._session.forget(self._job)
        measured = None
        if self._measured is not None and self._measured[:2] == (document.graph, document.data):
            measured = self._measured[2]

        def done(result: tuple[Measured, Validation]) -> None:
            self._job = None
            self._measured = (document.graph, document.data, result[0])
            self._shown_for = self._key(document)
            self.show_report(result[1])
            self._changed()  # settings may have changed meanwhile

        def failed(error: StudioError) -> None:
            self._job = None
            if not isinstance(error, CancelledError):
                self._shown_for = self._key(document)
                self._say(error.message)

        work = tasks.validate(document, measured)
        self._job = self._session.aside("validate", work, done, failed)

    def _say(self, words: str) -> None:
        self.state.setText(words)

    def show_report(self, report: Validation) -> None:
        """Fill tiles and tables."""
        self.report = report
        for tile, total in zip(self.tiles, totals(report), strict=True):
            tile.show_total(*total)
        rows = (finding_rows(report), cost_rows(report), float_rows(report))
        for button, (name, table), found in zip(
            self.buttons.buttons(), self.tables.items(), rows, strict=True
        ):
            table.set_rows(found)
            button.setText(f"{name} {len(found)}")
        self._say("")
        self.counted.emit(len([row for row in rows[0] if row.role != "muted"]))
