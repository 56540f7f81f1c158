"""Which layers the loss comes from: analyse, look, choose the layer everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.app import text
from studio.app.actions import Actions
from studio.app.overlay import layer_sensitivity, sensitivity_scale
from studio.app.sensitivity.measures import MEASURES, Measure
from studio.app.sensitivity.plot import Bar, SensitivityPlot
from studio.app.sensitivity.rows import (
    LAYER_TITLES,
    OUTLIER_TITLES,
    layer_rows,
    outlier_rows,
    totals,
)
from studio.app.session import Session
from studio.app.text_table import TextTable
from studio.app.theme import ramp
from studio.app.validation_panel import Tile
from studio.app.widgets import label, line, menu_button
from studio.jobs import Progress

if TYPE_CHECKING:
    from studio.analysis.sensitivity_figures import LayerSensitivity, Sensitivity

STEP = "Analysing"
ABOUT = (
    "Which layers does the loss come from? Each layer is quantized alone, then left in float "
    "alone, and the model's outputs are compared with those in float."
)
ALONE, ALONE_TOP1, LEFT, LEFT_TOP1 = 1, 2, 3, 4


class SensitivityPanel(QWidget):
    """`bar` chooses the table and what the plot shows."""

    layer_chosen = Signal(str)

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: Sensitivity | None = None
        self._measure = MEASURES["alone"]
        self._following = False
        self.tiles = [Tile() for _ in range(3)]
        self.tables = {
            "Layers": TextTable(
                "Sensitivity", LAYER_TITLES, (180, 80, 66, 84, 66, 80), "No layers."
            ),
            "Outliers": TextTable(
                "Outlier channels",
                OUTLIER_TITLES,
                (150, 160, 70, 80, 100),
                "No tensor with one scale has outlier channels.",
            ),
        }
        self.plot = SensitivityPlot()
        self.analyse = self._button(actions)
        self.again = QPushButton("Analyse again")
        self.again.setProperty("role", "chip")
        self.cancel = QPushButton("Cancel")
        self.state = label("", "muted", wrap=True)
        self.note = label("", "muted", wrap=True)
        self.measure = menu_button("What the plot shows", "chip")
        self.sorted = QPushButton("Worst first")
        self.buttons = QButtonGroup(self)
        self.searches = QStackedWidget()
        self.stack = QStackedWidget()
        self.pages = QStackedWidget()
        self.bar = QWidget()
        self._build_bar()
        self._build_plot()
        self._build()
        self.again.clicked.connect(self._start)
        self.analyse.clicked.connect(self._start)
        self.cancel.clicked.connect(session.cancel)
        self.plot.selected.connect(self._choose)
        for table in self.tables.values():
            table.layer_chosen.connect(self._choose)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        session.progress.connect(self._show_progress)
        session.selection_changed.connect(lambda _names: self._follow())
        self.refresh()

    # -- building ------------------------------------------------------------------------------

    def _button(self, actions: Actions) -> QPushButton:
        button = QPushButton("Analyse")
        button.setProperty("role", "primary")
        button.setToolTip(actions["analyse"].toolTip())
        return button

    def _build_bar(self) -> None:
        layout = QHBoxLayout(self.bar)
        layout.setContentsMargins(0, 0, 8, 0)
        layout.setSpacing(4)
        for index, (name, table) in enumerate(self.tables.items()):
            button = QPushButton(name)
            button.setCheckable(True)
            button.setChecked(index == 0)
            button.setProperty("role", "chip")
            self.buttons.addButton(button, index)
            layout.addWidget(button)
            self.stack.addWidget(table)
            self.searches.addWidget(table.bar)
        self.searches.setMaximumWidth(206)
        layout.addWidget(self.searches)
        self.buttons.idClicked.connect(self.stack.setCurrentIndex)
        self.buttons.idClicked.connect(self.searches.setCurrentIndex)
        # Outlier channels say what helps, which needs the room.
        self.buttons.idClicked.connect(lambda index: self.plot.setVisible(index == 0))

    def _build_plot(self) -> None:
        self.measure.setMenu(QMenu(self.measure))
        for measure in MEASURES.values():
            action = self.measure.menu().addAction(measure.title)
            action.triggered.connect(lambda _on, name=measure.name: self.show_measure(name))
        self.sorted.setCheckable(True)
        self.sorted.setProperty("role", "chip")
        self.sorted.setToolTip("Sort the bars by harm, instead of in the order the layers run")
        self.sorted.toggled.connect(lambda _on: self._draw())
        self.plot.header.setSpacing(4)
        self.plot.header.addWidget(self.measure)
        self.plot.header.addWidget(self.sorted)
        self.plot.setMinimumWidth(318)

    def _build(self) -> None:
        head = QHBoxLayout()
        head.setContentsMargins(14, 8, 14, 8)
        head.setSpacing(24)
        for tile in self.tiles:
            head.addWidget(tile, 3)
        head.addWidget(self.note, 3)
        head.addWidget(self.again)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self.stack)
        self.split.addWidget(self.plot)
        self.stack.setMinimumWidth(280)
        self.split.setSizes([640, 340])
        self.split.setStretchFactor(0, 2)
        self.split.setStretchFactor(1, 1)
        results = QWidget()
        column = QVBoxLayout(results)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(line())
        column.addWidget(self.split, 1)
        self.pages.addWidget(self._start_page())
        self.pages.addWidget(results)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.pages)

    def _start_page(self) -> QWidget:
        page = QWidget()
        about = label(ABOUT, "", wrap=True)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addWidget(self.analyse)
        buttons.addWidget(self.cancel)
        buttons.addWidget(self.state, 1)
        column = QVBoxLayout(page)
        column.setContentsMargins(18, 16, 18, 16)
        column.setSpacing(12)
        about.setMaximumWidth(620)
        column.addWidget(about)
        column.addLayout(buttons)
        column.addStretch(1)
        return page

    # -- what is shown -------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the document's figures, or how to get them."""
        session, document = self._session, self._session.document
        found = document.sensitivity if document is not None else None
        running = session.busy and session.job_step == STEP
        reason = self._blocked()
        show_results = found is not None and not running
        self.pages.setCurrentIndex(1 if show_results else 0)
        for widget in (self.searches, *self.buttons.buttons()):
            widget.setVisible(show_results)
        self.analyse.setVisible(not running)
        self.analyse.setEnabled(not reason)
        self.again.setEnabled(not reason)
        self.again.setToolTip(reason or "Measure the layers again")
        self.cancel.setVisible(running)
        self.cancel.setEnabled(session.job is not None and not session.job.cancelling)
        if not running:
            self.state.setText(reason)
        elif session.live_progress is None:
            self.state.setText("Starting …")
        if found is None:
            self._shown = None
        elif found is not self._shown:
            self._show(found)

    def _blocked(self) -> str:
        session, document = self._session, self._session.document
        if document is None:
            return "Open a model first."
        if session.busy:
            return f"{session.job_step} is running."
        if document.calibration is None and not (document.from_file and document.calibrated):
            return "Calibrate first."
        return "" if document.data is not None else "Choose data first."

    def _show_progress(self, event: Progress) -> None:
        if self._session.busy and self._session.job_step == STEP:
            words = text.progress(event.done, event.total, event.detail)
            self.state.setText(words or f"{event.phase} …")

    def _show(self, found: Sensitivity) -> None:
        self._shown = found
        for tile, total in zip(self.tiles, totals(found), strict=True):
            tile.show_total(*total)
        parts = [text.plural(found.samples, "sample")]
        if found.float_top1 is not None:
            parts.append(f"float top-1 {text.percent(found.float_top1)}")
        self.note.setText(text.unbroken(*(["RANDOM DATA"] if found.synthetic else []), *parts))
        self.note.setToolTip(f"Measured on {found.data}")
        rows = (layer_rows(found), outlier_rows(found.outliers))
        for button, (name, table), made in zip(
            self.buttons.buttons(), self.tables.items(), rows, strict=True
        ):
            table.set_rows(made)
            button.setText(f"{name} {len(made)}")
        layers = self.tables["Layers"].table
        no_alone = all(layer.alone is None for layer in found.layers)
        no_left = all(layer.left is None for layer in found.layers)
        layers.setColumnHidden(ALONE, no_alone)
        layers.setColumnHidden(ALONE_TOP1, no_alone or found.float_top1 is None)
        layers.setColumnHidden(LEFT, no_left)
        layers.setColumnHidden(LEFT_TOP1, no_left or found.float_top1 is None)
        self._draw()
        self._follow()

    def show_measure(self, name: str) -> None:
        """Let the plot show one of `MEASURES`."""
        self._measure = MEASURES[name]
        self._draw()

    def _draw(self) -> None:
        self.measure.setText(self._measure.title)
        found = self._shown
        if found is None:
            return
        bars = [(self._bar(found, layer), self._harm(found, layer)) for layer in found.layers]
        if self.sorted.isChecked():
            bars.sort(key=lambda pair: -pair[1])
        measure = self._measure
        self.plot.set_bars(
            *("Gain", "dB") if measure.gain else ("Error", "%"), [b for b, _ in bars]
        )
        self.plot.caption.setToolTip(measure.axis)
        self.plot.highlight(self._session.current or "")

    def _harm(self, found: Sensitivity, layer: LayerSensitivity) -> float:
        value = self._measure.get(found, layer)
        return float("-inf") if value is None else self._measure.harm(value)

    def _bar(self, found: Sensitivity, layer: LayerSensitivity) -> Bar:
        measure: Measure = self._measure
        value = measure.get(found, layer)
        color = ramp(0.5)
        if value is not None and not measure.gain:
            known = {
                other.layer: number
                for other in found.layers
                if (number := measure.get(found, other)) is not None
            }
            color = sensitivity_scale(known).color(value)
        elif value is not None:
            values = layer_sensitivity(self._session.document)
            color = sensitivity_scale(values).color(values.get(layer.layer, 0.0))
        lines = [
            f"{each.title}: {each.words(each.get(found, layer))}" for each in MEASURES.values()
        ]
        words = measure.words(value)
        return Bar(layer.layer, measure.height(value), color, words, "\n".join(lines))

    # -- selection -----------------------------------------------------------------------------

    def _choose(self, layer: str) -> None:
        if not self._following:
            self.layer_chosen.emit(layer)

    def _follow(self) -> None:
        """Show the layer that is selected elsewhere."""
        name = self._session.current or ""
        self.plot.highlight(name)
        self._following = True
        for table in self.tables.values():
            table.show_layer(name)
        self._following = False

    # -- running -------------------------------------------------------------------------------

    def _start(self) -> None:
        self._session.analyse()
