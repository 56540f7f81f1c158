"""The graph of layers: boxes from the plan, colours from the overlay, selection both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QMenu, QToolButton, QVBoxLayout, QWidget

from studio.app import text
from studio.app.actions import Actions
from studio.app.graph import CanvasNode, GraphView
from studio.app.graph_boxes import Box, Boxes
from studio.app.layers.columns import number_of
from studio.app.overlay import (
    bits_color,
    layer_sensitivity,
    layer_sqnr,
    sensitivity_scale,
    sqnr_scale,
)
from studio.app.session import Session
from studio.app.theme import ramp
from studio.app.widgets import label, menu_button
from studio.sim.choices import number_text

if TYPE_CHECKING:
    import onnx_ir as ir

    from studio.analysis.forecast import LayerForecast
    from studio.project.document import Document
    from studio.sim.plan import Layer, Plan

COLORS = {
    "none": "none",
    "bits": "bits",
    "sqnr": "SQNR",
    "sensitivity": "sensitivity",
    "runs": "runs in",
}
RUNS_RAMP = {"float": 0.0, "integer weights": 0.5, "integer": 1.0}
NOTHING = "—"


def badge(layer: Layer, plan: Plan) -> str:
    """`W8 A8`, `A8`, or a dash for a layer that stays in float."""
    parts = []
    settings = layer.settings
    if settings.weight_bits is not None and settings.weight_enabled is not False:
        parts.append(f"W{_number(settings.weight_format, settings.weight_bits)}")
    tensor = plan.tensors.get(layer.output)
    if tensor is not None and tensor.spec is not None:
        parts.append(f"A{_short(number_of(tensor.spec.grid))}")
    return " ".join(parts) or NOTHING


def _number(format: str | None, bits: int) -> str:
    return _short(number_text(format, bits).removeprefix("int"))


def _short(number: str) -> str:
    """`fp8` of `fp8 e4m3`: the inspector has the rest."""
    return number.partition(" ")[0]


def mark_of(forecasts: Sequence[LayerForecast], badge: str) -> str:
    """`float` for what is quantized but will run in float; `differs` where the target computes
    something else than the simulation."""
    if badge == NOTHING:
        return ""
    if any(row.runs.value == "float" for row in forecasts):
        return "float"
    return "differs" if any(row.warning for row in forecasts) else ""


class GraphPanel(QWidget):
    """`bar` holds search, colour and fit, and is placed beside the tabs.

    Recognised layers and blocks are one box each, until one opens it into a frame.
    """

    activated = Signal(str)  # name of a layer

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._actions = actions
        self._color = "sqnr"
        self._shown: object = None
        self._model: ir.Model | None = None  # what is shown, as it was before preparation
        self._boxes: Boxes | None = None
        self._opened: set[str] = set()
        self._sizes = False
        self.view = GraphView()
        self.view.setAccessibleName("Graph of layers")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self._build_bar()
        self.view.selected.connect(lambda name: session.select(self._layers(name)))
        self.view.activated.connect(lambda name: self.activated.emit(self._layers(name)[-1]))
        self.view.toggled.connect(self.toggle)
        session.opened.connect(self._forget)
        session.document_changed.connect(self.refresh)
        session.forecasts.changed.connect(self.refresh)
        session.selection_changed.connect(lambda names: self._select(names))
        self.refresh()

    def _build_bar(self) -> None:
        self.bar = QWidget()
        self.search = QLineEdit(placeholderText="Find layer")
        self.search.setAccessibleName("Find layer in the graph")
        self.search.setClearButtonEnabled(True)
        self.search.setFixedWidth(150)
        self.search.setProperty("role", "chip")
        self.search.textEdited.connect(lambda words: self.find_layer(words, 0))
        self.search.returnPressed.connect(lambda: self.find_layer(self.search.text(), 1))
        leave = QShortcut(QKeySequence(Qt.Key.Key_Escape), self.search)
        leave.setContext(Qt.ShortcutContext.WidgetShortcut)
        leave.activated.connect(self._leave_search)
        self.found = label("", "muted")
        self.color = menu_button("Colour of the graph", "chip")
        self.color.setMenu(QMenu(self.color))
        for name in COLORS:
            self.color.menu().addAction(self._actions[f"color_{name}"])
        self.groups = menu_button("Recognised layers in the graph", "chip")
        self.groups.setText("Expand")
        self.groups.setMenu(QMenu(self.groups))
        for name in ("expand", "collapse"):
            self.groups.menu().addAction(self._actions[name])
        fit = QToolButton()
        fit.setText("Fit")
        fit.setAccessibleName("Show the whole graph")
        fit.setToolTip(self._actions["fit"].toolTip())
        fit.setProperty("role", "chip")
        fit.clicked.connect(self.view.fit)
        layout = QHBoxLayout(self.bar)
        layout.setContentsMargins(0, 0, 8, 0)
        layout.setSpacing(6)
        for widget in (self.found, self.search, self.groups, self.color, fit):
            layout.addWidget(widget, 0, Qt.AlignmentFlag.AlignVCenter)

    # -- content -------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Start afresh with another model; the same one may have been prepared again."""
        model = _unprepared(self._session.document)
        if model is not None and model is self._model:
            return
        self._shown = None
        self._opened.clear()
        self.search.clear()
        self.found.setText("")

    def set_color(self, name: str) -> None:
        """Colour by one of `COLORS`."""
        self._color = name
        self.refresh()

    def show_sizes(self, on: bool) -> None:
        """Show the layers that only compute sizes as well."""
        self._sizes = on
        self._boxes = None
        self.refresh()

    def refresh(self) -> None:
        """Lay the graph out anew if the layers changed, else only update the boxes."""
        document = self._session.document
        self.color.setText(f"Colour: {COLORS[self._color]}")
        if document is None:
            self.view.clear_graph()
            self._shown = None
            return
        if self._boxes is None or self._boxes.plan is not document.plan:
            hidden = frozenset() if self._sizes else document.shape_layers
            self._boxes = Boxes(document.plan, document.graph, hidden)
            self._opened &= self._boxes.all.keys()
        self.groups.setVisible(any(box.opens for box in self._boxes.all.values()))
        self._draw(document)
        self._show_legend(document)

    def _draw(self, document: Document, keep: str = "") -> None:
        """The boxes as they are now, laid out anew if others are visible than before."""
        assert self._boxes is not None
        boxes = self._boxes.visible(self._opened)
        nodes = self._nodes(document, boxes)
        shape = tuple((node.id, node.title, node.shape) for node in nodes)
        if shape == self._shown:
            self.view.update_nodes({node.id: node for node in nodes})
            return
        from studio.graph.layout import layout

        current = self.view.current
        edges, stay = self._boxes.edges(self._opened), self._shown is not None
        self.view.set_graph(nodes, edges, layout, stay=stay, keep=keep)
        self._shown, self._model = shape, _unprepared(document)
        if self._stands_for(current) == set(self._session.selection) and current:
            self.view.select(current, center=False)
        else:
            self._select(self._session.selection, center=not stay)

    # -- groups --------------------------------------------------------------------------------

    def toggle(self, name: str) -> None:
        """Open the box `name` into a frame, or close it."""
        document = self._session.document
        if document is not None:
            self._opened ^= {name}
            self._draw(document, keep=name)

    def open_all(self, on: bool) -> None:
        """Open or close every recognised layer and block."""
        document = self._session.document
        if document is None or self._boxes is None:
            return
        self._opened = {box.id for box in self._boxes.all.values() if box.opens and on}
        self._draw(document)

    def _show_box(self, name: str) -> None:
        """Open what the box `name` is inside of."""
        document = self._session.document
        if document is None or self._boxes is None or name not in self._boxes.all:
            return
        closed = set(self._boxes.around(name)) - self._opened
        if closed:
            self._opened |= closed
            self._draw(document)

    def _layers(self, name: str) -> tuple[str, ...]:
        """The layers that the box `name` stands for."""
        box = self._boxes.all.get(name) if self._boxes is not None else None
        return box.layers if box is not None else (name,)

    def _stands_for(self, name: str) -> set[str]:
        return set(self._layers(name))

    # -- boxes ---------------------------------------------------------------------------------

    def _nodes(self, document: Document, boxes: list[Box]) -> list[CanvasNode]:
        layers = {layer.name: layer for layer in document.plan.layers}
        sqnr = layer_sqnr(document)
        scale = sqnr_scale(sqnr)
        harm = layer_sensitivity(document)
        harm_scale = sensitivity_scale(harm)
        nodes = []
        for box in boxes:
            parts = [layers[name] for name in box.layers]
            known = [sqnr[layer.name] for layer in parts if layer.name in sqnr]
            inside = box.id.startswith("op:") and box.parent in layers
            single = parts[0] if len(parts) == 1 and not inside else None
            alone = [harm[layer.name] for layer in parts if layer.name in harm]
            color, value = None, ""
            if self._color == "sqnr" and known and not inside:
                color, value = scale.color(min(known)), text.decibels(min(known))
            elif self._color == "sensitivity" and alone and not inside:
                color, value = harm_scale.color(min(alone)), text.decibels(min(alone))
            elif self._color == "bits" and single is not None:
                color = bits_color(single.settings.weight_bits or single.settings.act_bits)
            rows = [self._session.forecasts.layer(layer.name) for layer in parts]
            forecasts = [row for row in rows if row is not None]
            if self._color == "runs" and not inside:
                places = [RUNS_RAMP[r.runs.value] for r in forecasts if r.runs.value in RUNS_RAMP]
                color = ramp(min(places)) if places else None
            words = badge(single, document.plan) if single is not None else ""
            is_input = single is not None and single.ops == ("Input",)
            opened = box.opens and box.id in self._opened
            nodes.append(
                CanvasNode(
                    id=box.id,
                    title=box.title,
                    subtitle=box.subtitle,
                    badge=words,
                    mark="" if inside else mark_of(forecasts, words),
                    color=color,
                    value=value,
                    shape="io" if is_input else "frame" if opened else "layer",
                    tooltip=_tip(box, parts, known, alone, forecasts),
                    parent=box.parent,
                    toggle=box.opens,
                )
            )
        return nodes

    def _show_legend(self, document: Document) -> None:
        sqnr = layer_sqnr(document)
        if self._color == "sqnr" and sqnr:
            scale = sqnr_scale(sqnr)
            self.view.set_legend("SQNR in dB", f"{scale.low:.0f}", f"{scale.high:.0f}")
        elif self._color == "sensitivity" and document.sensitivity is not None:
            scale = sensitivity_scale(layer_sensitivity(document))
            self.view.set_legend("alone, in dB", f"{scale.low:.0f}", f"{scale.high:.0f} +")
        elif self._color == "bits":
            self.view.set_legend("bits", "2", "8 +")
        elif self._color == "runs" and self._session.forecasts.current is not None:
            self.view.set_legend("runs in", "float", "integers")
        else:
            self.view.clear_legend()

    # -- selection and search ------------------------------------------------------------------

    def _select(self, names: tuple[str, ...], center: bool = True) -> None:
        current = self.view.current
        if names and current and self._stands_for(current) == set(names):
            return
        name = self._boxes.box_of(names[-1]) if names and self._boxes is not None else ""
        self._show_box(name)
        if self.view.current != name:
            self.view.select(name, center)
        if name and names[-1] not in self._layers(name):  # an operator or a block was named
            self._session.select(self._layers(name))

    def focus_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def _leave_search(self) -> None:
        """Back to the graph, nothing outlined."""
        self.search.clear()
        self.find_layer("", 0)
        self.view.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def find_layer(self, words: str, step: int) -> None:
        """Select the first box that matches, or with `step` 1 the next one after the selected."""
        self.view.find(words)
        matches = self._boxes.find(words) if self._boxes is not None else []
        if not matches:
            self.found.setText("No match" if words.strip() else "")
            return
        current = self.view.current
        index = (matches.index(current) + step) % len(matches) if current in matches else 0
        self.found.setText(f"{index + 1} of {len(matches)}")
        name = matches[index]
        self._show_box(name)
        self.view.find(words)
        self.view.select(name)
        self._session.select(self._layers(name))


def _unprepared(document: Document | None) -> ir.Model | None:
    """The model as it was opened, which stays the same object however it is prepared."""
    captured = document.graph.captured if document is not None else None
    return captured.ir if captured is not None else None


def _tip(
    box: Box,
    parts: list[Layer],
    sqnr: list[float],
    alone: list[float],
    forecasts: Sequence[LayerForecast],
) -> str:
    lines = [box.subtitle, box.title]
    if len(parts) > 1:
        lines.append(f"{len(parts)} layers")
    elif box.opens:
        lines.append(" · ".join(parts[0].ops))
    if sqnr:
        lines.append(f"{'Lowest ' if len(parts) > 1 else ''}SQNR {text.decibels(min(sqnr))}")
    if alone:
        whose = "Each quantized alone, at least" if len(parts) > 1 else "Quantized alone,"
        lines.append(f"{whose} {text.decibels(min(alone))} at the model's outputs")
    if len(parts) == 1 and parts[0].note:
        lines.append(parts[0].note)
    for row in forecasts if len(parts) == 1 else ():
        words = text.sentences(row.reason, row.hint, row.warning)
        lines.append(f"Runs in {row.runs.value}" + (f": {words}" if words else ""))
    return "\n".join(lines)
