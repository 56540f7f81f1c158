"""The panel at the right: everything about the selected layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QScrollArea, QStackedLayout, QVBoxLayout, QWidget

from studio.app import edits, text
from studio.app.inspector import facts
from studio.app.inspector.encoding_block import EncodingBlock, FactGrid
from studio.app.inspector.observer_table import ObserverComparison
from studio.app.inspector.settings_form import SettingsForm
from studio.app.overlay import layer_sqnr
from studio.app.plots import HistogramPlot
from studio.app.session import Session
from studio.app.widgets import elided, label, set_role
from studio.sim.choices import OBSERVER, Kind, observer_text

if TYPE_CHECKING:
    from studio.project.document import Document
    from studio.sim.plan import Layer


class InspectorPanel(QWidget):
    """Follows the selection of the session."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Inspector")
        self._session = session
        self._layer: Layer | None = None
        self.name = elided("", "heading")
        self.subtitle = label("", "muted", wrap=True)
        self.note = label("", "muted", wrap=True)
        self.facts = FactGrid()
        self.runs = label("", "muted", wrap=True)
        self.weights = SettingsForm(session, "weight")
        self.weights_title = label("Weights", "section")
        self.activation = SettingsForm(session, "act")
        self.activation_title = label("Output activation", "section")
        self.encodings_title = label("Encodings", "section")
        self.blocks: list[EncodingBlock] = []
        self.histogram = HistogramPlot()
        self.histogram.setFixedHeight(190)
        self.histogram.set_caption("Histogram of the output")
        self.histogram.header.setContentsMargins(0, 8, 0, 0)
        self.histogram.note.setContentsMargins(0, 0, 0, 0)
        self.histogram.log.setChecked(True)
        self.compare = ObserverComparison(session, "output")
        self.compare_weights = ObserverComparison(session, "weights")
        self.quality = label("", "muted", wrap=True)
        self.harm = label("", "muted", wrap=True)
        self._build()
        session.selection_changed.connect(self.refresh)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        session.forecasts.changed.connect(self.refresh)
        self.compare.chosen.connect(lambda name: self._choose_observer("act", name))
        self.compare_weights.chosen.connect(lambda name: self._choose_observer("weight", name))
        self.compare.compared.connect(self._show_ranges)
        self.compare.looked_at.connect(self._look_at)
        self.refresh()

    def _build(self) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(16, 14, 16, 16)
        layout.setSpacing(8)
        layout.addWidget(label("INSPECTOR", "caption"))
        column: tuple[QWidget, ...] = (
            self.name,
            self.subtitle,
            self.facts,
            self.runs,
            self.weights_title,
            self.weights,
            self.compare_weights,
            self.activation_title,
            self.activation,
            self.compare,
            self.note,
            self.histogram,
            self.quality,
            self.harm,
            self.encodings_title,
        )
        for widget in column:
            layout.addWidget(widget)
        self._blocks_layout = QVBoxLayout()
        self._blocks_layout.setSpacing(6)
        layout.addLayout(self._blocks_layout)
        layout.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(content)
        self.empty = label("Select a layer in the graph or in the table.", "muted", wrap=True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty.setMargin(24)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self.empty)
        self._stack.addWidget(scroll)

    def refresh(self, *_: object) -> None:
        """Show the current layer of the session."""
        document, name = self._session.document, self._session.current
        layer = None
        if document is not None and name is not None:
            layer = next((item for item in document.plan.layers if item.name == name), None)
        self._layer = layer
        self._stack.setCurrentIndex(0 if layer is None else 1)
        if document is not None and layer is not None:
            self._show(document, layer)

    def _show(self, document: Document, layer: Layer) -> None:
        count = len(self._session.selection)
        more = f"   + {text.plural(count - 1, 'layer')}" if count > 1 else ""
        self.name.setText(layer.name + more)
        self.subtitle.setText(facts.subtitle(document, layer))
        where, why = facts.runs_in(self._session.forecasts.layer(layer.name))
        rows = facts.facts(document, layer)
        self.facts.show_rows([*rows, ("Runs in", where)] if where else rows)
        self.runs.setText(why)
        self.runs.setVisible(bool(why))
        self.weights.setVisible(layer.editable_weight)
        self.weights_title.setVisible(layer.editable_weight)
        self.activation.setVisible(layer.editable_act)
        self.activation_title.setVisible(layer.editable_act)
        if layer.editable_weight:
            self.weights.show_layer(layer)
        if layer.editable_act:
            self.activation.show_layer(layer)
        notes = [layer.note] if layer.note else []
        if layer.follows:
            notes.insert(0, f"The output uses the encoding of {layer.follows}.")
        self.note.setText(" ".join(notes))
        self.note.setVisible(bool(notes))
        self._show_comparisons(document, layer)
        self._show_histogram(document, layer)
        harm = facts.sensitivity_words(layer.name, document.sensitivity)
        self.harm.setText(f"Outputs: {harm}")
        self.harm.setVisible(bool(harm))
        words, role = facts.quality_line(layer.name, layer_sqnr(document))
        self.quality.setText(words)
        self.quality.setVisible(bool(words))
        set_role(self.quality, role)
        self._show_blocks(facts.encodings(document, layer))

    def _show_comparisons(self, document: Document, layer: Layer) -> None:
        """Methods are compared where one can be chosen and there is something to compare."""
        output = document.plan.tensors.get(layer.output)
        known = document.calibration.statistics if document.calibration is not None else {}
        ready = output is not None and output.observed and output.name in known
        self.compare.show_tensor(
            layer.output if ready and layer.editable_act else "", layer.settings.act_observer or ""
        )
        weight = document.plan.tensors.get(layer.weights[0]) if layer.weights else None
        ready = weight is not None and weight.spec is not None and not weight.from_file
        self.compare_weights.show_tensor(
            layer.weights[0] if ready and layer.editable_weight else "",
            layer.settings.weight_observer or "",
        )

    def _choose_observer(self, kind: Kind, name: str) -> None:
        document, layer = self._session.document, self._layer
        if document is None or layer is None:
            return
        asked = edits.questions_of(document, layer, kind)
        question = next(item for item in asked if item.name == OBSERVER)
        choice = question.choice(observer_text(name))
        edits.answer(self._session, self._session.selection, question, choice)

    def _show_ranges(self) -> None:
        ranges = [(result.minimum, result.maximum) for result in self.compare.results]
        self.histogram.set_other_ranges(ranges)

    def _look_at(self, name: str) -> None:
        found = (item for item in self.compare.results if item.observer == name)
        result = next(found, None)
        if result is None:
            self.histogram.look_at(None)
        else:
            shown = observer_text(result.observer)
            self.histogram.look_at((result.minimum, result.maximum), shown)

    def _show_blocks(self, items: list[facts.EncodingFacts]) -> None:
        while len(self.blocks) < len(items):
            block = EncodingBlock()
            self.blocks.append(block)
            self._blocks_layout.addWidget(block)
        for index, block in enumerate(self.blocks):
            block.setVisible(index < len(items))
            if index < len(items):
                block.show_facts(items[index])
        self.encodings_title.setVisible(bool(items))

    def _show_histogram(self, document: Document, layer: Layer) -> None:
        tensor = layer.output
        plan = document.plan.tensors.get(tensor)
        calibration = document.calibration
        statistics = None
        if calibration is not None:
            tied = plan.tied_to if plan is not None else None
            statistics = calibration.statistics.get(tensor) or calibration.statistics.get(
                tied or ""
            )
        self.histogram.setVisible(statistics is not None and statistics.has_histogram)
        if statistics is None or not statistics.has_histogram:
            return
        encoding = document.encodings.get(tensor)
        low = high = None
        if encoding is not None:
            low, high = float(encoding.minimum.min()), float(encoding.maximum.max())
        edges = statistics.edges
        counts, edges = facts.coarser(
            statistics.counts, edges, statistics.minimum, statistics.maximum
        )
        self.histogram.set_histogram(counts, edges, low, high)
