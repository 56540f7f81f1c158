"""Which layers the target computes in integers and which in float, and why, before exporting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from studio.app import text
from studio.app.layers.columns import RUNS
from studio.app.session import Session
from studio.app.text_table import Row, TextTable
from studio.app.widgets import label, line

if TYPE_CHECKING:
    from studio.analysis.forecast import Forecast, LayerForecast
    from studio.exporting.summary import KernelCheck
    from studio.project.document import Document

TITLES = ("Runs in", "Layer", "Ops", "Kernel", "After export", "Why, and what would help")
FILTERS = {
    "All": frozenset(RUNS),
    "Float": frozenset(["float"]),
    "Integers": frozenset(["integer", "integer weights"]),
}
ORDER = {"float": 0, "integer weights": 1, "integer": 2, "absorbed": 3}


def forecast_rows(forecast: Forecast, document: Document | None = None) -> list[Row]:
    """A row for each layer; what onnxruntime really ran beside it, once it was exported."""
    checks: dict[str, KernelCheck] = {}
    export = document.export if document is not None else None
    if export is not None and export.verification is not None:
        checks = {check.layer: check for check in export.verification.kernels}
    hidden = document.shape_layers if document is not None else frozenset()
    return [
        _row(layer, checks.get(layer.layer))
        for layer in forecast.layers
        if layer.layer not in hidden
    ]


def _row(layer: LayerForecast, check: KernelCheck | None) -> Row:
    runs = layer.runs.value
    why = text.sentences(layer.reason, layer.hint, layer.warning)
    after = ""
    if check is not None:
        ran = f"{check.kernel or 'nothing'} ({RUNS[check.runs.value]})"
        after = "as forecast" if check.as_forecast else ran
    bad = runs == "float" or bool(layer.warning) or (check is not None and not check.as_forecast)
    cells = (RUNS[runs], layer.layer, layer.title, layer.kernel, after, why)
    keys: tuple[str | float, ...] = (ORDER[runs], *cells[1:])
    return Row(
        cells, layer.layer, "warn" if bad else "good" if runs == "integer" else "muted", keys
    )


def summary_text(forecast: Forecast, rows: list[Row]) -> str:
    """`41 of 43 layers run in integers, 2 in float.`"""
    shown = [row.cells[0] for row in rows if row.cells[0] != RUNS["absorbed"]]
    counts = {runs: shown.count(words) for runs, words in RUNS.items()}
    parts = [f"{counts['integer']} of {text.plural(len(shown), 'layer')} in integers"]
    if counts["integer weights"]:
        parts.append(f"{counts['integer weights']} with integer weights and float activations")
    parts.append(f"{counts['float']} in float" if counts["float"] else "none in float")
    absorbed = len(rows) - len(shown)
    rest = f" · {absorbed} become part of others" if absorbed else ""
    return f"Expected on {forecast.target}: {', '.join(parts)}{rest}"


class ForecastPanel(QWidget):
    """`bar` has the filters; `counted` carries the number of layers in float."""

    counted = Signal(int)
    layer_chosen = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._rows: list[Row] = []
        self._filter = "All"
        self.summary = label("", "muted")
        self.summary.setContentsMargins(14, 7, 14, 7)
        widths = (90, 240, 150, 170, 150)
        self.table = TextTable("Forecast", TITLES, widths, "No layer runs like that.")
        self.bar = QWidget()
        self.buttons = QButtonGroup(self)
        tools = QHBoxLayout(self.bar)
        tools.setContentsMargins(0, 0, 0, 0)
        tools.setSpacing(4)
        for index, name in enumerate(FILTERS):
            button = QPushButton(name)
            button.setCheckable(True)
            button.setChecked(index == 0)
            button.setProperty("role", "chip")
            self.buttons.addButton(button, index)
            tools.addWidget(button)
        tools.addWidget(self.table.bar)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.summary)
        layout.addWidget(line())
        layout.addWidget(self.table, 1)
        self.table.layer_chosen.connect(self.layer_chosen)
        self.buttons.idClicked.connect(lambda index: self.show_only(list(FILTERS)[index]))
        session.forecasts.changed.connect(self.refresh)
        session.document_changed.connect(self.refresh)
        self.refresh()

    def show_only(self, name: str) -> None:
        """Show the rows of the filter `name`."""
        self._filter = name
        self._show()

    def refresh(self) -> None:
        """Show the forecast for the document as it is."""
        forecasts, document = self._session.forecasts, self._session.document
        found = forecasts.current
        self._rows = forecast_rows(found, document) if found is not None else []
        waiting = forecasts.problem or "Working out how each layer will run …"
        self.summary.setText(summary_text(found, self._rows) if found is not None else waiting)
        self._show()
        self.counted.emit(sum(row.cells[0] == RUNS["float"] for row in self._rows))

    def _show(self) -> None:
        wanted = {RUNS[runs] for runs in FILTERS[self._filter]}
        self.table.set_rows([row for row in self._rows if row.cells[0] in wanted])
        exported = any(row.cells[TITLES.index("After export")] for row in self._rows)
        self.table.table.setColumnHidden(TITLES.index("After export"), not exported)
        for button, name in zip(self.buttons.buttons(), FILTERS, strict=True):
            chosen = {RUNS[runs] for runs in FILTERS[name]}
            button.setText(f"{name} {sum(row.cells[0] in chosen for row in self._rows)}")
